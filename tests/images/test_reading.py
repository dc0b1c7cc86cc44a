"""Image files of every mode and format, good and damaged."""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image as PillowImage
from PIL import ImageCms, TiffImagePlugin

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images.color import to_profile
from gcn_cli.images.image import Image
from gcn_cli.images.reading import bits_a_channel
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


def with_chunk(path: Path, image: PillowImage.Image, name: bytes, content: bytes) -> Path:
    """Write a PNG with one more chunk, before its pixels."""
    data = io.BytesIO()
    image.save(data, "PNG")
    body = name + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data.getvalue()[:33] + chunk + data.getvalue()[33:])
    return path


def grays(mode: str = "L") -> PillowImage.Image:
    """16 columns from black to white, rounded to 4 levels in mode "1" and "L"."""
    levels = np.tile(np.arange(16) // 4 * 85, (6, 1))
    if mode == "I;16":
        return PillowImage.fromarray((levels * 257).astype(np.uint16))
    return PillowImage.fromarray(levels.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "bits", "value", "bit_depth"),
    [("L", 8, 85, 8), ("L", 4, 5, 8), ("L", 2, 1, 8), ("1", 1, 0, 8), ("I;16", 16, 85 * 257, 16)],
)
def test_a_transparent_gray_keeps_gray(
    mode: str, bits: int, value: int, bit_depth: int, tmp_path: Path
) -> None:
    path = with_chunk(tmp_path / "hole.png", grays(mode), b"tRNS", struct.pack(">H", value))
    if mode == "L" and bits < 8:  # Pillow writes grays with 8 bits: the same grays in fewer
        levels = np.asarray(grays()) // (255 // (2**bits - 1))
        rows = [
            b"\0"
            + bytes(
                sum(int(v) << (8 - bits * (k + 1)) for k, v in enumerate(part))
                for part in row.reshape(-1, 8 // bits)
            )
            for row in levels
        ]
        data = path.read_bytes()
        start = data.index(b"IDAT") - 4
        header = b"IHDR" + struct.pack(">IIBBBBB", 16, 6, bits, 0, 0, 0, 0)
        body = b"IDAT" + zlib.compress(b"".join(rows))
        chunks = [header, data[37 : start - 4], body]
        packed = [
            struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
        ]
        end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
        path.write_bytes(data[:8] + b"".join(packed) + end)
    image = images.read_image(str(path))
    assert (image.mode, image.bit_depth) == ("LA", bit_depth)
    expected = torch.tensor(np.asarray(grays("1" if mode == "1" else "L"), dtype=np.float32))
    expected = expected * (255 if mode == "1" else 1)
    assert torch.equal(image.pixels[0], expected)
    assert image.transparent is not None
    assert torch.equal(image.transparent, expected == (0 if mode == "1" else 85))


def test_16_bits_where_white_is_zero_are_inverted(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    grays("I;16").save(tmp_path / "negative.tif", tiffinfo=tags)
    image = images.read_image(str(tmp_path / "negative.tif"))
    assert torch.equal(image.pixels[0, 0], 255 - torch.tensor(np.asarray(grays())[0]).float())


@pytest.mark.parametrize("depth", [255, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_ppm_keeps_more_than_8_bits(depth: int, plain: bool, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, depth + 1, (3, 4, 3))
    header = f"P{3 if plain else 6}\n4 3\n{depth}\n".encode()
    body = values.astype(">u2" if depth > 255 else np.uint8).tobytes()
    if plain:
        body = b"# a comment 1 2\n" + " ".join(map(str, values.flatten())).encode()
    (tmp_path / "deep.ppm").write_bytes(header + body)
    image = images.read_image(str(tmp_path / "deep.ppm"))
    assert image.bit_depth == (8 if depth == 255 else 16)
    expected = torch.tensor(values.transpose(2, 0, 1) * (255 / depth)).float()
    torch.testing.assert_close(image.pixels, expected, atol=1e-3, rtol=0)
    (tmp_path / "deep.ppm").write_bytes((header + body)[:-8])
    with pytest.raises(InputError, match="not a readable image"):
        images.read_image(str(tmp_path / "deep.ppm"))


def test_colors_that_pillow_cuts_to_8_bits_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (3, 5, 4)).astype(">u2")
    header = struct.pack(">hBBHHHHii", 474, 0, 2, 3, 4, 5, 3, 0, 65535).ljust(512, b"\0")
    (tmp_path / "deep.sgi").write_bytes(header + values[:, ::-1].tobytes())
    image = images.read_image(str(tmp_path / "deep.sgi"))
    np.testing.assert_array_equal(image.pixels.numpy(), values >> 8)
    file = io.BytesIO()
    PillowImage.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG2000")
    data = bytearray(file.getvalue())
    start = data.index(b"\xff\x4f\xff\x51") + 42
    data[start : start + 9 : 3] = bytes([15] * 3)  # 16 bits in each component
    (tmp_path / "deep.jp2").write_bytes(data)
    images.read_image(str(tmp_path / "deep.jp2"))
    assert bits_a_channel("AVIF", b"....av1C\x81\x20\x40") == 10
    ending = "its 16 bits a channel are read as 8; PNG and TIFF keep 16"
    assert [message.partition(": ")[2] for message in caplog.messages] == [ending] * 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "the file is empty"),
        ("a.pdf", b"%PDF-1.7 ...", "a drawing, not pixels; save it as PNG"),
        ("a.png", b"<?xml?><svg></svg>", "a drawing, not pixels; save it as PNG"),
        ("a.tif", b"II*\0rest", "a TIFF of numbers or channels that are not read; save it with"),
        ("a.png", b"text", "damaged or unknown format"),
    ],
)
def test_a_file_that_is_not_read_says_why(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: not a readable image \({reason}"):
        images.read_image(str(tmp_path / name))
    signed = (np.arange(20, dtype=np.int32) - 5).reshape(4, 5)
    PillowImage.fromarray(signed).save(tmp_path / "signed.tif")
    with pytest.raises(InputError, match="grays from -5 to 14; save it with 8 or 16 bits"):
        images.read_image(str(tmp_path / "signed.tif"))


@pytest.mark.parametrize(("top", "warned"), [(0, False), (200, True), (256, False)])
def test_16_bit_grays_in_the_range_of_8_bits_are_said(
    top: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = np.linspace(0, top, 20).reshape(4, 5)
    for dtype in (np.int32, np.uint16):
        caplog.clear()
        PillowImage.fromarray(ramp.astype(dtype)).save(tmp_path / "gray.tif")
        read = images.read_image(str(tmp_path / "gray.tif"))
        assert float(read.pixels.max()) == pytest.approx(top / 257)
        assert ("at most 200 of 65535, nearly black" in caplog.text) == warned


def test_16_bit_colors_are_divided_by_alpha(tmp_path: Path) -> None:
    pixels = np.full((6, 5, 4), (40000, 20000, 10000, 32768), np.uint16)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="rgb16")
    image.tiffsave(str(tmp_path / "straight.tif"))
    image.tiffsave(str(tmp_path / "multiplied.tif"), premultiply=True)
    straight, multiplied = (read(tmp_path / f"{n}.tif", "RGBA") for n in ("straight", "multiplied"))
    torch.testing.assert_close(straight, multiplied, atol=0.01, rtol=0)
    alpha, unknown = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 0))
    data = (tmp_path / "straight.tif").read_bytes()
    (tmp_path / "filler.tif").write_bytes(data.replace(alpha, unknown))
    filler = images.read_image(str(tmp_path / "filler.tif"))  # a channel without meaning
    assert filler.mode == "RGB"
    assert torch.equal(filler.pixels, straight[:3])


