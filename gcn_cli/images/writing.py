"""Image files written whole or not at all, and sheets of several images."""

import io
import os
import secrets
import sys
from pathlib import Path

from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli.errors import InputError, TakenError
from gcn_cli.images.image import Image, mode_of, to_integers, to_pillow
from gcn_cli.images.reading import libvips

MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels
PNG_COMPRESSION = 3  # zlib level: a 8192x8192 image in less time than at level 6, 12 % more bytes


def is_image_file(target: str) -> bool:
    """Whether a name ends in the suffix of an image format; "run.16" names a folder.

    Raises InputError for an unknown suffix of letters only.
    """
    suffix = Path(target).suffix
    if suffix[1:].isalpha():
        return bool(_format(target))
    return suffix.lower() in PillowImage.registered_extensions()  # such as .jp2


def _format(target: str) -> str:
    suffix = ".png" if target == "-" else Path(target).suffix
    name = PillowImage.registered_extensions().get(suffix.lower())
    if name is None:
        raise InputError(f"{target}: unknown image format; use a name that ends in .png")
    return name


def check_format(target: str, size: tuple[int, int] = (1, 1)) -> None:
    """Raise InputError if the format is unknown, or too small for `size` (height, width)."""
    limit = MAX_SIDE.get(_format(target))
    if limit is not None and max(size) > limit:
        raise InputError(
            f"{target}: {size[1]}x{size[0]} pixels, the format allows {limit} a side; use .png"
        )


def write(
    pixels: Tensor,
    target: str,
    bit_depth: int = 8,
    icc_profile: bytes | None = None,
    *,
    new: bool = False,
) -> None:
    """Write pixels (C, H, W) in 0..255 to a file whose suffix gives the format.

    target: "-" writes a PNG to stdout. bit_depth: 16 falls back to 8 where the format has no 16
    bits. Without alpha in the format, colors are composited on white. new: do not replace a file.
    Raises InputError if 16-bit colors need libvips, TakenError if a new file exists already.
    """
    data = _encode(pixels, target, bit_depth, icc_profile)
    if target == "-":
        sys.stdout.buffer.write(data)
    else:
        write_bytes(Path(target), data, new=new)


def _encode(pixels: Tensor, target: str, bit_depth: int, icc_profile: bytes | None) -> bytes:
    image_format = _format(target)
    if bit_depth == 16 and image_format in ("PNG", "TIFF"):
        array = to_integers(pixels, 16)
        if len(pixels) > 1:  # Pillow has no 16-bit colors
            vips = libvips(target)
            space = "grey16" if len(pixels) == 2 else "rgb16"
            wide = vips.Image.new_from_array(array).copy(interpretation=space)
            if icc_profile is not None:
                wide.set_type(vips.GValue.blob_type, "icc-profile-data", icc_profile)
            return bytes(wide.write_to_buffer(".png" if image_format == "PNG" else ".tif"))
        image = PillowImage.fromarray(array[:, :, 0])
    else:
        if len(pixels) in (2, 4) and image_format not in ("PNG", "TIFF", "WEBP"):
            mode = mode_of(len(pixels))
            pixels = Image(pixels, mode).to_mode(mode[:-1])
        image = to_pillow(pixels)
    options = {"compress_level": PNG_COMPRESSION} if image_format == "PNG" else {}
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, icc_profile=icc_profile, **options)
    return buffer.getvalue()


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file whole or not at all, by way of a temporary file that is synced and renamed.

    With `new`, raises TakenError if the file exists at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
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
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write to a full disk does not name its file
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
