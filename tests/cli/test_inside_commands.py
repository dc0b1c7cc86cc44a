"""What `inspect` shows of a picture in a model's eyes: where it is unusual, filters at a place."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import gcn_cli as gcn_api
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
    own = gcn_api.load(here / "run").unusual(str(here / "texture.png"))
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
    density = model.checkpoint.family.density(None, torch.float32)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, _ = painted(density, x, [6, 10], (12, 12))
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
