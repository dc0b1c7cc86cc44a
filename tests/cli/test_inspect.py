"""gcn inspect: images as a model sees them, noise levels, the comparison of models."""

import json
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gcn_cli as gcn_api
from gcn_cli.api import compare
from gcn_cli.checkpoint import FORMAT
from gcn_cli.cli import inspect
from gcn_cli.images import to_pillow
from gcn_cli.presets import build_config
from gcn_cli.report.figures import filters_at, unit_filters
from tests.cli.running import TEXTURE, gcn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
LONGER = [*TEXTURE, "--iterations", "30"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texture.png, and odd.png: the texture with a square of noise in it."""
    folder = tmp_path_factory.mktemp("inspect")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        texture = whole.convert("RGB").crop((0, 0, 96, 96))
    texture.save(folder / "texture.png")
    texture.paste(Image.effect_noise((24, 24), 120).convert("RGB"), (56, 24))
    texture.save(folder / "odd.png")
    assert gcn("train", "texture.png", *TEXTURE, "-o", "run", cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two textures, horizontal stripes and fine noise, and another crop of each."""
    folder = tmp_path_factory.mktemp("compare")
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(96.0)[None, :, None].expand(3, 96, 192)
    stripes = 128 + 60 * torch.sin(rows / 2) + 10 * torch.randn(3, 96, 192, generator=generator)
    noise = 128 + 40 * torch.randn(3, 96, 192, generator=generator)
    for name, pixels in (("stripes", stripes), ("noise", noise)):
        to_pillow(pixels[:, :, :96]).save(folder / f"{name}.png")
        to_pillow(pixels[:, 10:60, 120:180]).save(folder / f"{name}-crop.png")
        assert gcn("train", f"{name}.png", *LONGER, "-o", name, cwd=folder).returncode == 0
    return folder


def test_the_short_form_describes_the_newest_model(folder: Path) -> None:
    done = gcn("inspect", "--model", "run", "--details", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "run"
    names = [line.split("  ")[1] for line in lines[1:] if line.startswith("  ") and line[2] != " "]
    assert names[:6] == ["trained by", "images", "network", "state", "quality", "next"]
    assert "likelihood_weight" in done.stdout.decode()
    assert "trained by  denoising and likelihood from crops of 32 pixels, seed 0" in lines[1]


@pytest.mark.parametrize(
    ("preset", "iterations", "side", "advice"),
    [
        ("default", 300, 512, "gcn train SOURCE -o run --overwrite, the whole default training"),
        ("quick", 1000, 256, "gcn train SOURCE -o run --overwrite, the whole default training"),
        ("default", 1000, 512, "gcn train SOURCE -o run --overwrite --preset best"),
        ("default", 1000, 256, "gcn train SOURCE SOURCE ..., with more or larger images"),
        ("best", 1400, 512, "gcn train SOURCE SOURCE ..., with more or larger images"),
    ],
)
def test_a_bad_verdict_names_the_next_training(
    preset: str, iterations: int, side: int, advice: str
) -> None:
    model = MagicMock(size=(side, side), run=Path("run"), complete=True)
    model.checkpoint.asked, model.checkpoint.history = {"preset": preset}, []
    model.config = build_config({"iterations": iterations})
    grades: dict[str, Any] = {"verdict": "far", "copied": 0.0, "limits": []}
    assert inspect.advice(model, grades).startswith(advice)
    model.checkpoint.history = [{"loss": 1 - 0.001 * k} for k in range(100)] + [{"loss": 50.0}]
    lower = "gcn train SOURCE -o run --overwrite --set filter_rate=0.015 --set learning_rate=0.003"
    assert inspect.advice(model, grades) == lower


def test_the_next_commands_name_the_model(folder: Path) -> None:
    (folder / "run" / "quality.json").unlink()  # another hint is given for a rough model
    output = " ".join(gcn("inspect", "--model", "run", cwd=folder).stdout.decode().split())
    _, hint = output.split(" next ")
    assert hint == "gcn synthesize run --size 1024; gcn inspect report page --model run"
    assert gcn("inspect", "report", "page", "--model", "run", cwd=folder).returncode == 0


def test_options_before_a_subcommand_hold_for_it(folder: Path) -> None:
    before = gcn("inspect", "--model", "run", "--json", "image", "texture.png", cwd=folder)
    after = gcn("inspect", "image", "texture.png", "--model", "run", "--json", cwd=folder)
    assert before.returncode == 0, before.stderr.decode()
    assert json.loads(before.stdout)["image"] == json.loads(after.stdout)["image"]


def test_a_run_is_an_argument_and_without_one_the_runs_are_listed(folder: Path) -> None:
    by_option = gcn("inspect", "--model", "run", "--details", cwd=folder).stdout
    for words in (["run", "--details"], ["--details", "run/model.safetensors"]):
        assert gcn("inspect", *words, cwd=folder).stdout == by_option
    unmade = gcn("inspect", "odd.png", cwd=folder)
    assert unmade.returncode == 2
    assert b"odd.png: does not hold how it was made; gcn inspect image odd.png" in unmade.stderr
    none = gcn("inspect", cwd=folder)
    assert none.returncode == 2
    assert b"no runs under runs/; train one with 'gcn train IMAGE'" in none.stderr
    (folder / "all" / "b").mkdir(parents=True)
    (folder / "all" / "[red] a").symlink_to(folder / "run")
    (folder / "all" / "b" / "model.safetensors").write_bytes(b"no model")
    os.utime(folder / "all" / "b" / "model.safetensors", (0, 0))
    about = {"gcn": json.dumps({"format": FORMAT, "asked": 5})}
    (folder / "all" / "c").mkdir()
    save_file({"x": torch.zeros(1)}, folder / "all" / "c" / "model.safetensors", metadata=about)
    grades = {"iteration": 20, "quality": 1.125, "verdict": "rough", "limits": []}
    (folder / "run" / "quality.json").write_text(json.dumps(grades))
    table = gcn("inspect", "all", cwd=folder).stdout.decode()
    assert re.search(r"all/\[red\] a +│ texture\.png +│ \d{4}-\d\d-\d\d \d\d:\d\d +│ 96x96 ", table)
    assert "1.12 rough" in table
    assert "not a gcn model file" in table
    assert "incomplete or" in table
    runs = json.loads(gcn("inspect", "all", "--json", cwd=folder).stdout)["runs"]
    (readable,) = (run for run in runs if "iteration" in run)
    assert (readable["sources"], readable["quality"]) == (["texture.png"], 1.125)
    assert (readable["iteration"], readable["iterations"], readable["preset"]) == (20, 20, None)


def test_a_map_shows_where_an_image_is_unlike_the_exemplar(folder: Path) -> None:
    arguments = ["inspect", "image", "odd.png", "--model", "run", "--unusual", "map.png", "--json"]
    done = gcn(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)["image"]
    assert facts["most_unusual"] > 8
    assert facts["files"] == ["map.png"]
    assert 56 <= facts["most_unusual_at"][0] < 80
    assert 24 <= facts["most_unusual_at"][1] < 48
    assert 24 * 24 / 96**2 / 2 < facts["unusual_share"] < 0.25
    with Image.open(folder / "map.png") as image:
        assert image.size == (96, 96)
        bright, dark = (sum(image.convert("RGB").getpixel(at)) for at in ((68, 36), (8, 80)))  # type: ignore[arg-type]
        assert bright > dark
    exemplar = gcn_api.load(folder / "run").anomaly_map(str(folder / "texture.png"))
    assert abs(float(exemplar.deviations.mean())) < 1e-3
    assert float(exemplar.deviations.std()) == pytest.approx(1, abs=1e-3)
    again = gcn(*arguments, cwd=folder)
    assert again.returncode == 2
    assert b"--overwrite" in again.stderr


def test_filters_at_a_pixel_are_the_gradients_of_the_units_there(folder: Path) -> None:
    """Gradients of the strongest responses with respect to the image."""
    model = gcn_api.load(folder / "run", device="cpu")
    arguments = ["inspect", "image", "odd.png", "--model", "run", "--filters", "at.png"]
    done = gcn(*arguments, "--at", "10,20", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.splitlines()[-1] == b"at.png"
    sheet = filters_at(model, str(folder / "odd.png"), (10, 20))
    with Image.open(folder / "at.png") as image:
        assert image.size == (sheet.shape[2], sheet.shape[1])
    elsewhere = filters_at(model, str(folder / "odd.png"), (60, 60))
    assert elsewhere.shape != sheet.shape or not torch.equal(elsewhere, sheet)
    density = model.checkpoint.kind.density(None, torch.float32)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, _ = unit_filters(density, x, [6, 10], (12, 12))
    leaf = x.requires_grad_()
    responses = density.responses(leaf)[0][0, :, 6, 6]
    (gradient,) = torch.autograd.grad(responses.max(), leaf)
    places = gradient.abs().sum(dim=1)[0].nonzero()
    assert int((places - 12).abs().max()) <= 6  # within the receptive field of 10 pixels
    assert first.shape[0] == 3


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["report", "page-cuda"],
        ["levels"],
        ["image", "odd.png"],
        ["compare", "odd.png", "run", "run"],
    ],
)
def test_every_command_that_computes_takes_a_device_and_threads(
    words: list[str], folder: Path
) -> None:
    model = [] if "compare" in words else ["--model", "run"]
    done = gcn("inspect", *words, *model, "--threads", "1", "--device", "nothing", cwd=folder)
    assert done.returncode == 2
    assert b"--device nothing: unknown; use auto, cpu, gpu, cuda:1 or mps" in done.stderr


def test_a_map_needs_the_exemplar(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    model = folder / "elsewhere" / "alone.safetensors"
    model.write_bytes((folder / "run" / "model.safetensors").read_bytes())
    done = gcn(
        "inspect", "image", "odd.png", "--model", str(model), "--unusual", "x.png", cwd=folder
    )
    assert done.returncode == 2
    assert b"--unusual: the run keeps no exemplar to compare with" in done.stderr
    assert not (folder / "x.png").exists()


def test_levels_are_a_table_or_data(folder: Path) -> None:
    table = gcn("inspect", "levels", "--model", "run", "--threads", "1", cwd=folder)
    assert b"checking levels 50/50, " in table.stderr  # not silent in a log
    assert table.returncode == 0, table.stderr.decode()
    assert b"chain_variance" in table.stdout
    assert b"settings" not in table.stdout
    done = gcn("inspect", "levels", "--model", "run", "--json", cwd=folder)
    levels = json.loads(done.stdout)["levels"]
    assert len(levels) == 25
    assert list(levels[0]) == ["noise", "error", "data_variance", "chain_variance"]


@pytest.mark.parametrize("source", ["stripes", "noise"])
def test_an_unseen_crop_is_assigned_to_its_model(two_models: Path, source: str) -> None:
    arguments = ["inspect", "compare", f"{source}-crop.png", "stripes", "noise"]
    done = gcn(*arguments, "--json", cwd=two_models)
    assert done.returncode == 0, done.stderr.decode()
    first, second = json.loads(done.stdout)["compared"]
    assert first["run"] == source
    assert first["log_ratio"] == 0
    assert second["log_ratio"] < -10
    assert first["posterior"] + second["posterior"] == pytest.approx(1)
    lines = gcn(*arguments, cwd=two_models).stdout.decode().splitlines()
    assert lines[0].startswith(f"{source}  posterior 1")


def test_models_of_different_strides_are_compared_on_the_same_pixels(two_models: Path) -> None:
    """Of 50x60 pixels a stride of 4 would see 48x60, one of 16 only 48x48: more is less likely."""
    deep = [*LONGER, "--set", "layers=8@5,8@3/2,8@3/2,8@3/2", "-o", "deep"]
    assert gcn("train", "noise.png", *deep, cwd=two_models).returncode == 0
    done = gcn("inspect", "compare", "noise-crop.png", "noise", "deep", "--json", cwd=two_models)
    assert done.returncode == 0, done.stderr.decode()
    _, second = json.loads(done.stdout)["compared"]
    assert second["log_ratio"] > -500  # nats; 576 pixels more would be some thousands


def test_models_that_cannot_be_compared_are_refused(two_models: Path) -> None:
    lone = gcn("inspect", "compare", "noise.png", "noise", cwd=two_models)
    assert lone.returncode == 2
    assert b"compare: needs two runs or more" in lone.stderr
    with Image.open(two_models / "noise.png") as whole:
        image = whole.crop((0, 0, 24, 24)).convert("RGB")
    settings: dict[str, Any] = {"learner": "mle", "size": 24, "layers": "4@5/2+2", "iterations": 1}
    published = gcn_api.train(image, device="cpu", **settings)
    with pytest.raises(gcn_api.InputError, match="compare: only for noise-conditional models"):
        compare([two_models / "noise", published], image)
    gray = gcn("train", "noise.png", *LONGER, "--set", "channels=1", "-o", "gray", cwd=two_models)
    assert gray.returncode == 0
    mixed = gcn("inspect", "compare", "noise.png", "gray", "noise", cwd=two_models)
    assert mixed.returncode == 2
    assert b"compare: gray and color models are not comparable" in mixed.stderr


AT = ["image", "odd.png", "--at", "3,4", "--filters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image", "odd.png", "--at", "3,4"], "--at, --filters: give both"),
        (["image", "odd.png", "--filters", "x.png"], "--at, --filters: give both"),
        (["image", "odd.png", "--at", "3", "--filters", "x.png"], "'3' is not X,Y in pixels"),
        (["image", "odd.png", "--at", "3,96", "--filters", "x.png"], "--at 3,96: the image has 96"),
        (["image", "odd.png", "--noise-level", "nan"], "--noise-level nan: must be"),
        (["image", "odd.png", "--noise-level", "1e30"], "--noise-level 1e+30: must be 100.0 or"),
        (
            ["image", "odd.png", "--at", "3,4", "--filters", "x.png", "--unusual", "./x.png"],
            "twice",
        ),
        (
            ["image", "odd.png", "--at", "3,4", "--filters", "-", "--unusual", "-"],
            "-: is given twi",
        ),
        (["compare", "odd.png", "run", "run", "--details"], "No such option"),
        (["run"], "--model run, run: give one of them"),
        (["fitlers"], "No such command 'fitlers'; did you mean gcn inspect filters?"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, folder: Path) -> None:
    done = gcn("inspect", "--model", "run", *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not (folder / "x.png").exists()