def test_a_profile_fits_the_channels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    color = PillowImage.effect_noise((9, 9), 60).convert("RGB")
    for mode, image, profile in (
        ("L", grays(), srgb), ("RGB", color, lab), ("RGB", color, b"no profile"),
        ("LAB", color.convert("LAB"), lab),
    ):  # fmt: skip
        image.save(tmp_path / f"{mode}.tif", icc_profile=profile)
        assert images.read_image(str(tmp_path / f"{mode}.tif")).icc_profile is None
    reasons = [message.partition(": ")[2] for message in caplog.messages]
    assert reasons == [
        "its ICC profile is not for its channels; it is ignored",
        "its ICC profile is damaged; it is ignored",
        "LAB colors are converted to sRGB, 8 bits",
    ]


def test_a_png_states_its_color_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    color, path = grays().convert("RGB"), tmp_path / "stated.png"

    def profile(name: bytes, content: bytes, image: PillowImage.Image = color) -> bytes | None:
        return images.read_image(str(with_chunk(path, image, name, content))).icc_profile

    def gamma(value: int) -> bytes:
        return struct.pack(">I", value)

    linear, gray = profile(b"gAMA", gamma(100000)), profile(b"gAMA", gamma(100000), grays())
    assert linear is not None
    assert gray is not None
    assert (linear[16:20], gray[16:20]) == (b"RGB ", b"GRAY")
    assert profile(b"gAMA", gamma(45455)) is None  # that of sRGB
    assert profile(b"cICP", bytes([1, 13, 0, 1])) is None  # sRGB
    display_p3 = profile(b"cICP", bytes([12, 13, 0, 1]))
    assert display_p3 is not None
    gray_128 = images.read_image(str(with_chunk(path, color, b"gAMA", gamma(100000))))
    pixels = torch.full_like(gray_128.pixels, 128)
    shown = to_profile(Image(pixels, "RGB", 8, linear, color_managed=True), None).pixels
    assert float((shown - 188).abs().max()) <= 1  # half of the light
    red = torch.tensor([234.0, 51, 35])[:, None, None]  # red of sRGB in Display P3
    shown = to_profile(Image(red, "RGB", 8, display_p3, color_managed=True), None).pixels
    assert float((shown.flatten() - torch.tensor([255.0, 0, 0])).abs().max()) <= 4
    assert not caplog.messages
    assert profile(b"cICP", bytes([9, 16, 0, 1])) is None
    assert profile(b"cHRM", bytes(32)) is None
    assert "cICP 9/16/0/1 is not supported (HDR)" in caplog.messages[0]
    assert "impossible values" in caplog.messages[1]


