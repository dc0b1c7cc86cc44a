"""Image files read into memory with their mode, bit depth and color profile, turned upright."""

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images.color import libvips, rgb_from, stated_profile
from gcn_cli.images.image import (
    CHANNELS_OF_MODE,
    UINT16_PER_GRAY_LEVEL,
    Image,
    from_pillow,
    mode_of,
)

log = logging.getLogger(__name__)

MAX_PIXELS = 2**28  # 16384 x 16384
NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow recognizes them only
ONE_OF_SEVERAL = {"ICNS", "ICO", "MPO", "PSD"}  # the first image is the main one
PHOTOMETRIC = 262  # tag of a TIFF; 0 is "white is zero"
SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini"}
GRAY_SCALES = {"1": 255, "1;I": 255, "L;2": 85, "L;2I": 85, "L;4": 17, "L;4I": 17}
"""What Pillow multiplies grays of few bits by, but not the gray that a PNG calls transparent."""


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Replace each folder by the image files in it, sorted by name; files and "-" stay.

    Hidden files, such as the ._x.png of macOS, and files without the suffix of an image format are
    left out, which is logged. Raises InputError for a missing path and for a folder without images.
    """
    paths: list[str] = []
    for source in sources:
        if source != "-" and os.path.isdir(source):
            paths += _images_in(source)
        elif source != "-" and not os.path.exists(source):
            raise InputError(f"{source}: no such file or folder")
        else:
            paths.append(source)
    return paths


def expand_each(sources: Sequence[str]) -> list[str]:
    """The sources of one training each: a folder of folders stands for these, others for images.

    Raises InputError as `expand_sources` does.
    """
    expanded: list[str] = []
    for source in sources:
        inside = sorted(Path(source).iterdir()) if os.path.isdir(source) else []
        folders = [str(path) for path in inside if path.is_dir() and path.name[0] != "."]
        files = [path for path in inside if path.is_file() and _is_image(path)]
        expanded += folders if folders and not files else expand_sources([source])
    return expanded


def _is_image(path: Path) -> bool:
    """Whether a file in a folder is an image, by its name."""
    image_format = PillowImage.registered_extensions().get(path.suffix.lower(), "")
    can_read = image_format in PillowImage.OPEN and image_format not in NO_PIXELS
    return can_read and not path.name.startswith(".")


def _images_in(folder: str) -> list[str]:
    inside, others = list[str](), list[str]()
    for path in sorted(Path(folder).iterdir()):
        if _is_image(path) and (path.is_file() or not path.exists()):
            inside.append(str(path))
        elif path.name.lower() not in SYSTEM_FILES:
            others.append(f"{path.name}/" if path.is_dir() else path.name)
    left_out = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
    if not inside:
        found = f"; it holds {left_out}" if others else ""
        raise InputError(f"{folder}: a folder without images{found}; name another one")
    if others:
        log.info(
            "%s: %d image(s); %d other file(s) left out: %s",
            folder, len(inside), len(others), left_out,
        )  # fmt: skip
    return inside


def read_image(source: str) -> Image:
    """Read an image file, turned by its EXIF orientation; "-" is standard input.

    Raises InputError for an unreadable file, several images in one file, or too many pixels.
    """
    try:
        if source != "-" and (Path(source).is_char_device() or Path(source).is_block_device()):
            raise InputError(f"{source}: a device, whose data may not end; name an image file")
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or error
        raise InputError(f"{source}: {reason}") from error
    limit, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None  # see MAX_PIXELS
    try:
        with warnings.catch_warnings(action="ignore"), PillowImage.open(io.BytesIO(data)) as opened:
            return _decode(opened, source, data)
    except InputError:
        raise
    except Exception as error:  # decoders raise exceptions of any type for damaged data
        raise InputError(
            f"{source}: not a readable image ({_why_unreadable(data, error)})"
        ) from error
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def _why_unreadable(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError) and data[:2] in (b"II", b"MM"):
        return "a TIFF of numbers or channels that are not read; save it with 8 or 16 bits"
    if data[:4] == b"%PDF" or b"<svg" in data[:1000]:
        return "a drawing, not pixels; save it as PNG"
    return "damaged or unknown format"


@dataclass(frozen=True)
class Coding:
    """How a file codes its values, as Pillow says before it decodes them."""

    raw_mode: str = ""
    white_is_zero: bool = False
    cicp: bytes | None = None  # of a PNG: color space, by ITU-T H.273
    dpi: tuple[float, float] = (0, 0)  # of a PNG: pixels per inch, or their proportions

    @classmethod
    def of(cls, opened: PillowImage.Image, data: bytes = b"") -> Self:
        """`data` is the file."""
        tiles: Any = getattr(opened, "tile", ())
        arguments = tiles[0][3] if tiles else ""
        raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        white_is_zero = dict(getattr(opened, "tag_v2", {})).get(PHOTOMETRIC) == 0
        if opened.format != "PNG":
            return cls(str(raw_mode), white_is_zero)
        ratio = opened.info.get("aspect", (1, 1))
        dpi = opened.info.get("dpi", (ratio[0] / ratio[1], 1) if all(ratio) else (0, 0))
        cicp = _png_chunk(data, b"cICP")
        return cls(str(raw_mode), cicp=cicp if cicp and len(cicp) == 4 else None, dpi=dpi)


def _png_chunk(data: bytes, name: bytes) -> bytes | None:
    """The content of a chunk before the pixels of a PNG."""
    start = 8
    while (kind := data[start + 4 : start + 8]) not in (b"", b"IDAT"):
        length = int.from_bytes(data[start : start + 4])
        if kind == name:
            return data[start + 8 : start + 8 + length]
        start += 12 + length
    return None


def _decode(opened: PillowImage.Image, source: str, data: bytes) -> Image:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{source}: {width}x{height} are too many pixels, the limit is {MAX_PIXELS}; "
            "make the image smaller"
        )
    frames = 1 if opened.format in ONE_OF_SEVERAL else getattr(opened, "n_frames", 1)
    if frames > 1:
        raise InputError(
            f"{source}: holds {frames} images (an animation or pages); save one of them as a file"
        )
    coding = Coding.of(opened, data)
    tiles: Any = getattr(opened, "tile", None) or [("", None, 0, ())]
    opened.load()
    # Pillow decodes 16-bit colors to 8 bits.
    if opened.format == "PPM" and opened.mode == "RGB":
        deep = _read_ppm_colors(data, tiles[0], (height, width))
        if deep is not None:
            return Image(deep, "RGB", 16, color_managed=True)
    if ";16" in coding.raw_mode and opened.mode in ("RGB", "RGBA", "LA"):
        return _read_16_bit_colors(opened, source, data, coding)
    depth = bits_a_channel(opened.format, data)
    if depth > 8 and opened.mode in ("RGB", "RGBA", "LA"):
        log.warning("%s: its %d bits a channel are read as 8; PNG and TIFF keep 16", source, depth)
    return image_from_pillow(ImageOps.exif_transpose(opened), source, coding)


def bits_a_channel(image_format: str | None, data: bytes) -> int:
    """The bits of a format whose colors Pillow decodes to 8 bits; 8 for others."""
    if image_format == "SGI":
        return 8 * data[3]
    if image_format == "JPEG2000" and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:
        return (data[start + 42] & 127) + 1  # of the first component, by the SIZ segment
    if image_format == "AVIF" and (start := data.find(b"av1C")) >= 0:
        return (8, 8, 10, 12)[data[start + 6] >> 5 & 3]  # high_bitdepth, twelve_bit
    return 8


def image_from_pillow(
    image: PillowImage.Image, source: str = "an image", coding: Coding | None = None
) -> Image:
    """An `Image` of a Pillow image of any mode.

    CMYK and LAB are converted to sRGB. Raises InputError for grays without a known range; `source`
    names the image in messages. `coding` is that of the file, by default as the image tells.
    """
    coding, info = coding or Coding.of(image), image.info
    if image.mode == "F":
        raise InputError(f"{source}: grays with fractions have no scale; save it with 16 bits")
    if image.mode.startswith("I"):
        return _gray_16(image, source, coding)
    if image.mode in ("CMYK", "LAB"):
        log.info("%s: %s colors are converted to sRGB, 8 bits", source, image.mode)
        converted = from_pillow(rgb_from(image, info.get("icc_profile")))
        return Image(converted, "RGB", color_managed=True)
    transparent = info.get("transparency")
    if image.mode in ("1", "L") and isinstance(transparent, int):
        gray = from_pillow(image.convert("L"))
        hole = gray == transparent * GRAY_SCALES.get(coding.raw_mode, 1)
        return _of_file(torch.cat([gray, 255.0 * ~hole]), "LA", 8, info, source, coding)
    has_alpha = image.has_transparency_data
    if image.mode not in CHANNELS_OF_MODE:
        mode = "L" if image.mode in ("1", "La") else "RGB"
        image = image.convert(mode + "A" if has_alpha else mode)
    elif has_alpha and not image.mode.endswith("A"):  # one color marks transparent pixels
        image = image.convert("RGBA")
    return _of_file(from_pillow(image), image.mode, 8, info, source, coding)


def _gray_16(image: PillowImage.Image, source: str, coding: Coding) -> Image:
    """16-bit grays, with alpha if a gray is marked transparent."""
    integers = torch.from_numpy(np.asarray(image, dtype=np.float32).copy())[None]
    lowest, highest = float(integers.min()), float(integers.max())
    if lowest < 0 or highest > 65535:
        grays = f"grays from {lowest:.0f} to {highest:.0f}"
        raise InputError(f"{source}: {grays}; save it with 8 or 16 bits")
    if 0 < highest <= 255:
        log.warning(
            "%s: 16-bit grays of at most %.0f of 65535, nearly black; save it with 8 bits if 255 "
            "is meant to be white",
            source,
            highest,
        )
    pixels = integers / (4095 / 255 if coding.raw_mode == "I;12" else UINT16_PER_GRAY_LEVEL)
    if coding.white_is_zero:  # Pillow inverts 8 bits only
        pixels = 255 - pixels
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return _of_file(pixels, "L", 16, image.info, source, coding)
    alpha = 255.0 * (integers != transparent)
    return _of_file(torch.cat([pixels, alpha]), "LA", 16, image.info, source, coding)


def _read_16_bit_colors(
    opened: PillowImage.Image, source: str, data: bytes, coding: Coding
) -> Image:
    vips = libvips(source)
    try:
        image = vips.Image.new_from_buffer(data, "").autorot()
        if "X;16" in coding.raw_mode:  # a channel without meaning
            image = image.extract_band(0, n=len(opened.mode))
        array = image.numpy()
    except vips.Error as error:
        raise InputError(f"{source}: not a readable image (damaged)") from error
    pixels = torch.from_numpy(array.astype("float32") / UINT16_PER_GRAY_LEVEL).permute(2, 0, 1)
    mode = mode_of(len(pixels))
    return _of_file(pixels.contiguous(), mode, 16, opened.info, source, coding)


def _read_ppm_colors(data: bytes, tile: Any, size: tuple[int, int]) -> Tensor | None:
    """Colors (3, H, W) of a PPM with more than 8 bits; None if it has 8 or fewer."""
    decoder, _, start, arguments = tile
    if decoder not in ("ppm", "ppm_plain") or arguments[1] <= 255:
        return None
    count = 3 * size[0] * size[1]
    if decoder == "ppm":
        values = np.frombuffer(data, ">u2", count, start).astype(np.float32)
    else:
        numbers = re.sub(rb"#[^\r\n]*", b"", data[start:]).split(maxsplit=count)
        values = np.array(numbers[:count], dtype=np.float32)
    values = values.reshape(*size, 3).transpose(2, 0, 1) * (255 / arguments[1])
    return torch.from_numpy(np.ascontiguousarray(values)).clamp(max=255)


def _of_file(
    pixels: Tensor, mode: str, bit_depth: int, info: Mapping[Any, Any], source: str, coding: Coding
) -> Image:
    """An `Image` with the profile and the resolution that a file states."""
    profile = stated_profile(info, coding.cicp, 1 if mode.startswith("L") else 3, source)
    dpi, (across, down) = None, coding.dpi
    if abs(across - down) > 0.005 * across:
        log.warning("%s: its pixels are not square (pHYs); they are taken as square", source)
    elif across > 1:
        dpi = round(across, 2)
    return Image(pixels, mode, bit_depth, profile, dpi, color_managed=True)
