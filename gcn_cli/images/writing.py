"""Image files written whole or not at all, what each format holds, and sheets of several images."""

import io
import os
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli.errors import InputError, TakenError
from gcn_cli.images import provenance
from gcn_cli.images.color import libvips
from gcn_cli.images.image import TextureMap, mode_of, to_integers, to_pillow

ALL_MODES = ("L", "LA", "RGB", "RGBA")


@dataclass(frozen=True)
class FileFormat:
    """What the files of a format hold, and how Pillow writes them."""

    pillow: str  # its name in Pillow
    color: bool = True
    alpha: bool = True
    gray: bool = True  # False: grays are written as colors
    deep_modes: tuple[str, ...] = ()  # modes that are written with 16 bits a channel
    profile: bool = False  # an ICC profile
    exact: bool = True  # False: lossy
    takes_quality: bool = False
    max_side: int | None = None  # pixels
    max_bytes: int | None = None  # of the pixels
    options: Mapping[str, Any] = field(default_factory=dict)  # of Pillow


# A zlib level of 3 writes 8192x8192 pixels in less time than level 6, with 12 % more bytes. A WebP
# "quality" of 20 is the effort of lossless files: a third of the time of 80, with 14 % more bytes.
_PNG = FileFormat("PNG", deep_modes=ALL_MODES, profile=True, options={"compress_level": 3})
_TIFF = FileFormat("TIFF", deep_modes=ALL_MODES, profile=True, max_bytes=4_290_000_000)
_WEBP = FileFormat(
    "WEBP",
    gray=False,
    profile=True,
    takes_quality=True,
    max_side=16383,
    options={"lossless": True, "exact": True, "quality": 20, "method": 2},
)
_FINE = {"quality": 95, "subsampling": "4:4:4"}
_JPEG = FileFormat(
    "JPEG",
    alpha=False,
    profile=True,
    exact=False,
    takes_quality=True,
    max_side=65500,
    options=_FINE,
)
_AVIF = FileFormat(
    "AVIF", gray=False, profile=True, exact=False, takes_quality=True, max_side=32768, options=_FINE
)
_WITH_DPI = (_PNG, _TIFF, _JPEG)
_PPM = FileFormat("PPM", alpha=False, deep_modes=("L",))
FORMATS = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".avif": _AVIF,
    ".jp2": FileFormat("JPEG2000", deep_modes=("L",)),
    ".tga": FileFormat("TGA", max_side=65535),
    ".dds": FileFormat("DDS"),
    ".bmp": FileFormat("BMP", alpha=False, max_bytes=4_290_000_000),
    ".ppm": _PPM,
    ".pgm": FileFormat("PPM", color=False, alpha=False, deep_modes=("L",)),
    ".qoi": FileFormat("QOI", gray=False),
}
"""The formats that are written, by suffix; the help and docs/guarantees.md list them."""


def is_image_file(target: str) -> bool:
    """Whether a name ends in the suffix of an image format; "run.16" and "a.png/" name folders.

    Raises InputError for another suffix of letters only, and of a format that is not written.
    """
    suffix = "" if target.endswith("/") else Path(target).suffix.lower()
    if suffix[1:].isalpha() or suffix in PillowImage.registered_extensions():  # such as .jp2
        return bool(_format(target))
    return False


def _format(target: str) -> FileFormat:
    suffix = ".png" if target == "-" else Path(target).suffix.lower()
    file_format = FORMATS.get(suffix)
    if file_format is None:
        raise InputError(
            f"{target}: unknown image format, or one that gcn does not write; use one of "
            f"{', '.join(FORMATS)}"
        )
    PillowImage.init()
    if file_format.pillow not in PillowImage.SAVE:
        raise InputError(f"{target}: the installed Pillow writes no {suffix}; use .png")
    return file_format


