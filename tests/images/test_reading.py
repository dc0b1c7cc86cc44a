"""Image files of every mode and format, good and damaged."""

from pathlib import Path

import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from gcn_cli import images
from gcn_cli.errors import InputError
from tests.images.test_writing import write_16_bit
from tests.reading import read


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK", "I;16"])
def test_every_mode_converts_to_color_and_gray(mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{'tif' if mode in ('CMYK', 'I;16') else 'png'}"
    PillowImage.new(mode, (5, 4)).save(path)
    pixels = read(path)
    assert pixels.shape == (3, 4, 5)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 255
    assert read(path, mode="L").shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("file_mode", "mode"),
    [("L", "L"), ("1", "L"), ("LA", "LA"), ("RGB", "RGB"), ("P", "RGB"), ("RGBA", "RGBA")],
)
def test_the_mode_is_that_of_the_file(file_mode: str, mode: str, tmp_path: Path) -> None:
    PillowImage.new(file_mode, (5, 4)).save(tmp_path / "image.png")
    assert images.read_image(str(tmp_path / "image.png")).mode == mode


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.new("RGB", (6, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert read(tmp_path / "turned.jpg").shape == (3, 6, 3)


def test_cmyk_becomes_rgb_without_a_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "cmyk.tif"
    PillowImage.new("CMYK", (4, 4), (0, 255, 255, 0)).save(path, icc_profile=profile)
    image = images.read_image(str(path))
    assert (image.mode, image.icc_profile) == ("RGB", None)
    assert float(image.pixels[0].mean()) > 200
    assert float(image.pixels[1].mean()) < 60


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\nbroken"])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png: not a readable image"):
        read(path)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_truncated_files_are_named(bit_depth: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    if bit_depth == 8:
        PillowImage.effect_noise((64, 64), 50).save(path)
    else:
        write_16_bit(path, 3)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
        read(path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_files_with_several_images_are_refused(suffix: str, tmp_path: Path) -> None:
    first, second = (PillowImage.new("RGB", (8, 8), color) for color in ("red", "blue"))
    path = tmp_path / f"animation.{suffix}"
    first.save(path, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=rf"animation\.{suffix}: holds 2 images"):
        read(path)


def test_too_large_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcn_cli.images.reading.MAX_PIXELS", 15)
    PillowImage.new("L", (4, 4)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"large\.png: 4x4 are too many pixels"):
        read(tmp_path / "large.png")


def test_grays_without_a_range_are_refused(tmp_path: Path) -> None:
    PillowImage.new("F", (4, 4)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="no scale"):
        read(tmp_path / "float.tif")


def test_folders_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    expanded = images.expand_sources([str(tmp_path), "-"])
    assert expanded == [str(tmp_path / "a.JPG"), str(tmp_path / "b.png"), "-"]
    with pytest.raises(InputError, match="no such file"):
        images.expand_sources([str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="without images"):
        images.expand_sources([str(tmp_path / "empty")])
