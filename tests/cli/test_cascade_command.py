"""Resolution cascades through the commands: everything that a texture model does."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.running import gcn
from tests.reading import read, values_of

pytestmark = pytest.mark.slow

SMALL = [
    "--set", "layers=6@3,6@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "20",
    "--set", "stages=3", "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained cascade of three stages; read only."""
    folder = tmp_path_factory.mktemp("cascade")
    Image.effect_noise((70, 64), 60).convert("RGB").resize((96, 88)).save(folder / "texture.png")
    done = gcn("train", "texture.png", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def test_a_resumed_training_equals_an_uninterrupted_one(trained: Path) -> None:
    words = ["train", "texture.png", *SMALL, "-o", "stopped"]
    stopped = gcn(*words, "--max-time", "0.001s", cwd=trained)
    assert stopped.returncode == 0, stopped.stderr.decode()
    assert gcn(*words, cwd=trained).returncode == 0
    ours, theirs = (
        values_of(gcn("synthesize", "--model", run, "-o", "-", cwd=trained).stdout)
        for run in ("stopped", "runs/texture")
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], (96, 88)),
        (["--size", "71x53"], (71, 53)),
        (["--size", "71x53", "--tile", "16"], (71, 53)),
        (["--size", "72x50", "--seamless", "x"], (72, 50)),
        (["--set", "padding_mode=reflect"], (96, 88)),
        (["--guide", "texture.png"], (96, 88)),
        (["--start", "texture.png", "--noise-level", "3", "--steps", "4"], (96, 88)),
    ],
)
def test_samples_of_every_kind(trained: Path, words: list[str], size: tuple[int, int]) -> None:
    target = ["-o", "out.png", "--overwrite", "--model", "runs/texture"]
    done = gcn("synthesize", *words, *target, cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(trained / "out.png") as picture:
        assert picture.size == size


def test_tiles_make_the_same_image(trained: Path) -> None:
    made = []
    for tile in ("off", "32"):
        words = ["synthesize", "--size", "96x71", "--tile", tile, "-o", f"tile-{tile}.png"]
        words += ["--model", "runs/texture", "--precision", "float32", "--seed", "0"]
        assert gcn(*words, cwd=trained).returncode == 0
        made.append(read(str(trained / f"tile-{tile}.png")))
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1)  # of 255: rounding


@pytest.mark.parametrize(
    "words",
    [
        ["reconstruct", "texture.png", "--outpaint", "0,0,20,0"],
        ["reconstruct", "texture.png", "--make-seamless", "8"],
        ["reconstruct", "texture.png", "--denoise", "20"],
        ["reconstruct", "texture.png", "--noise-level", "6"],
        ["inspect", "image", "texture.png", "--noise-level", "6", "--unusual", "map.png"],
        [
            "inspect",
            "image",
            "texture.png",
            "--noise-level",
            "6",
            "--at",
            "9,9",
            "--filters",
            "f.png",
        ],
    ],
)
def test_the_other_commands(trained: Path, words: list[str]) -> None:
    where = ["--model", "runs/texture", "--overwrite"]
    done = gcn(*words, *where, *(["-o", "made"] if words[0] == "reconstruct" else []), cwd=trained)
    assert done.returncode == 0, done.stderr.decode()


def test_inspect_lists_the_stages(trained: Path) -> None:
    done = gcn("inspect", "--model", "runs/texture", "--json", cwd=trained)
    described = json.loads(done.stdout)
    assert [row["resolution"] for row in described["stages"]] == ["1", "1/2", "1/4"]
    assert described["parameters"] == 3 * sum(row["parameters"] for row in described["layers"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "stages=6"], "--set stages: an image at 1/16 of the resolution is too small"),
        (
            ["--set", "stages=2", "--set", "crop=0"],
            "--set stages=2: a cascade needs crops; use stages=1, or set crop",
        ),
        (["--set", "stages=3", "--set", "noise_max=0.4"], "--set stages: noise_max is below"),
    ],
)
def test_impossible_stages_are_refused(trained: Path, words: list[str], message: str) -> None:
    done = gcn("train", "texture.png", *SMALL, *words, "-o", "refused", cwd=trained)
    assert done.returncode == 2
    assert message in done.stderr.decode().splitlines()[-1]
    assert not (trained / "refused" / "model.safetensors").exists()
