"""PNG files written row by row: pictures for which there is no room in memory twice.

Pillow and libvips want a picture whole, in their own memory. The format (ISO/IEC 15948) is rows of
big-endian numbers, each less the row above ("up"), through zlib, in chunks with a checksum.

Pixels (C, H, W) in 0..255 into picture files, whole or not at all.
"""

import io
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli.errors import GcnError, InputError
from gcn_cli.images.image import Image, as_pillow
from gcn_cli.images.reading import WIDE, libvips

PNG_COLOR_TYPES = {
    1: 0,
    2: 4,
    3: 2,
    4: 6,
}  # bands: gray, gray and alpha, colors, colors and alpha
ROWS_AT_ONCE = 64  # that are encoded at a time
UP_FILTER = 2  # the filter


def write_png(file: BinaryIO, pixels: Tensor, depth: int, profile: bytes | None) -> None:
    """(C, H, W) in 0..255, rounded and clipped to `depth` bits (8 or 16), 1 to 4 bands."""
    bands, height, width = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(
        file,
        b"IHDR",
        struct.pack(">IIBBBBB", width, height, depth, PNG_COLOR_TYPES[bands], 0, 0, 0),
    )
    if profile is not None:
        _chunk(file, b"iCCP", b"profile\0\0" + zlib.compress(profile))
    packer = zlib.compressobj(4)
    for raw in _filtered(pixels, depth):
        packed = packer.compress(raw)
        if packed:
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(pixels: Tensor, depth: int) -> Iterator[bytes]:
    """Some rows at a time, every one with its filter's number and less the one above."""
    scale, kind = (WIDE, ">u2") if depth == 16 else (1.0, "u1")
    width = pixels.shape[0] * pixels.shape[2] * depth // 8
    above = np.zeros((1, width), dtype=np.uint8)
    for first in range(0, pixels.shape[1], ROWS_AT_ONCE):
        part = pixels[:, first : first + ROWS_AT_ONCE].to("cpu", torch.float64) * scale
        whole = part.round().clamp(0, 2**depth - 1).permute(1, 2, 0).contiguous()
        rows = whole.numpy().astype(kind).view(np.uint8).reshape(len(whole), width)
        made = np.full((len(rows), width + 1), UP_FILTER, dtype=np.uint8)
        made[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        yield made.tobytes()


IN_STRIPS = 2**26  # numbers of a picture from which on a PNG is written row by row
LONGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels a side
DEEP = ("PNG", "TIFF")  # formats with 16 bits a band
CLEAR = ("PNG", "TIFF", "WEBP")  # formats with transparency


class TakenError(GcnError):
    """A name that another job has given to a file of its own, meanwhile."""


def to_picture(pixels: Tensor, profile: bytes | None = None) -> PillowImage.Image:
    """(C, H, W) in 0..255, rounded and clipped, as an 8-bit picture; 1 to 4 bands."""
    picture = as_pillow(pixels)
    if profile is not None:
        picture.info["icc_profile"] = profile
    return picture


def names_file(target: str) -> bool:
    """Whether a name is that of a picture file, by its suffix, and not of a folder ("run.16").

    Raises InputError for a suffix of letters that is no picture format.
    """
    suffix = Path(target).suffix
    if suffix[1:].isalpha():
        return bool(_format(target))
    return _known(suffix) is not None  # such as .jp2


def _known(suffix: str) -> str | None:
    return PillowImage.registered_extensions().get(suffix.lower())


def _format(target: str) -> str:
    kind = "PNG" if target == "-" else _known(Path(target).suffix)
    if kind is None:
        raise InputError(f"{target}: unknown picture format; use a name that ends in .png")
    return kind


def check_format(target: str, size: tuple[int, int] = (1, 1)) -> None:
    """Raise InputError where a name is that of no picture format, or `size` (H, W) is too large."""
    longest = LONGEST.get(_format(target))
    if longest is not None and max(size) > longest:
        raise InputError(
            f"{target}: {size[1]}x{size[0]} pixels, the format holds {longest} a side; use .png"
        )


def write(
    pixels: Tensor,
    target: str,
    depth: int = 8,
    profile: bytes | None = None,
    *,
    new: bool = False,
) -> None:
    """Write (C, H, W) in 0..255 whole or not at all, as a PNG or the format of the name's suffix.

    "-" is stdout. 16 bits and transparency are kept where the format has them. A `new` file
    replaces none. Raises InputError where 16-bit colors lack their library, TakenError where a
    new file's name is another's.
    """
    kind = _format(target)
    if kind == "PNG" and target != "-" and pixels.numel() > IN_STRIPS:
        with replacing(Path(target), new=new) as file:
            write_png(file, pixels, depth, profile)
        return
    data = (
        _encoded_16_bit(pixels, target, kind, profile)
        if depth == 16 and kind in DEEP
        else _encoded(pixels, kind, profile)
    )
    if target == "-":
        sys.stdout.buffer.write(data)
    else:
        write_bytes(Path(target), data, new=new)


def _encoded(pixels: Tensor, kind: str, profile: bytes | None) -> bytes:
    """8 bits a band."""
    opaque = len(pixels) in (2, 4) and kind not in CLEAR
    shown = (
        Image(pixels, "LA" if len(pixels) == 2 else "RGBA").to_bands(
            "L" if len(pixels) == 2 else "RGB"
        )
        if opaque
        else pixels
    )
    buffer = io.BytesIO()
    as_pillow(shown).save(buffer, format=kind, icc_profile=profile)
    return buffer.getvalue()


def _encoded_16_bit(pixels: Tensor, target: str, kind: str, profile: bytes | None) -> bytes:
    """16 bits a band: grays by Pillow, colors by libvips."""
    rounded = (pixels.double() * WIDE).round().clamp(0, 65535).to(torch.int32).cpu()
    if len(pixels) == 1:
        array = rounded[0].numpy().astype("uint16")
        buffer = io.BytesIO()
        PillowImage.fromarray(array).save(buffer, format=kind, icc_profile=profile)
        return buffer.getvalue()
    vips = libvips(target)
    array = rounded.permute(1, 2, 0).contiguous().numpy().astype("uint16")
    space = "grey16" if len(pixels) == 2 else "rgb16"
    picture = vips.Image.new_from_array(array).copy(interpretation=space)
    if profile is not None:
        picture.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    made: bytes = picture.write_to_buffer(".png" if kind == "PNG" else ".tif")
    return made


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file whole or not at all. Raises TakenError where a `new` one's name is another's."""
    with replacing(path, new=new) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """Write to a temporary name, sync, rename: a reader sees the old file or the new one.

    A `new` file replaces none: raises TakenError where there is one at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if new:
            _claim(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say where it is
        raise


def _claim(temporary: str, path: Path) -> None:
    """Rename a file to a name that no file has, at once. Raises TakenError where one has it."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, as that of a memory card
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
    Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def grid(pixels: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) side by side on white: one (C, rows, columns) picture."""
    count, channels, height, width = pixels.shape
    columns = columns or round(count**0.5) or 1
    rows = -(-count // columns)
    sheet = pixels.new_full(
        (channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255.0
    )
    for number, image in enumerate(pixels):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet
