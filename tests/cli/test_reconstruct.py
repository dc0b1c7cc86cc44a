"""gcn reconstruct: auto-encoding, repair, denoising; linked maps; modes and bit depths of files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageDraw

from gcn_cli import images
from gcn_cli.images import read_image, read_record
from tests.cli.running import gcn
from tests.reading import read

pytestmark = pytest.mark.slow

SMALL = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "10",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip
FEW = ["--threads", "1", "--steps", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a magenta scratch, its mask, and a model that has not seen the scratch."""
    place = tmp_path_factory.mktemp("reconstruct")
    photo = Image.effect_noise((60, 48), 60).convert("RGB")
    mask = Image.new("L", photo.size)
    for image, color in ((photo, (255, 0, 255)), (mask, 255)):
        image.paste(color, (25, 4, 31, 30))
    photo.save(place / "photo.png")
    mask.save(place / "mask.png")
    Image.new("L", photo.size).save(place / "black.png")
    Image.new("RGB", (160, 160), "red").save(place / "large.png")
    done = gcn("train", "photo.png", "--mask", "mask.png", *SMALL, cwd=place)
    assert done.returncode == 0, done.stderr.decode()
    return place


def pixels(path: Path) -> torch.Tensor:
    return read_image(str(path)).pixels


def test_metrics_are_printed_at_a_noise_level(folder: Path) -> None:
    arguments = ["photo.png", "--noise-level", "0.3", "--json", "-o", "encoded", "--overwrite"]
    done = gcn("reconstruct", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    (record,) = json.loads(done.stdout)["files"]
    assert record["image"] == "photo.png"
    assert record["rms_error"] > 0
    assert "energy" not in record
    done = gcn("reconstruct", "photo.png", "--steps", "3", cwd=folder)
    words = done.stdout.decode().split()
    assert words[0] == "runs/photo/reconstructions/photo.png"
    assert words[1::2][:4] == ["rms_error", "share_of_variance", "psnr_db", "residual"]
    assert words[1::2][4:] == ["energy", "energy_decrease", "steps", "stuck", "kink_share"]


def test_nothing_is_replaced_without_overwrite(folder: Path) -> None:
    for arguments, place in (([], "reconstructions"), (["--mask", "mask.png"], "repairs")):
        words = ["reconstruct", "photo.png", *arguments, "--steps", "1"]
        target = folder / "runs" / "photo" / place / "photo.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"mine")
        for number in (2, 3):
            done = gcn(*words, cwd=folder)
            assert done.stdout.split()[0].decode() == f"runs/photo/{place}/photo-{number}.png"
        assert target.read_bytes() == b"mine"
        refused = gcn(*words, "-o", str(target), cwd=folder)
        assert refused.returncode == 2
        assert b"photo.png: exists; add --overwrite" in refused.stderr
        assert gcn(*words, "--overwrite", cwd=folder).stdout.split()[0].endswith(b"/photo.png")
        assert read_image(str(target)).size == (48, 60)
    record = read_record(target)
    assert record is not None
    assert record["command"] == ("gcn reconstruct photo.png --steps 1 --mask mask.png --overwrite")
    assert [source["name"] for source in record["inputs"]] == ["photo.png", "mask.png"]


def test_a_scratch_is_repaired_and_the_rest_is_kept(folder: Path) -> None:
    done = gcn("reconstruct", "photo.png", "--mask", "mask.png", "-o", "fixed.png", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["fixed.png"]
    before, after, mask = (pixels(folder / f"{name}.png") for name in ("photo", "fixed", "mask"))
    kept = (mask[0] == 0).expand_as(before)
    assert torch.equal(before[kept], after[kept])
    repaired = after[:, mask[0] > 0]
    # Gray like the training pixels, not magenta.
    assert float((repaired[0] - repaired[1]).abs().mean()) < 20


def test_variants_differ_and_keep_the_rest(folder: Path) -> None:
    arguments = ["--mask", "mask.png", "--steps", "3", "--count", "2", "--seed", "4", "-o", "two"]
    done = gcn("reconstruct", "photo.png", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    paths = done.stdout.decode().split()
    assert paths == ["two/photo-1.png", "two/photo-2.png"]
    original = pixels(folder / "photo.png")
    kept = read(str(folder / "mask.png"), mode="L")[0] < 128
    variants = [pixels(folder / path) for path in paths]
    for variant in variants:
        assert torch.equal(variant[:, kept], original[:, kept])
        assert not torch.equal(variant[:, ~kept], original[:, ~kept])
    assert not torch.equal(variants[0], variants[1])
    again = gcn("reconstruct", "photo.png", *arguments, cwd=folder)
    assert again.returncode == 2
    assert b"--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "size", "kept"),
    [
        (["--mask", "alpha"], (60, 48), (slice(0, 48), slice(9, 60), 9, 0)),
        (["--outpaint", "3,0,20,5"], (83, 53), (slice(0, 48), slice(3, 63), 0, 0)),
        (["--make-seamless", "6"], (60, 48), (slice(6, 42), slice(6, 54), 6, 6)),
    ],
)
def test_transparent_parts_borders_and_extensions_are_sampled(
    arguments: list[str],
    size: tuple[int, int],
    kept: tuple[slice, slice, int, int],
    folder: Path,
    tmp_path: Path,
) -> None:
    image = Image.open(folder / "photo.png").convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 9, 48))
    image.save(tmp_path / "clear.png")
    source = str(tmp_path / "clear.png") if "alpha" in arguments else "photo.png"
    done = gcn("reconstruct", source, *arguments, *FEW, "-o", str(tmp_path), "--json", cwd=folder)
    if "alpha" in arguments:  # the file would replace its source
        assert done.returncode == 2
        arguments = [*arguments, "--overwrite"]
        done = gcn(
            "reconstruct", source, *arguments, *FEW, "-o", str(tmp_path), "--json", cwd=folder
        )
    assert done.returncode == 0, done.stderr.decode()
    (record,) = json.loads(done.stdout)["files"]
    assert (record["width"], record["height"]) == size
    rows, columns, left, top = kept
    height, width = rows.stop - rows.start, columns.stop - columns.start
    part = pixels(folder / "photo.png")[:, top : top + height, left : left + width]
    assert torch.equal(read(record["path"])[:, rows, columns], part)