def check_format(
    target: str, size: tuple[int, int] = (1, 1), texture_map: TextureMap | None = None
) -> None:
    """Raise InputError if a file cannot hold an image of `size` (height, width), or a map.

    The map's color and alpha must fit. Depth, profile and exact values may get lost: see `losses`.
    """
    file_format = _format(target)
    limit = file_format.max_side
    if limit is not None and max(size) > limit:
        raise InputError(
            f"{target}: {size[1]}x{size[0]} pixels, the format allows {limit} a side; use .png"
        )
    if texture_map is None:
        return
    deep = texture_map.bit_depth == 16 and texture_map.mode in file_format.deep_modes
    count, most = size[0] * size[1] * texture_map.channels * (1 + deep), file_format.max_bytes
    if most is not None and count > most:
        raise InputError(
            f"{target}: {size[1]}x{size[0]} pixels take {count / 2**30:.1f} GiB, the format holds "
            "4 GiB; use .png"
        )
    if texture_map.mode.endswith("A") and not file_format.alpha:
        raise InputError(
            f"{target}: the image has transparency, which this format does not hold; use .png, "
            ".tif or .webp"
        )
    if texture_map.mode.startswith("RGB") and not file_format.color:
        raise InputError(f"{target}: the image has colors, this format holds grays; use .ppm")
    if _has_deep_colors(file_format, texture_map.mode, texture_map.bit_depth):
        libvips(target)


def _has_deep_colors(file_format: FileFormat, mode: str, bit_depth: int) -> bool:
    """Whether 16-bit colors are written, for which Pillow has no mode."""
    return bit_depth == 16 and mode != "L" and mode in file_format.deep_modes


def losses(target: str, texture_map: TextureMap, quality: int | None = None) -> list[str]:
    """What a file does not keep of a map, in words."""
    file_format, lost = _format(target), []
    if texture_map.bit_depth == 16 and texture_map.mode not in file_format.deep_modes:
        lost.append("16 bits a channel")
    lossy = not file_format.exact or (file_format.takes_quality and quality is not None)
    if lossy and (texture_map.normals or texture_map.bit_depth == 16):
        lost.append("exact normals" if texture_map.normals else "exact values")
    if texture_map.icc_profile is not None and not file_format.profile:
        lost.append("the color profile")
    if texture_map.dpi is not None and file_format not in _WITH_DPI:
        lost.append("the pixels per inch")
    return lost


def takes_quality(target: str) -> bool:
    """Whether --quality says how a file is compressed."""
    return _format(target).takes_quality


def own_bit_depth(channels: int, bit_depth: int) -> int:
    """The bit depth of the PNG files that runs keep: 8 for 16-bit colors without libvips."""
    try:
        check_format("-", texture_map=TextureMap(mode=mode_of(channels), bit_depth=bit_depth))
    except InputError:
        return 8
    return 16 if bit_depth == 16 else 8


