"""Image files read into memory with their mode, bit depth and ICC profile, turned upright."""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageCms, ImageOps

from gcn_cli.errors import InputError
from gcn_cli.images.image import (
    CHANNELS_OF_MODE,
    UINT16_PER_GRAY_LEVEL,
    Image,
    from_pillow,
    mode_of,
)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
MAX_PIXELS = 2**28  # 16384 x 16384


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Replace each folder by the image files in it, sorted by name; files and "-" stay.

    Raises InputError for a missing path and for a folder without images.
    """
    paths: list[str] = []
    for source in sources:
        inside = [source]
        if source != "-" and os.path.isdir(source):
            inside = sorted(str(p) for p in Path(source).iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{source}: a folder without images ({', '.join(SUFFIXES)})")
        elif source != "-" and not os.path.exists(source):
            raise InputError(f"{source}: no such file or folder")
        paths += inside
    return paths


def read_image(source: str) -> Image:
    """Read an image file, turned by its EXIF orientation; "-" is standard input.

    Raises InputError for an unreadable file, several images in one file, or too many pixels.
    """
    try:
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
        raise InputError(f"{source}: not a readable image (damaged or unknown format)") from error
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def _decode(opened: PillowImage.Image, source: str, data: bytes) -> Image:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{source}: {width}x{height} are too many pixels, the limit is {MAX_PIXELS}; "
            "make the image smaller"
        )
    frames = (
        getattr(opened, "n_frames", 1) if opened.format in ("GIF", "WEBP", "PNG", "TIFF") else 1
    )
    if frames > 1:
        raise InputError(
            f"{source}: holds {frames} images (an animation or pages); save one of them as a file"
        )
    # Pillow decodes 16-bit colors to 8 bits; the tile descriptors still tell.
    tiles: Any = getattr(opened, "tile", ())
    is_16_bit = any(";16" in str(tile[3]) for tile in tiles)
    opened.load()
    if is_16_bit and opened.mode in ("RGB", "RGBA", "LA"):
        return _read_16_bit_colors(source, data)
    return image_from_pillow(ImageOps.exif_transpose(opened), source)


def image_from_pillow(image: PillowImage.Image, source: str = "an image") -> Image:
    """An `Image` of a Pillow image of any mode.

    CMYK is converted to sRGB by its profile. Raises InputError for grays without a known
    range; `source` names the image in the message.
    """
    icc_profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        grays = torch.from_numpy(np.asarray(image, dtype=np.float32).copy())[None]
        if float(grays.min()) < 0 or float(grays.max()) > 65535:
            raise InputError(f"{source}: 32-bit grays; save it with 8 or 16 bits")
        return Image(grays / UINT16_PER_GRAY_LEVEL, "L", 16, icc_profile)
    if image.mode == "F":
        raise InputError(f"{source}: grays with fractions have no scale; save it with 16 bits")
    if image.mode == "CMYK":
        return Image(from_pillow(_rgb_from_cmyk(image, icc_profile)), "RGB")
    has_alpha = image.has_transparency_data
    if image.mode not in CHANNELS_OF_MODE:
        mode = "L" if image.mode in ("1", "La") else "RGB"
        image = image.convert(mode + "A" if has_alpha else mode)
    elif has_alpha and not image.mode.endswith("A"):  # one color marks transparent pixels
        image = image.convert("RGBA")
    return Image(from_pillow(image), image.mode, 8, icc_profile)


def _rgb_from_cmyk(image: PillowImage.Image, icc_profile: bytes | None) -> PillowImage.Image:
    """CMYK in sRGB by its ICC profile, or by Pillow's formula without a valid profile."""
    if icc_profile:
        with suppress(ImageCms.PyCMSError):  # not a CMYK profile
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def _read_16_bit_colors(source: str, data: bytes) -> Image:
    vips = libvips(source)
    try:
        image = vips.Image.new_from_buffer(data, "").autorot()
        has_profile = image.get_typeof("icc-profile-data")
        icc_profile = image.get("icc-profile-data") if has_profile else None
        array = image.numpy()
    except vips.Error as error:
        raise InputError(f"{source}: not a readable image (damaged)") from error
    pixels = torch.from_numpy(array.astype("float32") / UINT16_PER_GRAY_LEVEL).permute(2, 0, 1)
    return Image(pixels.contiguous(), mode_of(len(pixels)), 16, icc_profile)


def libvips(target: str) -> Any:
    """The module pyvips, for 16-bit colors. Raises InputError, naming `target`, without it."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise InputError(
            f"{target}: 16-bit colors need libvips; pip install 'gcn-cli[deep]', or use 8 bits"
        ) from error
    return pyvips
