"""gcn inspect: images as a model sees them, noise levels, the comparison of models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gcn_cli as gcn_api
from gcn_cli.images import to_pillow
from gcn_cli.model import compare
from gcn_cli.report.figures import filters_at, painted
from tests.cli.running import TEXTURE, gcn

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inside")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        texture = whole.convert("RGB").crop((0, 0, 96, 96))
    texture.save(folder / "texture.png")
    texture.paste(Image.effect_noise((24, 24), 120).convert("RGB"), (56, 24))
    texture.save(folder / "odd.png")
    assert gcn("train", "texture.png", *TEXTURE, "-o", "run", cwd=folder).returncode == 0
    return folder


def test_a_map_shows_where_a_picture_is_unlike_the_exemplar(here: Path) -> None:
    words = ["inspect", "--model", "run", "--picture", "odd.png", "--map", "map.png", "--json"]
    done = gcn(*words, cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)["picture"]
    assert told["most_unusual"] > 8
    assert 56 <= told["most_unusual_at"][0] < 80
    assert 24 <= told["most_unusual_at"][1] < 48
    assert 24 * 24 / 96**2 / 2 < told["unusual_share"] < 0.25
    with Image.open(here / "map.png") as shown:
        assert shown.size == (96, 96)
        bright, dark = (sum(shown.convert("RGB").getpixel(at)) for at in ((68, 36), (8, 80)))  # type: ignore[arg-type]
        assert bright > dark
    own = gcn_api.load(here / "run").anomaly_map(str(here / "texture.png"))
    assert abs(float(own.deviations.mean())) < 1e-3
    assert float(own.deviations.std()) == pytest.approx(1, abs=1e-3)
    assert gcn(*words, cwd=here).returncode == 2


def test_filters_at_a_place_are_the_gradients_of_the_units_there(here: Path) -> None:
    """Whose sum along the picture is what the smooth unit's response changes by, along it."""
    model = gcn_api.load(here / "run", device="cpu")
    words = ["inspect", "--model", "run", "--picture", "odd.png", "--filters", "at.png"]
    done = gcn(*words, "--at", "10,20", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    sheet = filters_at(model, str(here / "odd.png"), (10, 20))
    with Image.open(here / "at.png") as shown:
        assert shown.size == (sheet.shape[2], sheet.shape[1])
    elsewhere = filters_at(model, str(here / "odd.png"), (60, 60))
    assert elsewhere.shape != sheet.shape or not torch.equal(elsewhere, sheet)
    density = model.checkpoint.kind.density(None, torch.float32)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, _ = unit_filters(density, x, [6, 10], (12, 12))
    leaf = x.requires_grad_()
    own = density.responses(leaf)[0][0, :, 6, 6]
    (slope,) = torch.autograd.grad(own.max(), leaf)
    where = slope.abs().sum(dim=1)[0].nonzero()
    assert int((where - 12).abs().max()) <= 6  # within the receptive field of 10 pixels about it
    assert first.shape[0] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--map", "x.png"], b"--map: is of a --picture"),
        (["--at", "3,4", "--filters", "x.png"], b"--at: is a pixel of a --picture"),
        (["--picture", "odd.png", "--at", "3,4"], b"--at: is a pixel of a --picture"),
        (["--picture", "odd.png", "--at", "3", "--filters", "x.png"], b"--at 3: must be X,Y"),
        (
            ["--picture", "odd.png", "--at", "3,96", "--filters", "x.png"],
            b"--at 3,96: the picture has 96x96 pixels; X must be below 96, Y below 96",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], message: bytes, here: Path) -> None:
    done = gcn("inspect", "--model", "run", *words, cwd=here)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (here / "x.png").exists()


def test_a_map_needs_the_exemplar(here: Path) -> None:
    (here / "alone.safetensors").write_bytes((here / "run" / "model.safetensors").read_bytes())
    (here / "elsewhere").mkdir(exist_ok=True)
    (here / "alone.safetensors").rename(here / "elsewhere" / "alone.safetensors")
    words = ["--model", "elsewhere/alone.safetensors", "--picture", "odd.png", "--map", "x.png"]
    done = gcn("inspect", *words, cwd=here)
    assert done.returncode == 2
    assert b"--map: the run keeps no exemplar to compare with" in done.stderr
    assert not (here / "x.png").exists()


