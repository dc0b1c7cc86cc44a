"""gcn synthesize --lit and --sheet of a material: as a light shows it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli import images, shading
from gcn_cli.checkpoint import load, save
from gcn_cli.cli.output import write_lit
from gcn_cli.images import TextureMap, read_record
from gcn_cli.images.image import from_pillow
from tests.cli.running import TEXTURE, gcn
from tests.reading import read
from tests.small import relief

pytestmark = pytest.mark.slow

FEW = ["--steps", "2", "--seed", "4", "--precision", "float32"]
KINDS = {"color": "albedo", "heights": "height", "vectors": "normal"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a material of three maps, one of the same without kinds."""
    place = tmp_path_factory.mktemp("lit")
    heights = relief(48)
    values = {
        "color": 255 * torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)),
        "heights": 50 * heights[:1] + 127,
        "vectors": heights[1:],
    }
    for name, pixels in values.items():
        images.write(pixels, str(place / f"{name}.png"))
    words = ["--map", "heights.png", "--map", "vectors.png", "-o", "plain", "--iterations", "2"]
    done = gcn("train", "color.png", *TEXTURE, *words, cwd=place)
    assert done.returncode == 0, done.stderr.decode()
    path = place / "plain" / "model.safetensors"
    trained = load(path)
    for run, known in (("plain", False), ("run", True)):
        maps = [
            replace(texture_map, kind=kind if known else "", y_up=True)
            for texture_map, kind in zip(trained.maps, KINDS.values(), strict=True)
        ]
        (place / run).mkdir(exist_ok=True)
        save(place / run / "model.safetensors", replace(trained, maps=tuple(maps)))
    return place


def synthesize(folder: Path, *words: str) -> list[str]:
    """The paths that the command prints."""
    done = gcn("synthesize", "--model", "run", *FEW, *words, "--overwrite", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def sample(folder: Path, paths: list[str]) -> tuple[torch.Tensor, list[TextureMap]]:
    """The maps of the sample in files, as they were written."""
    maps = list(load(folder / "run" / "model.safetensors").maps)
    parts = [read(folder / path, m.mode) for path, m in zip(paths, maps, strict=False)]
    return torch.cat(parts), maps


def test_a_still_shows_the_written_maps_two_by_two(folder: Path) -> None:
    *paths, still = synthesize(folder, "-o", "a.png", "--lit", "still.png")
    assert still == "still.png"
    expected = shading.lit(shading.material(*sample(folder, paths)))
    image = read(folder / still)
    torch.testing.assert_close(image, expected.repeat(1, 2, 2), rtol=0, atol=3)  # maps are rounded
    record = read_record(folder / still)
    assert record is not None
    assert [record[name] for name in ("seed", "index", "width", "height")] == [4, 0, 96, 96]


def test_sides_that_do_not_tile_are_not_repeated(folder: Path) -> None:
    words = ["--size", "40x32", "--seamless", "x", "-o", "b.png"]
    synthesize(folder, *words, "--lit", "b-lit.png")
    synthesize(folder, *words, "--lit", "b-lit.webp")
    for name in ("b-lit.png", "b-lit.webp"):
        with Image.open(folder / name) as image:
            assert image.size == (80, 32)


def test_an_animation_is_a_light_that_goes_once_round(tmp_path: Path) -> None:
    maps = [TextureMap("vectors", kind="normal", y_up=True)]
    path, frames, steps = tmp_path / "turn.webp", [], []
    write_lit(
        relief(32)[1:], maps, str(path), {"software": "gcn 1"}, axes=(True, True), overwrite=False,
        quality=95, on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(k, 24) for k in range(1, 25)]
    with Image.open(path) as animation:
        assert getattr(animation, "n_frames", 1) == 24
        assert animation.info["loop"] == 0
        for index in range(24):
            animation.seek(index)
            animation.load()
            assert animation.info["duration"] == 125
            frames.append(from_pillow(animation.convert("RGB")))
    surface = shading.material(relief(32)[1:], maps)
    for index, azimuth in ((0, 135), (6, 45), (12, -45)):  # clockwise from the upper left
        expected = shading.lit(surface, azimuth).repeat(1, 2, 2)
        assert float((frames[index] - expected).abs().mean()) < 5
        assert float((frames[index - 6] - expected).abs().mean()) > 10
    record = read_record(path)
    assert record is not None
    assert record["width"] == 64


def test_the_sheet_has_a_column_in_the_light(folder: Path) -> None:
    *paths, _ = synthesize(folder, "--size", "32", "-o", "d.png", "--sheet", "sheet.png")
    expected = shading.lit(shading.material(*sample(folder, paths)))
    sheet = read(folder / "sheet.png")
    assert sheet.shape == (3, 64, 4 * 64)
    torch.testing.assert_close(sheet[:, :, 192:], expected.repeat(1, 2, 2), rtol=0, atol=3)
    synthesize(folder, "--size", "32", "-n", "2", "-o", "e", "--sheet", "sheet.png")
    assert read(folder / "sheet.png").shape[2] == 4 * 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lit", "-"], "--lit -: stdout has the paths of the images; name a file"),
        (["--lit", "x.gif"], "x.gif: unknown image format"),
        (["--lit", "x.pgm"], "x.pgm: the image has colors"),
        (["--lit", "color.png"], "color.png: exists; add --overwrite"),
        (
            ["--sheet", "x.png", "--lit", "x.png"],
            "--lit x.png: is the name of an image; name another file",
        ),
        (["--lit", "x.png", "--skip-existing"], "needs files, and no --sheet or --lit"),
        (["--lit", "x.png", "--quality", "5"], "--quality 5: is for .jpg"),
        (["--lit", "x.png", "plain"], "--lit x.png: the model has no normal or height map, and a"),
        (["--lit", "x.png", "run", "plain"], "--lit x.png: shows the images of one run"),
    ],
)
def test_what_cannot_be_lit_is_refused_before_work(
    words: list[str], message: str, folder: Path
) -> None:
    model = [] if "plain" in words else ["--model", "run"]
    output = ["-o", "no"] if words[-2:] == ["run", "plain"] else ["-o", "no.png"]
    before = sorted(folder.iterdir())
    done = gcn("synthesize", *model, *FEW, *output, *words, cwd=folder)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.decode().split())
    assert sorted(folder.iterdir()) == before


def test_a_normal_map_of_unknown_direction_is_said(folder: Path) -> None:
    trained = load(folder / "run" / "model.safetensors")
    maps = tuple(replace(texture_map, y_up=None) for texture_map in trained.maps)
    save(folder / "unknown.safetensors", replace(trained, maps=maps))
    words = ["--model", "unknown.safetensors", "--size", "32", "-o", "f.png", "--lit", "f-lit.jpg"]
    done = gcn("synthesize", *FEW, *words, cwd=folder)
    assert done.returncode == 0
    assert b"--lit f-lit.jpg: whether green of the normal map points up is not known" in done.stderr
