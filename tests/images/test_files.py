"""Pictures of every kind, good and bad."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli import images
from gcn_cli.errors import InputError
from tests.reading import read


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_three_channels(mode: str, tmp_path: Path) -> None:
    suffix = "tif" if mode in ("CMYK", "I;16") else "png"
    path = tmp_path / f"picture.{suffix}"
    Image.new(mode, (5, 4)).save(path)
    pixels = read(str(path))
    assert pixels.shape == (3, 4, 5)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 255
    assert read(str(path), bands="L").shape == (1, 4, 5)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pixels = torch.arange(48.0).reshape(3, 4, 4) * 5
    images.write(pixels, str(tmp_path / "out.png"))
    assert torch.equal(read(str(tmp_path / "out.png")), pixels)
    images.write(pixels[:1] + 500, str(tmp_path / "gray.png"))
    assert float(read(str(tmp_path / "gray.png"), bands="L").min()) == 255


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert float(read(str(tmp_path / "clear.png")).min()) == 255


def test_rotation_notes_are_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert read(str(tmp_path / "turned.jpg")).shape == (3, 6, 3)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_damaged_pictures_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png: not a readable picture"):
        read(str(path))


def test_a_cut_off_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"cut\.png"):
        read(str(path))


def test_sources_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    found = images.expand_sources([str(tmp_path), "-"])
    assert found == [str(tmp_path / "a.JPG"), str(tmp_path / "b.png"), "-"]
    with pytest.raises(InputError, match="no such file"):
        images.expand_sources([str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="without pictures"):
        images.expand_sources([str(tmp_path / "empty")])


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    images.write_bytes(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        images.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_model_units_and_pixels_are_inverses() -> None:
    scale = images.Normalization((10.0, 20.0, 30.0), (4.0, 4.0, 2.0))
    pixels = torch.rand(2, 3, 4, 4) * 255
    torch.testing.assert_close(scale.to_pixels(scale.to_model(pixels)), pixels)
    assert scale.to_model(torch.tensor(scale.mean)[:, None, None]).abs().max() == 0


@pytest.mark.parametrize(
    ("name", "file"),
    [("a.png", True), ("a/b.JPG", True), ("a.jp2", True), ("a", False), ("run.16", False)],
)
def test_a_picture_suffix_names_a_file_and_no_other_does(name: str, file: bool) -> None:
    assert images.names_file(name) == file


@pytest.mark.parametrize("name", ["a.xyz", "a.txt"])
def test_other_letters_are_an_unknown_format(name: str) -> None:
    with pytest.raises(InputError, match="unknown picture format"):
        images.names_file(name)
