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


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("size", "512", (512, 512)),
        ("size", "640x480", (640, 480)),
        ("time", "90", 90.0),
        ("time", "1.5h", 5400.0),
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
        ("size", "0"), ("size", "3x"), ("time", "0s"), ("time", "soon"), ("extension", "0"),
        ("extension", "2"+"x"), ("extension", "0m"), ("seeds", "3-1"), ("seeds", "0-1000000"),
        ("seeds", "1,,2"), ("tile", "0"), ("sides", "1,2"), ("sigma", "0"), ("sigma", "nan"),
        ("sigma", "256"), ("point", "3"), ("assignment", "crop"),
    ],
)  # fmt: skip
def test_other_text_is_refused_with_an_example(kind: str, text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"^'{text}' is not .*"):
        KINDS[kind].convert(text, None, None)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_groups_of_at_most_32_options(command: list[str], tmp_path: Path) -> None:
    """Thirty-one, and --help."""
    page = gcn(*command, "--help", cwd=tmp_path).stdout.decode()
    _, *groups = re.split(r"\n(\w[\w ]*):\n", page)
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", "\n".join(groups[1::2]), re.MULTILINE)
    assert len(options) == len(set(options)) <= 32
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
    [("synthesize", "--width", "--size"), ("reconstruct", "--sigma", "--denoise")],
)
def test_a_common_guess_names_the_option_meant(
    command: str, option: str, meant: str, tmp_path: Path
) -> None:
    done = gcn(command, option, "1", cwd=tmp_path)
    assert done.returncode == 2
    assert f"No such option: {option}; did you mean {meant}?" in done.stderr.decode()


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
