"""Picture files into memory, as they are: bands, depth, profile, turned upright."""

import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageCms, ImageOps

from gcn_cli.errors import InputError
from gcn_cli.images.image import BANDS, Image, from_pillow

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
MOST_PIXELS = 2**28  # of a picture: 16384 x 16384
SEVERAL = ("GIF", "WEBP", "PNG", "TIFF")  # formats that hold several pictures of equal standing
WIDE = 257.0  # 16-bit values a gray level of 255


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Folders become the pictures in them, sorted by name; files and "-" stay.

    Raises InputError for what is not there, and for a folder without pictures.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if source != "-" and not _is_there(path):
            raise InputError(f"{source}: no such file or folder")
        if source != "-" and path.is_dir():
            inside = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{source}: a folder without pictures ({', '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(source)
    return found


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, RuntimeError) as error:  # of links that lead to themselves
        reason = getattr(error, "strerror", None) or "a link that leads to itself"
        raise InputError(f"{path}: {reason}") from error


def open_picture(source: str) -> Image:
    """A picture file, read whole, turned as its rotation note says; "-" is standard input.

    Raises InputError for what is not one whole picture of a size that can be worked on.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{source}: {reason}") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong is said in one line
            return _decoded(source, data)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged data raise whatever they stumble over
        raise InputError(f"{source}: not a readable picture (damaged or unknown format)") from error


def _decoded(source: str, data: bytes) -> Image:
    limit, PillowImage.MAX_IMAGE_PIXELS = (
        PillowImage.MAX_IMAGE_PIXELS,
        None,
    )  # checked here, in one line
    try:
        with PillowImage.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise InputError(
                    f"{source}: {width}x{height} are too many pixels, {MOST_PIXELS} at the most; "
                    "make it smaller"
                )
            frames = getattr(opened, "n_frames", 1) if opened.format in SEVERAL else 1
            if frames > 1:
                raise InputError(
                    f"{source}: holds {frames} pictures (an animation, or pages); save the one "
                    "that is meant as a file of its own"
                )
            wide = _is_wide(opened)
            opened.load()
            if wide and opened.mode in ("RGB", "RGBA", "LA"):
                return _wide_colors(source, data)
            upright = ImageOps.exif_transpose(opened)
            return pillow_raster(upright, source)
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def _is_wide(opened: PillowImage.Image) -> bool:
    """Whether a file has 16 bits a band, of which Pillow reads colors with 8."""
    tiles: Any = getattr(opened, "tile", ())
    return any(";16" in str(tile[3]) for tile in tiles)


def pillow_raster(picture: PillowImage.Image, source: str = "a picture") -> Image:
    """A Pillow picture of any mode. Raises InputError where it has none of gray or colors."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        values = torch.from_numpy(np.asarray(picture, dtype=np.float32).copy())[None]
        if float(values.min()) < 0 or float(values.max()) > 65535:
            raise InputError(f"{source}: 32-bit grays; save it with 8 or 16 bits")
        return Image(values / WIDE, "L", 16, profile)
    if picture.mode == "F":
        raise InputError(f"{source}: grays with fractions have no scale; save it with 16 bits")
    if picture.mode == "CMYK":
        return Image(from_pillow(_from_inks(picture, profile)), "RGB")
    clear = picture.has_transparency_data
    if picture.mode not in BANDS:
        gray = picture.mode in ("1", "La")
        bands = ("LA" if clear else "L") if gray else "RGBA" if clear else "RGB"
        picture = picture.convert(bands)
    elif clear and not picture.mode.endswith("A"):  # one color stands for clear
        picture = picture.convert("RGBA")
    return Image(from_pillow(picture), picture.mode, 8, profile)


def _from_inks(picture: PillowImage.Image, profile: bytes | None) -> PillowImage.Image:
    """Inks as the colors that their profile says; without one as Pillow takes them."""
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            made = ImageCms.profileToProfile(
                picture, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if made is not None:
                return made
        except ImageCms.PyCMSError:
            pass  # a profile that is not one of inks
    return picture.convert("RGB")


def _wide_colors(source: str, data: bytes) -> Image:
    """16-bit colors, for which Pillow has no mode."""
    vips = libvips(source)
    try:
        found = vips.Image.new_from_buffer(data, "").autorot()
        profile = found.get("icc-profile-data") if found.get_typeof("icc-profile-data") else None
        array = found.numpy()
    except vips.Error as error:
        raise InputError(f"{source}: not a readable picture (damaged)") from error
    values = torch.from_numpy(array.astype("float32") / WIDE).permute(2, 0, 1).contiguous()
    bands = next(name for name, count in BANDS.items() if count == len(values))
    return Image(values, bands, 16, profile)


def libvips(target: str) -> Any:
    """libvips, which knows 16-bit colors. Raises InputError where it is not installed."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise InputError(
            f"{target}: 16-bit colors need libvips; pip install 'gcn-cli[deep]', or use 8 bits"
        ) from error
    return pyvips