def write(
    pixels: Tensor,
    target: str,
    bit_depth: int = 8,
    icc_profile: bytes | None = None,
    *,
    new: bool = False,
    quality: int | None = None,
    dpi: float | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write pixels (C, H, W) in 0..255 to a file whose suffix gives the format.

    target: "-" writes a PNG to stdout. bit_depth: 16 falls back to 8 where the format has no 16
    bits. quality: 1 to 100, of formats that take it. dpi: pixels per inch, of PNG, TIFF and JPEG.
    record: how the image was made (`images.provenance`), where the format holds it. new: do not
    replace a file. Raises InputError if the format cannot hold the image, or 16-bit colors need
    libvips, TakenError if a new file exists already.
    """
    data = _encode(pixels, target, bit_depth, icc_profile, quality, dpi, record)
    if target == "-":
        sys.stdout.buffer.write(data)
    else:
        write_bytes(Path(target), data, new=new)


def _encode(
    pixels: Tensor,
    target: str,
    bit_depth: int,
    icc_profile: bytes | None,
    quality: int | None,
    dpi: float | None,
    record: Mapping[str, Any] | None,
) -> bytes:
    file_format, mode = _format(target), mode_of(len(pixels))
    check_format(target, (1, 1), TextureMap(mode=mode, bit_depth=bit_depth))
    if _has_deep_colors(file_format, mode, bit_depth):
        vips, array = libvips(target), to_integers(pixels, 16)
        if mode == "LA" and file_format is _TIFF:  # which few programs read
            array, mode = array[:, :, [0, 0, 0, 1]], "RGBA"
        space = "grey16" if mode == "LA" else "rgb16"
        wide = vips.Image.new_from_array(array).copy(interpretation=space)
        if icc_profile is not None:
            wide.set_type(vips.GValue.blob_type, "icc-profile-data", icc_profile)
        if dpi is not None:
            wide = wide.copy(xres=dpi / 25.4, yres=dpi / 25.4)
        if record is not None:
            for name, text in provenance.vips_fields(record).items():
                wide.set_type(vips.GValue.gstr_type, name, text)
        return bytes(wide.write_to_buffer(".png" if file_format.pillow == "PNG" else ".tif"))
    if bit_depth == 16 and mode in file_format.deep_modes:
        image = PillowImage.fromarray(to_integers(pixels, 16)[:, :, 0])
    else:
        image = to_pillow(pixels)
        if not file_format.gray and mode.startswith("L"):
            image = image.convert(mode.replace("L", "RGB"))
    options = dict(file_format.options)
    if quality is not None and file_format.takes_quality:
        options |= {"quality": quality}
        options.pop("lossless", None)
    if dpi is not None and file_format in _WITH_DPI:
        options["dpi"] = (dpi, dpi)
    if record is not None:
        options |= provenance.save_options(file_format.pillow, record)
    buffer = io.BytesIO()
    image.save(buffer, format=file_format.pillow, icc_profile=icc_profile, **options)
    return buffer.getvalue()


def write_animation(
    frames: Iterable[Tensor],
    target: str,
    milliseconds: int,
    icc_profile: bytes | None = None,
    *,
    new: bool,
    quality: int,
    record: Mapping[str, Any],
) -> None:
    """Write images (C, H, W) in 0..255 as a WebP that shows each for a time, over and over.

    quality, new and record: as for `write`.
    """
    options = provenance.save_options("WEBP", record)
    first, *others = map(to_pillow, frames)
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=milliseconds,
        loop=0,  # for ever
        quality=quality,
        icc_profile=icc_profile,
        **options,
    )
    write_bytes(Path(target), buffer.getvalue(), new=new)


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file whole or not at all, by way of a temporary file that is synced and renamed.

    A symbolic link stays, and the file that it names is written. With `new`, raises TakenError if
    the file, or a link of this name, exists at the end.
    """
    if path.is_symlink() and not new:
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: that of the file may have the length that the file system allows.
    temporary = path.with_name(f".gcn-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _claim(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)  # not the temporary file, or none as on a full disk
        raise


def _claim(temporary: Path, path: Path) -> None:
    """Rename a file atomically to a free name. Raises TakenError if the name is taken."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, such as FAT
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                os.replace(temporary, path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise TakenError(
            f"{path}: another job wrote it meanwhile; it is kept, name another file, or add "
            "--overwrite"
        ) from error
    temporary.unlink(missing_ok=True)


def grid(pixels: Tensor, columns: int | None = None) -> Tensor:
    """Images (N, C, H, W) in rows on white: one image (C, H', W'); by default about square."""
    count, channels, height, width = pixels.shape
    columns = columns or round(count**0.5) or 1
    rows = -(-count // columns)
    step_y, step_x = height + 2, width + 2
    sheet = pixels.new_full((channels, rows * step_y - 2, columns * step_x - 2), 255.0)
    for index, image in enumerate(pixels):
        top, left = index // columns * step_y, index % columns * step_x
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def sheet_map(maps: Sequence[TextureMap]) -> TextureMap:
    """What `side_by_side` makes of maps: the map itself, or colors of the greatest bit depth."""
    if len(maps) == 1:
        return maps[0]
    depth = max(texture_map.bit_depth for texture_map in maps)
    profile = maps[0].icc_profile if maps[0].mode.startswith("RGB") else None
    return TextureMap("", "RGB", depth, icc_profile=profile)
