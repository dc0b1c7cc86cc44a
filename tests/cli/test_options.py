"""How options are read, grouped in the help, and replaced where an earlier version had others."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from gcn_cli.cli.options import KINDS, replacement
from tests.cli.running import gcn

COMMANDS = (
    ["train"], ["synthesize"], ["reconstruct"], ["inspect"], ["inspect", "image"],
    ["inspect", "filters"], ["inspect", "report"], ["inspect", "levels"], ["inspect", "compare"],
)  # fmt: skip


MODEL, COUNT, OUTPUT = {"-m": "--model"}, {"-n": "--count"}, {"-o": "--output"}
COMMANDS_OF_SHORT = {
    "train": {**OUTPUT, "-j": "--jobs"},
    "synthesize": {**MODEL, **COUNT, **OUTPUT, "-s": "--size"},
    "reconstruct": {**MODEL, **COUNT, **OUTPUT},
    "inspect": MODEL,
}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("size", "512", (512, 512)),
        ("size", "640x480", (640, 480)),
        ("time", "90", 90.0),
        ("time", "1.5h", 5400.0),
        ("time", "5m30s", 330.0),
        ("time", "1h2min", 3720.0),
        ("size", "512X256", (512, 256)),
        ("size", "512\u00d7256", (512, 256)),
        ("seeds", "1..3,7", (1, 2, 3, 7)),
        ("preset", "Quick", "quick"),
        ("extension", "500", (500, None)),
        ("extension", "2m", (None, 120.0)),
        ("seeds", "5", (5,)),
        ("seeds", "4,0-2,1", (4, 0, 1, 2)),
        ("tile", "auto", "auto"),
        ("tile", "64", 64),
        ("sides", "0,0,256,0", (0, 0, 256, 0)),
        ("sigma", "auto", "auto"),
        ("sigma", "12.5", 12.5),
        ("point", "120,80", (120, 80)),
        ("assignment", "batch-size = 3", ("batch_size", "3")),
        ("assignment", "layers=4@3,4@3/2", ("layers", "4@3,4@3/2")),
    ],
)
def test_values_are_read_from_text(kind: str, text: str, value: Any) -> None:
    assert KINDS[kind].convert(text, None, None) == value
    assert KINDS[kind].convert(value, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("size", "0"), ("size", "3x"), ("time", "0s"), ("time", "soon"), ("time", "m"),
        ("extension", "0"), ("extension", "2"+"x"), ("extension", "0m"), ("seeds", "3-1"),
        ("seeds", "0-1000000"), ("seeds", "0-99999999999999999999"),
        ("seeds", "1,,2"), ("tile", "0"), ("sides", "1,2"), ("sigma", "0"), ("sigma", "nan"),
        ("sigma", "256"), ("point", "3"), ("assignment", "crop"),
    ],
)  # fmt: skip
def test_other_text_is_refused_with_an_example(kind: str, text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"^'{text}' is not .*"):
        KINDS[kind].convert(text, None, None)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_groups_of_at_most_38_options(command: list[str], tmp_path: Path) -> None:
    """More than a screen holds is hard to find."""
    page = gcn(*command, "--help", cwd=tmp_path).stdout.decode()
    _, *groups = re.split(r"\n(\w[\w ]*):\n", page)
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", "\n".join(groups[1::2]), re.MULTILINE)
    assert len(options) == len(set(options)) <= 38
    assert "Output format" in groups[::2]
    assert "Options" not in groups[::2]
    assert "default: None" not in page


@pytest.mark.parametrize(
    ("command", "option", "new"),
    [
        ("train", "--crop", "--set crop=N"),
        ("train", "--octaves", "--set stages=N"),
        ("train", "--lattice", "--set padding_mode=zeros|reflect|circular"),
        ("train", "--layers", "--set layers=..."),
        ("train", "--no-growth", "--set layerwise=false"),
        ("train", "--head", "--set head=true"),
        ("synthesize", "--octaves", "gcn train --set stages=N"),
        ("synthesize", "--padding-mode", "--set padding_mode=zeros|reflect|circular"),
        ("synthesize", "--seeds", "--seed 0,3-7"),
        ("synthesize", "--preview-tiled", "--sheet FILE"),
        ("synthesize", "--no-noise", "--set noise=false"),
        ("synthesize", "--level", "--noise-level X"),
        ("reconstruct", "--level", "--noise-level X"),
        ("reconstruct", "--extend", "--outpaint LEFT,TOP,RIGHT,BOTTOM"),
        ("train", "--size", "--resize N"),
        ("train", "--with", "--map FILE"),
        ("synthesize", "--with", "--map FILE"),
        ("reconstruct", "--with", "--map FILE"),
        ("inspect", "--map", "gcn inspect image IMAGE --unusual FILE"),
        ("inspect", "--picture", "gcn inspect image IMAGE"),
        ("inspect", "--report", "gcn inspect report FOLDER"),
    ],
)
def test_a_removed_option_names_its_successor(
    command: str, option: str, new: str, tmp_path: Path
) -> None:
    done = gcn(command, option, "1", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{option}: is now {new}" in done.stderr.decode()


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("synthesize", "--width", "--size"),
        ("train", "--width", "--resize"),
        ("reconstruct", "--sigma", "--denoise"),
        ("synthesize", "--samples", "--count"),
        ("train", "--gpu", "--device"),
    ],
)
def test_a_common_guess_names_the_option_meant(
    command: str, option: str, meant: str, tmp_path: Path
) -> None:
    done = gcn(command, option, "1", cwd=tmp_path)
    assert done.returncode == 2
    assert f"No such option: {option}; did you mean {meant}?" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synth"], "No such command 'synth'; did you mean synthesize?"),
        (["synthesise"], "No such command 'synthesise'; did you mean synthesize?"),
        (["repair"], "did you mean gcn reconstruct IMAGE --mask MASK?"),
        (["list"], "did you mean gcn inspect?"),
        (["wall.JPG"], "did you mean gcn synthesize wall.JPG?"),
        (["train", "a.png", "--preset", "qick"], "paper-reconstruct; did you mean quick?"),
        (["synthesize", "--seamless", "bothh"], "'bothh' is not one of both, x, y, off; did you"),
        (["inspect", "--preset", "pape-object"], "did you mean paper-object?"),
    ],
)
def test_what_was_meant_is_suggested(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = gcn(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.decode().split())


def test_short_options_are_those_of_other_programs(tmp_path: Path) -> None:
    pages = {name: gcn(name, "--help", cwd=tmp_path).stdout.decode() for name in COMMANDS_OF_SHORT}
    for name, shorts in COMMANDS_OF_SHORT.items():
        found = dict(re.findall(r"^  (-\w), (--[\w-]+)", pages[name], re.MULTILINE))
        assert found == {**shorts, "-q": "--quiet", "-h": "--help"}


def test_an_option_that_never_was_is_refused_as_such(tmp_path: Path) -> None:
    done = gcn("train", "--explode", cwd=tmp_path)
    assert done.returncode == 2
    assert b"No such option" in done.stderr
    assert replacement("train", "--explode") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "crp=3"], "--set crp: no such setting; similar are crop"),
        (["--set", "octaves=3"], "--set octaves: is now stages"),
        (["--set", "crop=many"], "--set crop=many: must be a whole number"),
        (["--set", "crop"], "'crop' is not KEY=VALUE, as crop=96"),
        (["--set", "seed=3", "--seed", "4"], "--set seed=3: is given as --seed too; give one"),
    ],
)
def test_settings_are_checked_by_name_and_value(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = gcn("train", "texture.png", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.decode()


def test_help_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom gcn_cli.cli.app import cli\n"
        f"for words in [[], *{COMMANDS!r}]:\n"
        "    cli([*words, '--help'], standalone_mode=False)\n"
        "cli(['inspect', '--preset', 'best'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'numpy' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script]
    subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