def test_a_png_states_its_resolution(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for across, down, unit, expected in (
        (11811, 11811, 1, 300.0), (1, 1, 0, None), (2, 1, 0, None), (11811, 5905, 1, None),
    ):  # fmt: skip
        content = struct.pack(">IIB", across, down, unit)
        image = images.read_image(str(with_chunk(tmp_path / "a.png", grays(), b"pHYs", content)))
        assert image.dpi == expected
        assert bool(caplog.messages) == (across != down)
        caplog.clear()
    assert images.Image(image.pixels, "L", dpi=300.0).resized((3, 8)).dpi == 150.0


def test_folders_are_expanded_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    for name in ("b.png", "a.JPG", "notes.txt", "._b.png", "c.jfif", "d.avif", "e.tga", "f.jp2"):
        (tmp_path / name).touch()
    for name in (".DS_Store", "Thumbs.db", "clip.mpg", "b.xmp"):
        (tmp_path / name).touch()
    expanded = images.expand_sources([str(tmp_path), "-"])
    names = ["a.JPG", "b.png", "c.jfif", "d.avif", "e.tga", "f.jp2"]
    assert expanded == [*(str(tmp_path / name) for name in names), "-"]
    left_out = "6 image(s); 4 other file(s) left out: ._b.png, b.xmp, clip.mpg, ..."
    assert caplog.messages == [f"{tmp_path}: {left_out}"]
    with pytest.raises(InputError, match="no such file"):
        images.expand_sources([str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="without images"):
        images.expand_sources([str(tmp_path / "empty")])


def test_a_folder_of_folders_stands_for_them(tmp_path: Path) -> None:
    for name in (
        "mats/b/x.png",
        "mats/a/y.png",
        "mats/.git/z.png",
        "mats/readme.txt",
        "flat/c.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "flat" / "more").mkdir()
    mats, flat = str(tmp_path / "mats"), str(tmp_path / "flat")
    expanded = images.expand_each([flat, mats, f"{mats}/a/y.png"])
    assert expanded == [f"{flat}/c.png", f"{mats}/a", f"{mats}/b", f"{mats}/a/y.png"]
    with pytest.raises(InputError, match=r"a folder without images; it holds .git/, a/, b/, ...;"):
        images.expand_sources([mats])


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero: a device, whose data may not end"):
        images.read_image("/dev/zero")
