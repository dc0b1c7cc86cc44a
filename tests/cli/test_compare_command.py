"""Which model made a picture, on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gcn_cli as gcn_api
from gcn_cli.images import to_picture
from gcn_cli.model import compare
from tests.cli.running import TEXTURE, gcn

SMALL = [*TEXTURE, "--iterations", "30"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two textures: stripes across, and fine noise."""
    folder = tmp_path_factory.mktemp("compare")
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(96.0)[None, :, None].expand(3, 96, 192)
    stripes = 128 + 60 * torch.sin(rows / 2) + 10 * torch.randn(3, 96, 192, generator=generator)
    noise = 128 + 40 * torch.randn(3, 96, 192, generator=generator)
    for name, picture in (("stripes", stripes), ("noise", noise)):
        to_picture(picture[:, :, :96]).save(folder / f"{name}.png")
        to_picture(picture[:, 10:60, 120:180]).save(folder / f"{name}-crop.png")
        assert gcn("train", f"{name}.png", *SMALL, "-o", name, cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("made_by", ["stripes", "noise"])
def test_crops_it_never_saw_are_the_right_model_s(here: Path, made_by: str) -> None:
    words = ["inspect", "--compare", "stripes", "--compare", "noise"]
    words += ["--picture", f"{made_by}-crop.png"]
    done = gcn(*words, "--json", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    first, second = json.loads(done.stdout)["compared"]
    assert first["run"] == made_by
    assert first["log_ratio"] == 0
    assert second["log_ratio"] < -10
    assert first["posterior"] + second["posterior"] == pytest.approx(1)
    shown = gcn(*words, cwd=here).stdout.decode().splitlines()
    assert shown[0].startswith(f"{made_by}  posterior 1")


def test_models_of_other_strides_are_shown_the_same_pixels(here: Path) -> None:
    """Of 50x60 pixels a stride of 4 would see 48x60, one of 16 only 48x48: more is less likely."""
    deep = [*SMALL, "--layers", "8@5,8@3/2,8@3/2,8@3/2", "-o", "deep"]
    assert gcn("train", "noise.png", *deep, cwd=here).returncode == 0
    words = ["inspect", "--compare", "noise", "--compare", "deep", "--json"]
    done = gcn(*words, "--picture", "noise-crop.png", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    _, second = json.loads(done.stdout)["compared"]
    assert second["log_ratio"] > -500  # nats; 576 pixels more would be some thousands


def test_what_cannot_be_compared_is_refused(here: Path) -> None:
    lone = gcn("inspect", "--compare", "noise", "--picture", "noise.png", cwd=here)
    assert lone.returncode == 2
    assert b"--compare: name two runs or more, and a --picture" in lone.stderr
    with Image.open(here / "noise.png") as whole:
        picture = whole.crop((0, 0, 24, 24)).convert("RGB")
    settings: dict[str, Any] = {"learner": "mle", "size": 24, "layers": "4@5/2+2", "iterations": 1}
    paper = gcn_api.train(picture, device="cpu", **settings)
    with pytest.raises(gcn_api.InputError, match="is for ladders of textures"):
        compare([here / "noise", paper], picture)
    gray = gcn("train", "noise.png", *SMALL, "--channels", "1", "-o", "gray", cwd=here)
    assert gray.returncode == 0
    words = ["inspect", "--compare", "gray", "--compare", "noise", "--picture", "noise.png"]
    mixed = gcn(*words, cwd=here)
    assert mixed.returncode == 2
    assert b"models of gray and of color" in mixed.stderr


@pytest.mark.parametrize("words", [["--map", "map.png"], ["--details"], ["--level", "2"]])
def test_what_is_of_one_model_is_refused_beside_several(here: Path, words: list[str]) -> None:
    both = ["--compare", "noise", "--compare", "stripes", "--picture", "noise.png"]
    done = gcn("inspect", *both, *words, cwd=here)
    assert done.returncode == 2
    assert f"{words[0]}: is of one model, --compare of several".encode() in done.stderr
    assert not (here / "map.png").exists()
