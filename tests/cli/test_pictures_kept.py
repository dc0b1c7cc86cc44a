"""Pictures as people have them, through the commands: in as they are, out as they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageDraw

from gcn_cli import images
from tests.cli.running import gcn
from tests.cli.test_train_commands import SMALL

FEW = ["--threads", "1", "--steps", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, maps that go with it and a mask; a run of the three maps; read only."""
    place = tmp_path_factory.mktemp("kept")
    gray = Image.effect_noise((48, 40), 60)
    gray.save(place / "height.png")
    gray.convert("RGB").save(place / "albedo.png")
    up = np.full((40, 48, 3), (128, 128, 255), np.uint8)
    up[:, ::3] = (180, 128, 243)
    Image.fromarray(up).save(place / "normal.png")
    mask = Image.new("L", gray.size)
    ImageDraw.Draw(mask).rectangle((20, 16, 27, 23), fill=255)
    mask.save(place / "mask.png")
    done = gcn(
        "train", "albedo.png", "--with", "normal.png", "--with", "height.png", *SMALL,
        "-o", "maps", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"map normal: RGB, 8 bits, normals" in done.stderr
    return place


def test_linked_maps_are_written_side_by_side(folder: Path) -> None:
    done = gcn(
        "synthesize", "--model", "maps", "--size", "37x26", "-o", "tile.png", "--json",
        "--sheet", "sheet.png", *FEW, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    records = json.loads(done.stdout)["files"]
    assert [one["map"] for one in records] == ["albedo", "normal", "height"]
    made = [images.read_image(str(folder / one["path"])) for one in records]
    assert [one.mode for one in made] == ["RGB", "RGB", "L"]
    normals = made[1].pixels / 127.5 - 1
    assert float((normals.norm(dim=0) - 1).abs().max()) < 0.02
    assert images.read_image(str(folder / "sheet.png")).size == (26, 3 * 37)
    again = gcn("synthesize", "--model", "maps", "-o", "tile.png", *FEW, cwd=folder)
    assert again.returncode == 2
    assert b"tile-albedo.png: exists" in again.stderr
    piped = gcn("synthesize", "--model", "maps", "-o", "-", *FEW, cwd=folder)
    assert piped.returncode == 2
    assert b"3 linked maps" in piped.stderr


def test_linked_maps_are_repaired_together(folder: Path) -> None:
    words = ["--model", "maps", "--mask", "mask.png", "-o", "fixed", *FEW]
    linked = ["--with", "normal.png", "--with", "height.png"]
    done = gcn("reconstruct", "albedo.png", *linked, *words, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    kept = images.read_image(str(folder / "mask.png")).pixels[0] < 128
    for name in ("albedo", "normal", "height"):
        ours, theirs = (
            images.read_image(str(folder / path)).pixels
            for path in (f"fixed/albedo-{name}.png", f"{name}.png")
        )
        assert torch.equal(ours[:, kept], theirs[:, kept])
        assert not torch.equal(ours, theirs)
    alone = gcn("reconstruct", "albedo.png", *words, "--overwrite", cwd=folder)
    assert alone.returncode == 2
    assert b"1 image(s) for a model of albedo, normal, height; give each (--with)" in alone.stderr


@pytest.mark.parametrize("kind", ["gray", "wide", "wide gray", "clear"])
def test_bands_and_depth_go_through(kind: str, folder: Path, tmp_path: Path) -> None:
    albedo = images.read_image(str(folder / "albedo.png")).pixels.permute(1, 2, 0).numpy()
    deep = albedo.astype(np.uint16) * 256 + 7
    path = str(tmp_path / "own.png")
    if kind == "wide":
        pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").write_to_file(path)
    elif kind == "wide gray":
        Image.fromarray(deep[:, :, 0]).save(path)
    elif kind == "gray":
        images.write(images.read_image(str(folder / "height.png")).pixels, path)
    else:
        clear = images.read_image(str(folder / "height.png")).pixels
        images.write(torch.cat([clear.expand(3, -1, -1), clear]), path)
    given = images.read_image(path)
    assert gcn("train", path, *SMALL, "-o", "run", cwd=tmp_path).returncode == 0
    assert gcn("synthesize", "--model", "run", "-o", "new.png", *FEW, cwd=tmp_path).returncode == 0
    made = images.read_image(str(tmp_path / "new.png"))
    assert (made.mode, made.bit_depth) == (given.mode, given.bit_depth)
    mask = str(folder / "mask.png")
    done = gcn("reconstruct", path, "--model", "run", "--mask", mask, "-o", "f", *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    fixed = images.read_image(str(tmp_path / "f" / "own.png"))
    assert (fixed.mode, fixed.bit_depth) == (given.mode, given.bit_depth)
    kept = images.read_image(mask).pixels[0] < 128
    assert torch.equal(fixed.pixels[:, kept], given.pixels[:, kept])


def test_a_picture_is_repaired_by_what_is_left_of_it(folder: Path, tmp_path: Path) -> None:
    picture, mask = str(folder / "albedo.png"), str(folder / "mask.png")
    small = [*SMALL[:2], "--set", "crop=12", *SMALL[4:]]
    done = gcn("train", picture, "--mask", mask, *small, "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    words = ["--model", "run", "--mask", mask, *FEW]
    assert gcn("reconstruct", picture, *words, cwd=tmp_path).returncode == 0
    other = gcn("train", picture, *small, "-o", "run", cwd=tmp_path)
    assert other.returncode == 2
    assert b"trained on other pictures" in other.stderr
    whole = gcn(
        "train", picture, "--mask", mask, *SMALL, "--set", "crop=0", "-o", "w", cwd=tmp_path
    )
    assert whole.returncode == 2
    assert b"a part is hidden" in whole.stderr
    gray = gcn("train", str(folder / "height.png"), *SMALL, "-o", "gray", cwd=tmp_path)
    assert gray.returncode == 0
    lost = gcn("reconstruct", picture, "--model", "gray", "--mask", mask, cwd=tmp_path)
    assert lost.returncode == 2
    assert b"its colors would be lost" in lost.stderr
