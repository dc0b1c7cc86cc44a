"""The commands end to end on a small published model: messages, exit codes, files."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.running import PUBLISHED, gcn
from tests.reading import values_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.effect_noise((40, 32), 60).convert("RGB").save(tmp_path / "texture.png")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run; read only."""
    folder = tmp_path_factory.mktemp("trained")
    Image.effect_noise((40, 32), 60).convert("RGB").save(folder / "texture.png")
    done = gcn("train", "texture.png", *PUBLISHED, "--preview-every", "4", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "runs/texture"
    return folder


def test_training_leaves_a_whole_run(trained: Path) -> None:
    run = trained / "runs" / "texture"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 9))
    assert {"stage", "energy_difference", "contrast"} <= rows[0].keys()
    assert sorted(p.name for p in (run / "previews").iterdir()) == ["000004.png", "000008.png"]
    assert (run / "model.safetensors").exists()


def test_the_same_command_again_says_complete(trained: Path) -> None:
    again = gcn("train", "texture.png", *PUBLISHED, cwd=trained)
    assert again.returncode == 0
    assert b"complete, 8 iterations" in again.stderr


def test_other_values_for_an_existing_run_are_refused(trained: Path) -> None:
    other = gcn("train", "texture.png", *PUBLISHED, "--set", "sigma=2", cwd=trained)
    assert other.returncode == 2
    assert b"--set sigma=1, not --set sigma=2; --overwrite starts over" in other.stderr


def test_synthesis_is_a_function_of_the_seed_whatever_the_count(trained: Path) -> None:
    def sample(*words: str) -> bytes:
        done = gcn("synthesize", "--steps", "3", *words, cwd=trained)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    alone = sample("-o", "-")
    assert Image.open(io.BytesIO(alone)).size == (24, 24)
    paths = json.loads(sample("--count", "3", "--seed", "0", "--json"))["files"]
    assert len(paths) == 3
    among = [values_of(trained / record["path"]) for record in paths]
    assert among[0] == values_of(alone)
    assert among[1] != values_of(alone)
    assert values_of(sample("-o", "-", "--seed", "1")) != values_of(alone)


def test_synthesis_starts_and_sizes(trained: Path) -> None:
    for words, size in (
        (["--size", "30x20"], (30, 20)),
        (["--start", "chains"], (24, 24)),
        (
            ["--start", "texture.png", "--set", "padding_mode=circular", "--set", "noise=false"],
            (24, 24),
        ),
        (["--precision", "bf16", "--steps", "0"], (24, 24)),
    ):
        done = gcn("synthesize", "--steps", "2", "-o", "-", *words, cwd=trained)
        assert done.returncode == 0, done.stderr.decode()
        assert Image.open(io.BytesIO(done.stdout)).size == size


