"""Ladders at several resolutions through the commands: everything a texture's model does."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.running import gcn
from tests.reading import read

SMALL = [
    "--layers", "6@3,6@3/2", "--crop", "16", "--margin", "2", "--iterations", "20",
    "--octaves", "3", "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished model of three ladders; read only."""
    folder = tmp_path_factory.mktemp("octaves")
    Image.effect_noise((70, 64), 60).convert("RGB").resize((96, 88)).save(folder / "texture.png")
    done = gcn("train", "texture.png", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def test_resuming_equals_going_through(trained: Path) -> None:
    words = ["train", "texture.png", *SMALL, "-o", "stopped"]
    stopped = gcn(*words, "--max-time", "0.001s", cwd=trained)
    assert stopped.returncode == 0, stopped.stderr.decode()
    assert gcn(*words, cwd=trained).returncode == 0
    ours, theirs = (
        gcn("synthesize", "--model", run, "-o", "-", cwd=trained).stdout
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
        (["--lattice", "reflect"], (96, 88)),
        (["--guide", "texture.png"], (96, 88)),
        (["--start", "texture.png", "--level", "3", "--steps", "4"], (96, 88)),
    ],
)
def test_samples_of_every_kind(trained: Path, words: list[str], size: tuple[int, int]) -> None:
    target = ["-o", "out.png", "--overwrite", "--model", "runs/texture"]
    done = gcn("synthesize", *words, *target, cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(trained / "out.png") as picture:
        assert picture.size == size


def test_blocks_make_the_same_picture(trained: Path) -> None:
    made = []
    for tile in ("off", "32"):
        words = ["synthesize", "--size", "96x71", "--tile", tile, "-o", f"tile-{tile}.png"]
        words += ["--model", "runs/texture", "--precision", "float32"]
        assert gcn(*words, cwd=trained).returncode == 0
        made.append(read(str(trained / f"tile-{tile}.png")))
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1)  # of 255: rounding


@pytest.mark.parametrize(
    "words",
    [
        ["reconstruct", "texture.png", "--extend", "0,0,20,0"],
        ["reconstruct", "texture.png", "--make-seamless", "8"],
        ["reconstruct", "texture.png", "--denoise", "20"],
        ["reconstruct", "texture.png", "--level", "6"],
        ["inspect", "--picture", "texture.png", "--level", "6", "--map", "map.png"],
        [
            "inspect",
            "--picture",
            "texture.png",
            "--level",
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


def test_inspect_says_how_many(trained: Path) -> None:
    done = gcn("inspect", "--model", "runs/texture", "--json", cwd=trained)
    described = json.loads(done.stdout)
    assert [row["resolution"] for row in described["octaves"]] == ["1", "1/2", "1/4"]
    assert described["parameters"] == 3 * sum(row["parameters"] for row in described["layers"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--octaves", "6"], "--octaves"),
        (["--octaves", "2", "--crop", "0"], "--octaves 2: pictures learned whole have one"),
        (["--octaves", "3", "--noise-max", "0.4"], "--octaves: no levels are above"),
    ],
)
def test_what_cannot_be_is_one_line(trained: Path, words: list[str], message: str) -> None:
    done = gcn("train", "texture.png", *SMALL, *words, "-o", "refused", cwd=trained)
    assert done.returncode == 2
    assert message in done.stderr.decode().splitlines()[-1]
    assert not (trained / "refused" / "model.safetensors").exists()
