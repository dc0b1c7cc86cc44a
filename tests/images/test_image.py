"""Bands, depth, profiles, normals: what a picture is, it stays."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image as PillowImage
from PIL import ImageCms, ImageDraw

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images import Image, Normalization, TextureMap
from gcn_cli.images.image import finish_maps, holds_normals, side_by_side


def wide(bands: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    drawn = np.random.default_rng(0).integers(0, 65536, (9, 7, bands))
    return drawn.astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bands", ["L", "RGB", "RGBA"])
def test_sixteen_bits_come_back_exactly(bands: str, suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"wide.{suffix}")
    array = wide(len(bands))
    if bands == "L":
        PillowImage.fromarray(array[:, :, 0]).save(path)
    else:
        pyvips.Image.new_from_array(array).copy(interpretation="rgb16").write_to_file(path)
    found = images.open_picture(path)
    assert (found.bands, found.depth) == (bands, 16)
    again = str(tmp_path / f"again.{suffix}")
    images.write(found.values, again, 16)
    assert torch.equal(images.open_picture(again).values, found.values)
    assert np.array_equal(pyvips.Image.new_from_file(again).numpy().reshape(array.shape), array)


def test_sixteen_bits_are_cut_where_the_format_has_eight(tmp_path: Path) -> None:
    images.write(torch.rand(3, 4, 5) * 255, str(tmp_path / "out.jpg"), 16)
    assert images.open_picture(str(tmp_path / "out.jpg")).depth == 8


@pytest.mark.parametrize(
    ("mode", "bands"),
    [("L", "L"), ("1", "L"), ("LA", "LA"), ("RGB", "RGB"), ("P", "RGB"), ("RGBA", "RGBA")],
)
def test_bands_are_as_in_the_file(mode: str, bands: str, tmp_path: Path) -> None:
    PillowImage.new(mode, (5, 4)).save(tmp_path / "some.png")
    assert images.open_picture(str(tmp_path / "some.png")).bands == bands


def test_profiles_are_carried_and_inks_become_colors(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    PillowImage.new("RGB", (4, 4), "red").save(tmp_path / "some.png", icc_profile=profile)
    found = images.open_picture(str(tmp_path / "some.png"))
    assert found.profile == profile
    for depth in (8, 16):
        images.write(found.values, str(tmp_path / "out.png"), depth, found.profile)
        assert images.open_picture(str(tmp_path / "out.png")).profile == profile
    PillowImage.new("CMYK", (4, 4), (0, 255, 255, 0)).save(
        tmp_path / "inks.tif", icc_profile=profile
    )
    inks = images.open_picture(str(tmp_path / "inks.tif"))
    assert inks.bands == "RGB"
    assert inks.profile is None
    assert float(inks.values[0].mean()) > 200
    assert float(inks.values[1].mean()) < 60


def test_transparency_is_written_where_the_format_has_it(tmp_path: Path) -> None:
    pixels = torch.zeros(4, 6, 6)
    images.write(pixels, str(tmp_path / "clear.webp"))
    images.write(pixels, str(tmp_path / "white.jpg"))
    assert images.open_picture(str(tmp_path / "clear.webp")).bands == "RGBA"
    white = images.open_picture(str(tmp_path / "white.jpg"))
    assert white.bands == "RGB"
    assert float(white.values.min()) == 255


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_several_pictures_in_a_file_are_refused(suffix: str, tmp_path: Path) -> None:
    first, second = PillowImage.new("RGB", (8, 8), "red"), PillowImage.new("RGB", (8, 8), "blue")
    path = tmp_path / f"moving.{suffix}"
    first.save(path, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=rf"moving\.{suffix}: holds 2 pictures"):
        images.open_picture(str(path))


def test_pictures_too_large_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcn_cli.images.reading.MOST_PIXELS", 15)
    PillowImage.new("L", (4, 4)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"large\.png: 4x4 are too many pixels"):
        images.open_picture(str(tmp_path / "large.png"))


def test_grays_without_a_scale_are_refused(tmp_path: Path) -> None:
    PillowImage.new("F", (4, 4)).save(tmp_path / "real.tif")
    with pytest.raises(InputError, match="no scale"):
        images.open_picture(str(tmp_path / "real.tif"))


def test_resizing_by_fractions_is_that_of_whole_numbers() -> None:
    values = torch.rand(3, 20, 16).mul(255).round()
    narrow, deep = (Image(values, "RGB", depth).resized((9, 11)).values for depth in (8, 32))
    assert narrow.shape == (3, 9, 11)
    torch.testing.assert_close(narrow, deep, atol=1.01, rtol=0)


def test_a_clear_color_does_not_bleed_when_resized() -> None:
    values = torch.zeros(4, 16, 16)
    values[0, :, :8], values[3, :, :8] = 200, 255  # the clear half is black
    for depth in (8, 32):
        small = Image(values, "RGBA", depth).resized((8, 8)).values
        assert float(small[0][small[3] > 20].min()) > 190


def test_normals_are_known_and_made_whole() -> None:
    directions = torch.nn.functional.normalize(torch.randn(3, 8, 8) * 0.3 + 1, dim=0)
    directions[2] = directions[2].abs()
    picture = (directions + 1) * 127.5
    assert holds_normals(picture.round())
    assert not holds_normals(torch.full((3, 8, 8), 100.0))
    maps = [TextureMap("a", "L"), TextureMap("n", "RGB", normals=True)]
    made = finish_maps(torch.cat([picture[:1], picture + 9]), maps)
    assert torch.equal(made[:1], picture[:1])
    torch.testing.assert_close((made[1:] / 127.5 - 1).norm(dim=0), torch.ones(8, 8))
    assert side_by_side(made, maps).shape == (3, 8, 16)


def test_each_group_has_a_scale_and_the_unknown_does_not_count() -> None:
    one, other = torch.randn(1, 64, 64) * 3 + 100, torch.randn(2, 64, 64) * 30 + 50
    picture = torch.cat([one, other])
    known = Normalization.fit([picture], None, unit_deviation=True, groups=[1, 2])
    assert known.scale[0] == pytest.approx(3, rel=0.05)
    assert known.scale[1] == known.scale[2] == pytest.approx(30, rel=0.05)
    hidden = torch.cat([picture, torch.full((3, 64, 64), torch.nan)], dim=2)
    found = Normalization.fit([hidden], None, unit_deviation=True, groups=[1, 2])
    assert found.mean == pytest.approx(known.mean)
    assert found.scale == pytest.approx(known.scale)
    with pytest.raises(InputError, match="2 values for 3 channels"):
        Normalization.fit([picture], (1.0, 2.0), unit_deviation=True)


def test_a_damaged_wide_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    pyvips.Image.new_from_array(wide(3)).copy(interpretation="rgb16").write_to_file(str(path))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"wide\.png: not a readable picture"):
        images.open_picture(str(path))


def test_without_the_library_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(InputError, match=r"pip install 'gcn-cli\[deep\]'"):
        images.write(torch.zeros(3, 4, 4), str(tmp_path / "out.png"), 16)


def hole(side: int) -> PillowImage.Image:
    """A picture with a round hole."""
    picture = PillowImage.effect_noise((side, side), 60).convert("RGBA")
    mask = PillowImage.new("L", picture.size, 255)
    ImageDraw.Draw(mask).ellipse((4, 4, 12, 12), fill=0)
    picture.putalpha(mask)
    return picture


def test_what_is_clear_is_seen() -> None:
    pixels = images.reading.pillow_raster(hole(32))
    assert pixels.clear is not None
    assert bool(pixels.clear[8, 8])
    assert not bool(pixels.clear[30, 30])
