"""Files hold the pixels, bit depth, alpha and profile; a failed write changes nothing."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from gcn_cli import images
from gcn_cli.errors import InputError, TakenError
from gcn_cli.images import TextureMap
from gcn_cli.images.writing import write_bytes
from tests.reading import read


def write_16_bit(path: Path, channels: int) -> NDArray[np.uint16]:
    """Write random 16-bit values with libvips or, in gray, Pillow; returns them (H, W, C)."""
    drawn = np.random.default_rng(0).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    if channels == 1:
        PillowImage.fromarray(drawn[:, :, 0]).save(path)
    else:
        pyvips.Image.new_from_array(drawn).copy(interpretation="rgb16").write_to_file(str(path))
    return drawn


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_png_holds_the_pixels(bit_depth: int, mode: str, tmp_path: Path) -> None:
    largest = 2**bit_depth - 1
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(largest + 1, (len(mode), 13, 7), generator=generator)
    path = str(tmp_path / "image.png")
    images.write(integers * (255 / largest), path, bit_depth)
    image = images.read_image(path)
    assert (image.mode, image.bit_depth) == (mode, bit_depth)
    assert torch.equal((image.pixels * (largest / 255)).round().long(), integers)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_16_bit_files_of_other_programs_round_trip(mode: str, suffix: str, tmp_path: Path) -> None:
    path, copy = tmp_path / f"image.{suffix}", str(tmp_path / f"copy.{suffix}")
    array = write_16_bit(path, len(mode))
    image = images.read_image(str(path))
    assert (image.mode, image.bit_depth) == (mode, 16)
    images.write(image.pixels, copy, 16)
    assert torch.equal(images.read_image(copy).pixels, image.pixels)
    assert np.array_equal(pyvips.Image.new_from_file(copy).numpy().reshape(array.shape), array)


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    images.write(torch.tensor([[[-3.0, 0.6, 254.4, 300.0]]]), str(tmp_path / "image.png"))
    assert read(tmp_path / "image.png", mode="L").flatten().tolist() == [0, 1, 254, 255]


def test_formats_without_16_bits_get_8(tmp_path: Path) -> None:
    images.write(torch.rand(3, 4, 5) * 255, str(tmp_path / "image.jpg"), 16)
    assert images.read_image(str(tmp_path / "image.jpg")).bit_depth == 8


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_icc_profiles_are_kept(bit_depth: int, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = str(tmp_path / "image.png")
    images.write(torch.rand(3, 4, 4), path, bit_depth, profile)
    assert images.read_image(path).icc_profile == profile


def test_without_libvips_the_error_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(InputError, match=r"pip install 'gcn-cli\[deep\]'"):
        images.write(torch.zeros(3, 4, 4), str(tmp_path / "image.png"), 16)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    images.write_bytes(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        images.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    link, file = tmp_path / "link.png", tmp_path / "elsewhere" / "file.png"
    link.symlink_to(file)  # of a file that does not exist yet
    with pytest.raises(TakenError):
        write_bytes(link, b"new", new=True)
    for data in (b"one", b"two"):
        write_bytes(link, data)
        assert link.is_symlink()
        assert file.read_bytes() == data


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    for new in (True, False):
        path = tmp_path / f"{'n' * 250}{new:d}.png"
        write_bytes(path, b"data", new=new)
        assert path.read_bytes() == b"data"
        with pytest.raises(OSError, match="too long") as failed:
            write_bytes(tmp_path / ("n" * 256), b"data", new=new)
        assert failed.value.filename == str(tmp_path / ("n" * 256))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("links", [True, False])
def test_one_of_two_simultaneous_writers_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Both have written their file before either renames it."""
    ready = threading.Barrier(2, timeout=60)

    def wait(_: int) -> None:  # called just before the rename
        ready.wait()

    monkeypatch.setattr(os, "fsync", wait)
    if not links:
        monkeypatch.setattr(os, "link", refuse_to_link)
    results: dict[bytes, str] = {}

    def write(data: bytes) -> None:
        try:
            write_bytes(tmp_path / "file", data, new=True)
            results[data] = "written"
        except TakenError:
            results[data] = "taken"

    jobs = [threading.Thread(target=write, args=(data,)) for data in (b"one", b"two")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(results.values()) == ["taken", "written"]
    assert results[(tmp_path / "file").read_bytes()] == "written"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def refuse_to_link(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_without_links_no_empty_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse_to_link)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "file", b"new", new=True)
    assert list(tmp_path.iterdir()) == []


def test_files_of_more_than_4_gib_are_refused_where_the_format_ends_there() -> None:
    size, deep = (30000, 50000), TextureMap(mode="RGB", bit_depth=16)
    for name, texture_map in (("a.tif", TextureMap()), ("a.bmp", TextureMap()), ("a.tif", deep)):
        with pytest.raises(InputError, match=rf"{name}: 50000x30000 pixels take [48]\.. GiB"):
            images.check_format(name, size, texture_map)
    images.check_format("a.png", size, deep)
    images.check_format("a.tif", size, TextureMap(mode="L"))
    images.check_format("a.bmp", (20000, 50000), deep)  # written with 8 bits