def test_levels_are_a_table_or_data(here: Path) -> None:
    shown = gcn("inspect", "--model", "run", "--levels", cwd=here)
    assert shown.returncode == 0, shown.stderr.decode()
    assert b"chain_decided" in shown.stdout
    assert b"config" not in shown.stdout
    done = gcn("inspect", "--model", "run", "--levels", "--json", cwd=here)
    levels = json.loads(done.stdout)["levels"]
    assert len(levels) == 25
    assert list(levels[0]) == ["noise", "error", "data_decided", "chain_decided"]
    refused = gcn("inspect", "--levels", "--compare", "run", "--compare", "run", cwd=here)
    assert refused.returncode == 2
    assert b"--levels: is of one model" in refused.stderr


LONGER = [*TEXTURE, "--iterations", "30"]


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two textures: stripes across, and fine noise."""
    folder = tmp_path_factory.mktemp("compare")
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(96.0)[None, :, None].expand(3, 96, 192)
    stripes = 128 + 60 * torch.sin(rows / 2) + 10 * torch.randn(3, 96, 192, generator=generator)
    noise = 128 + 40 * torch.randn(3, 96, 192, generator=generator)
    for name, picture in (("stripes", stripes), ("noise", noise)):
        to_pillow(picture[:, :, :96]).save(folder / f"{name}.png")
        to_pillow(picture[:, 10:60, 120:180]).save(folder / f"{name}-crop.png")
        assert gcn("train", f"{name}.png", *LONGER, "-o", name, cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("made_by", ["stripes", "noise"])
def test_crops_it_never_saw_are_the_right_model_s(two_models: Path, made_by: str) -> None:
    words = ["inspect", "--compare", "stripes", "--compare", "noise"]
    words += ["--picture", f"{made_by}-crop.png"]
    done = gcn(*words, "--json", cwd=two_models)
    assert done.returncode == 0, done.stderr.decode()
    first, second = json.loads(done.stdout)["compared"]
    assert first["run"] == made_by
    assert first["log_ratio"] == 0
    assert second["log_ratio"] < -10
    assert first["posterior"] + second["posterior"] == pytest.approx(1)
    shown = gcn(*words, cwd=two_models).stdout.decode().splitlines()
    assert shown[0].startswith(f"{made_by}  posterior 1")


def test_models_of_other_strides_are_shown_the_same_pixels(two_models: Path) -> None:
    """Of 50x60 pixels a stride of 4 would see 48x60, one of 16 only 48x48: more is less likely."""
    deep = [*LONGER, "--set", "layers=8@5,8@3/2,8@3/2,8@3/2", "-o", "deep"]
    assert gcn("train", "noise.png", *deep, cwd=two_models).returncode == 0
    words = ["inspect", "--compare", "noise", "--compare", "deep", "--json"]
    done = gcn(*words, "--picture", "noise-crop.png", cwd=two_models)
    assert done.returncode == 0, done.stderr.decode()
    _, second = json.loads(done.stdout)["compared"]
    assert second["log_ratio"] > -500  # nats; 576 pixels more would be some thousands


def test_what_cannot_be_compared_is_refused(two_models: Path) -> None:
    lone = gcn("inspect", "--compare", "noise", "--picture", "noise.png", cwd=two_models)
    assert lone.returncode == 2
    assert b"--compare: name two runs or more, and a --picture" in lone.stderr
    with Image.open(two_models / "noise.png") as whole:
        picture = whole.crop((0, 0, 24, 24)).convert("RGB")
    settings: dict[str, Any] = {"learner": "mle", "size": 24, "layers": "4@5/2+2", "iterations": 1}
    paper = gcn_api.train(picture, device="cpu", **settings)
    with pytest.raises(gcn_api.InputError, match="is for ladders of textures"):
        compare([two_models / "noise", paper], picture)
    gray = gcn("train", "noise.png", *LONGER, "--set", "channels=1", "-o", "gray", cwd=two_models)
    assert gray.returncode == 0
    words = ["inspect", "--compare", "gray", "--compare", "noise", "--picture", "noise.png"]
    mixed = gcn(*words, cwd=two_models)
    assert mixed.returncode == 2
    assert b"models of gray and of color" in mixed.stderr


@pytest.mark.parametrize("words", [["--map", "map.png"], ["--details"], ["--level", "2"]])
def test_what_is_of_one_model_is_refused_beside_several(two_models: Path, words: list[str]) -> None:
    both = ["--compare", "noise", "--compare", "stripes", "--picture", "noise.png"]
    done = gcn("inspect", *both, *words, cwd=two_models)
    assert done.returncode == 2
    assert f"{words[0]}: is of one model, --compare of several".encode() in done.stderr
    assert not (two_models / "map.png").exists()