def test_an_image_is_enlarged_and_shrinks_to_itself(folder: Path) -> None:
    done = gcn(
        "reconstruct", "photo.png", "--upscale", "2", "--steps", "2", "-o", "larger.png", cwd=folder
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["larger.png"]
    small, large = (pixels(folder / name) for name in ("photo.png", "larger.png"))
    assert torch.equal(torch.nn.functional.avg_pool2d(large[None], 2)[0], small)


def test_noise_is_removed_and_its_level_is_logged(folder: Path) -> None:
    done = gcn("reconstruct", "photo.png", "--denoise", "auto", "-o", "clean.png", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert b"--denoise: " in done.stderr
    before, after = (pixels(folder / f"{name}.png") for name in ("photo", "clean"))
    assert before.shape == after.shape
    assert 0 < float((before - after).std()) < float(before.std())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--denoise", "0"], "'0' is not auto or gray levels"),
        (["--denoise", "3", "--count", "2"], "--count, --seed: need --mask"),
        (["--denoise", "3", "--steps", "2"], "--steps: --denoise takes a single step"),
        (["--denoise", "3", "--mask", "mask.png"], "give only one of them"),
        (["--mask", "black.png", "--make-seamless", "4"], "give only one of them"),
        (["--mask", "mask.png", "--count", "2"], "--output no.png: one file for several"),
        (["--mask", "black.png"], "--mask black.png: is white nowhere"),
        (["--mask", "large.png"], "is 160x160, the image 60x48"),
        (["--mask", "alpha"], "no transparency"),
        (["--mask", "absent.png"], "--mask absent.png: no such file"),
        (["--mask", "mask.png", "--noise-level", "1"], "--noise-level: only for auto-encoding"),
        (["--noise-level", "nan"], "--noise-level nan: must be more than 0"),
        (["--noise-level", "1e30"], "--noise-level 1e+30: must be 100.0 or less"),
        (["--output", "-"], "--output -: stdout has the paths of the results; name a file"),
        (["--map", "mask.png"], "--map mask.png: 2 images for a model of 1; leave it out"),
        (["--steps", "99999999999999999999"], "must be 100000 or less"),
        (["--count", "2"], "--count, --seed: need --mask"),
        (["--outpaint", "0,0,0,0"], "--outpaint 0,0,0,0: pixels to add"),
        (["--upscale", "3"], "--upscale 3: must be 2 or 4"),
        (["--upscale", "2", "--denoise", "auto"], "--upscale, --denoise: give only one of them"),
        (["--temperature", "1"], "--temperature 1.0: needs --upscale"),
        (["--outpaint", "1,2"], "is not LEFT,TOP,RIGHT,BOTTOM in pixels with commas, no"),
        (["--make-seamless", "24"], "--make-seamless 24: must be less than half"),
        (["large.png", "--map", "mask.png"], "--map: needs a single IMAGE, not 2"),
    ],
)
def test_impossible_options_are_refused(arguments: list[str], message: str, folder: Path) -> None:
    done = gcn("reconstruct", "photo.png", "-o", "no.png", *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (folder / "no.png").exists()


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linked maps, a mask and a model of the maps; read only."""
    place = tmp_path_factory.mktemp("linked")
    gray = Image.effect_noise((48, 40), 60)
    gray.save(place / "height.png")
    gray.convert("RGB").save(place / "albedo.png")
    normals = np.full((40, 48, 3), (128, 128, 255), np.uint8)
    normals[:, ::3] = (180, 128, 243)
    Image.fromarray(normals).save(place / "normal.png")
    mask = Image.new("L", gray.size)
    ImageDraw.Draw(mask).rectangle((20, 16, 27, 23), fill=255)
    mask.save(place / "mask.png")
    done = gcn(
        "train", "albedo.png", "--map", "normal.png", "--map", "height.png", *SMALL,
        "-o", "maps", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"map normal: normal.png, RGB, 8 bits, normal by its name" in done.stderr
    return place


def test_linked_maps_are_synthesized_together(linked: Path) -> None:
    done = gcn(
        "synthesize", "--model", "maps", "--size", "37x26", "--count", "2", "-o", "tiles",
        "--json", "--sheet", "sheet.png", *FEW, cwd=linked,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    records = json.loads(done.stdout)["files"]
    assert [record["map"] for record in records] == 2 * ["albedo", "normal", "height"]
    samples = [read_image(str(linked / record["path"])) for record in records[:3]]
    assert [image.mode for image in samples] == ["RGB", "RGB", "L"]
    normals = samples[1].pixels / 127.5 - 1
    assert float((normals.norm(dim=0) - 1).abs().max()) < 0.02
    assert read_image(str(linked / "sheet.png")).size == (2 * 26 + 2, 4 * 37)  # and lit
    named = ["-o", "tiles/maps-0-0.png"]
    again = gcn("synthesize", "--model", "maps", *named, *FEW, cwd=linked)
    assert again.returncode == 2
    assert b"maps-0-0_albedo.png: exists" in again.stderr
    piped = gcn("synthesize", "--model", "maps", "-o", "-", *FEW, cwd=linked)
    assert piped.returncode == 2
    assert b"3 linked maps" in piped.stderr


def test_linked_maps_are_auto_encoded_to_files_that_are_printed(linked: Path) -> None:
    maps = ["--map", "normal.png", "--map", "height.png"]
    done = gcn("reconstruct", "albedo.png", *maps, "--model", "maps", "-o", "coded", cwd=linked)
    assert done.returncode == 0, done.stderr.decode()
    paths = [line.split()[0].decode() for line in done.stdout.splitlines()]
    assert paths == [f"coded/albedo_{name}.png" for name in ("albedo", "normal", "height")]
    assert all((linked / path).exists() for path in paths)


def test_linked_maps_are_repaired_together(linked: Path) -> None:
    arguments = ["--model", "maps", "--mask", "mask.png", "-o", "fixed", *FEW]
    maps = ["--map", "normal.png", "--map", "height.png"]
    done = gcn("reconstruct", "albedo.png", *maps, *arguments, cwd=linked)
    assert done.returncode == 0, done.stderr.decode()
    kept = pixels(linked / "mask.png")[0] < 128
    for name in ("albedo", "normal", "height"):
        repaired = pixels(linked / "fixed" / f"albedo_{name}.png")
        original = pixels(linked / f"{name}.png")
        assert torch.equal(repaired[:, kept], original[:, kept])
        assert not torch.equal(repaired, original)
    alone = gcn("reconstruct", "albedo.png", *arguments, "--overwrite", cwd=linked)
    assert alone.returncode == 2
    words = (
        b"1 image(s) for a model of albedo, normal, height; give each (--map), or a folder of them"
    )
    assert words in alone.stderr


def test_a_folder_of_maps_is_repaired_as_one_material(linked: Path, tmp_path: Path) -> None:
    material = tmp_path / "wall"
    material.mkdir()
    for name in ("albedo", "normal", "height"):
        shutil.copy(linked / f"{name}.png", material / f"wall_{name}.png")
    shutil.copy(linked / "height.png", material / "wall_ao.png")  # one that the model does not have
    words = ["--model", str(linked / "maps"), "--mask", str(linked / "mask.png"), *FEW]
    maps = ["--map", "wall/wall_normal.png", "--map", "wall/wall_height.png"]
    for source, where in ((["wall"], "whole"), (["wall/wall_albedo.png", *maps], "single")):
        done = gcn("reconstruct", *source, *words, "-o", where, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
    for name in ("albedo", "normal", "height"):
        whole = pixels(tmp_path / "whole" / f"wall_{name}.png")
        assert torch.equal(whole, pixels(tmp_path / "single" / f"wall_albedo_{name}.png"))
    record = read_record(tmp_path / "whole" / "wall_albedo.png")
    assert record is not None
    names = [one["name"] for one in record["inputs"]]
    assert names == ["wall_albedo.png", "wall_normal.png", "wall_height.png", "mask.png"]
    done = gcn("reconstruct", "wall", *maps[:2], *words, "-o", "x", cwd=tmp_path)
    assert b"wall: a folder has all maps of an image; leave --map out" in done.stderr
    (material / "wall_height.png").rename(material / "wall_roughness.png")
    done = gcn("reconstruct", "wall", *words, "-o", "x", cwd=tmp_path)
    assert done.returncode == 2
    lacks = (
        "wall: has wall_albedo.png, wall_normal.png, wall_roughness.png, wall_ao.png; the maps of"
    )
    assert lacks in done.stderr.decode()


@pytest.mark.parametrize("kind", ["gray", "16 bit", "16 bit gray", "transparent"])
def test_mode_and_bit_depth_are_kept(kind: str, linked: Path, tmp_path: Path) -> None:
    albedo = pixels(linked / "albedo.png").permute(1, 2, 0).numpy().astype(np.uint16) * 256 + 7
    gray = pixels(linked / "height.png")
    path = str(tmp_path / "image.png")
    if kind == "16 bit":
        pyvips.Image.new_from_array(albedo).copy(interpretation="rgb16").write_to_file(path)
    elif kind == "16 bit gray":
        Image.fromarray(albedo[:, :, 0]).save(path)
    elif kind == "gray":
        images.write(gray, path)
    else:
        images.write(torch.cat([gray.expand(3, -1, -1), gray]), path)
    original = read_image(path)
    assert gcn("train", path, *SMALL, "-o", "run", cwd=tmp_path).returncode == 0
    assert gcn("synthesize", "--model", "run", "-o", "new.png", *FEW, cwd=tmp_path).returncode == 0
    sample = read_image(str(tmp_path / "new.png"))
    assert (sample.mode, sample.bit_depth) == (original.mode, original.bit_depth)
    mask = str(linked / "mask.png")
    done = gcn("reconstruct", path, "--model", "run", "--mask", mask, "-o", "f", *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    repaired = read_image(str(tmp_path / "f" / "image.png"))
    assert (repaired.mode, repaired.bit_depth) == (original.mode, original.bit_depth)
    kept = pixels(linked / "mask.png")[0] < 128
    assert torch.equal(repaired.pixels[:, kept], original.pixels[:, kept])


def test_an_image_is_repaired_by_a_model_of_its_known_part(linked: Path, tmp_path: Path) -> None:
    image, mask = str(linked / "albedo.png"), str(linked / "mask.png")
    small = [*SMALL[:2], "--set", "crop=12", *SMALL[4:]]
    done = gcn("train", image, "--mask", mask, *small, "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    arguments = ["--model", "run", "--mask", mask, *FEW]
    assert gcn("reconstruct", image, *arguments, cwd=tmp_path).returncode == 0
    other = gcn("train", image, *small, "-o", "run", cwd=tmp_path)
    assert other.returncode == 2
    assert b"trained with --mask mask.png, not no --mask" in other.stderr
    whole = [*SMALL, "--set", "crop=0", "-o", "whole"]
    hidden = gcn("train", image, "--mask", mask, *whole, cwd=tmp_path)
    assert hidden.returncode == 2
    assert b"missing pixels" in hidden.stderr
    gray = gcn("train", str(linked / "height.png"), *SMALL, "-o", "gray", cwd=tmp_path)
    assert gray.returncode == 0
    lost = gcn("reconstruct", image, "--model", "gray", "--mask", mask, cwd=tmp_path)
    assert lost.returncode == 2
    assert b"the colors would be lost" in lost.stderr