def test_chains_of_a_run_trained_from_crops_have_the_size_of_crops(folder: Path) -> None:
    words = ["--set", "crop=16", "--batch-size", "2", "-o", "cropped"]
    assert gcn("train", "texture.png", *PUBLISHED, *words, cwd=folder).returncode == 0
    start = ["--start", "chains", "--steps", "1", "--model", "cropped", "-o", "-"]
    done = gcn("synthesize", *start, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert Image.open(io.BytesIO(done.stdout)).size == (16, 16)
    refused = gcn("synthesize", *start, "--size", "24", cwd=folder)
    assert refused.returncode == 2
    assert b"--size: must be left out with --start chains" in refused.stderr


def test_reconstruction_prints_its_metrics(trained: Path) -> None:
    done = gcn("reconstruct", "texture.png", "--steps", "2", "--json", cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    (record,) = json.loads(done.stdout)["files"]
    assert {"rms_error", "share_of_variance", "psnr_db", "residual"} <= record.keys()
    assert (trained / record["path"]).exists()


def test_inspect_describes_model_image_and_preset(trained: Path, tmp_path: Path) -> None:
    done = gcn("inspect", "texture", "--json", cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    assert [layer["receptive_field"] for layer in facts["layers"]] == [5, 9]
    done = gcn("inspect", "image", "texture.png", "--json", cwd=trained)
    assert len(json.loads(done.stdout)["image"]["open_gates"]) == 2
    assert gcn("inspect", "filters", str(tmp_path / "f.png"), cwd=trained).returncode == 0
    with Image.open(tmp_path / "f.png") as filters:
        assert filters.size[0] > 20
    short = gcn("inspect", "runs/texture", cwd=trained).stdout.decode()
    assert "receptive field 9 pixels" in short
    assert "receptive_field" not in short
    assert b"receptive_field" in gcn("inspect", "--details", cwd=trained).stdout

    preset = gcn("inspect", "--preset", "paper-object", cwd=trained)
    (tmp_path / "preset.toml").write_bytes(preset.stdout)
    assert b"head = true" in preset.stdout
    from gcn_cli.presets import PRESETS, build_config, read_toml

    assert build_config({}, read_toml(str(tmp_path / "preset.toml"))) == PRESETS["paper-object"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "absent.png"], "absent.png: no such file or folder"),
        (["train"], "Missing argument 'SOURCE...'"),
        (["train", "bad.png"], "bad.png: not a readable image"),
        (["train", "texture.png", "--iterations", "0"], "--iterations 0: must be 1 or more"),
        (
            ["train", "texture.png"],
            "the shorter side, 32 pixels, leaves crops of 24, too small to train on",
        ),
        (["train", "texture.png", "--set", "crop=32"], "--set crop=32: too small for the padding"),
        (
            ["train", "texture.png", "--set", "layers=9by9"],
            "--set layers=9by9: must be FILTERS@SIZE",
        ),
        (["train", "texture.png", "--max-time", "soon"], "'soon' is not a time"),
        (["train", "texture.png", "--device", "cuda:77"], "--device cuda:77: not on this machine"),
        (
            [
                "train",
                "texture.png",
                "--set",
                "learner=mle",
                "--resize",
                "8",
                "--set",
                "padding_mode=valid",
            ],
            "smaller than",
        ),
        (["train", "texture.png", "--config", "no.toml"], "--config no.toml: no such file"),
        (["synthesize"], "no runs under runs/"),
        (["synthesize", "--model", "bad.png"], "bad.png: not a gcn model file"),
        (["synthesize", "--size", "0"], "'0' is not a size"),
        (
            ["reconstruct", "texture.png", "--model", "none"],
            "none: no such model file or run; train one with",
        ),
        (["inspect", "--preset", "paper-fish"], "'paper-fish' is not one of"),
        (["explode"], "No such command 'explode'"),
        (["trian"], "No such command 'trian'; did you mean train?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    words: list[str], message: str, folder: Path
) -> None:
    (folder / "bad.png").write_bytes(b"bad")
    done = gcn(*words, cwd=folder)
    errors = done.stderr.decode()
    assert done.returncode == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert done.stdout == b""


def test_files_are_not_replaced_unasked(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.png"
    target.write_bytes(b"mine")
    words = ["synthesize", "--steps", "1", "-o", str(target)]
    refused = gcn(*words, cwd=trained)
    assert refused.returncode == 2
    assert b"--overwrite" in refused.stderr
    assert target.read_bytes() == b"mine"
    assert gcn(*words, "--overwrite", cwd=trained).returncode == 0


def test_debug_shows_the_traceback(folder: Path) -> None:
    done = gcn("--debug", "train", "absent.png", cwd=folder)
    assert done.returncode == 2
    assert b"Traceback" in done.stderr


def test_the_installed_command_is_the_module(folder: Path) -> None:
    installed = Path(sys.executable).parent / "gcn"
    done = subprocess.run([installed, "--version"], capture_output=True, check=True, cwd=folder)
    assert done.stdout == gcn("--version", cwd=folder).stdout


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(trained: Path) -> None:
    command = f"{sys.executable} -m gcn_cli inspect | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=trained, capture_output=True, check=False, env=os.environ
    )
    assert b"Traceback" not in done.stderr
