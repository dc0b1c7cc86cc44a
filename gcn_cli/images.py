"""Reading and writing pictures; pixels are float32 (C, H, W) in 0..255.

Models see pixels minus a mean colour, divided by a scale: `PixelScale` goes both ways.
"""

import ctypes
import io
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gcn_cli.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
FLAT = 1e-3  # grey levels of deviation below which a picture has one colour


@dataclass(frozen=True)
class PixelScale:
    """Model value = (pixel - mean) / scale; one mean a channel, 0..255, one scale for all."""

    mean: tuple[float, ...]
    scale: float

    @classmethod
    def fit(
        cls, pictures: Sequence[Tensor], mean: tuple[float, ...] | None, *, unit_deviation: bool
    ) -> "PixelScale":
        """The scale for pictures (C, H, W): mean None takes their own mean colour.

        `unit_deviation` scales to a deviation of 1 about that mean over all pixels and channels,
        else the scale is 1. Raises InputError where the pictures have one colour only.
        """
        count = sum(picture[0].numel() for picture in pictures)
        total = torch.stack([picture.double().sum(dim=(1, 2)) for picture in pictures]).sum(dim=0)
        centred = cls(mean or tuple((total / count).tolist()), 1.0)
        squares = [centred.to_model(picture).double().square().sum() for picture in pictures]
        deviation = math.sqrt(float(torch.stack(squares).sum()) / (count * len(total)))
        if deviation < FLAT:
            raise InputError("the pictures have one colour only; there is nothing to learn")
        return cls(centred.mean, deviation if unit_deviation else 1.0)

    def to_model(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) pixels -> the same in model units."""
        return (pixels - self._column(pixels)) / self.scale

    def to_pixels(self, values: Tensor) -> Tensor:
        """The inverse of `to_model`; not clipped."""
        return values * self.scale + self._column(values)

    def _column(self, like: Tensor) -> Tensor:
        return torch.tensor(self.mean, dtype=like.dtype, device=like.device)[:, None, None]


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Folders become the pictures in them, sorted by name; files and "-" stay.

    Raises InputError for what is not there, and for a folder without pictures.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if source != "-" and not path.exists():
            raise InputError(f"{source}: no such file or folder")
        if source != "-" and path.is_dir():
            inside = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{source}: a folder without pictures ({', '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(source)
    return found


def read(
    source: str,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    shrink: int | None = None,
) -> Tensor:
    """`to_pixels` of a picture file; "-" is standard input.

    Raises InputError for what is not a whole picture.
    """
    return to_pixels(open_picture(source), channels, size, shrink)


def open_picture(source: str) -> Image.Image:
    """A picture file, read whole, turned as its rotation note says; "-" is standard input.

    Raises InputError for what is not a whole picture.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{source}: {error.strerror}") from error
        raise InputError(f"{source}: not a readable picture (damaged or unknown format)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{source}: too many pixels to be a texture; make it smaller") from error


def to_pixels(
    opened: Image.Image,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    shrink: int | None = None,
) -> Tensor:
    """A picture as (channels, H, W) float32 in 0..255.

    Transparency is laid on white, `size` (H, W) resizes with antialiased bicubic, `shrink` makes
    a longer shorter side that long, proportions kept.
    """
    picture = _flatten(opened, "L" if channels == 1 else "RGB")
    shorter = min(picture.size)
    if size is None and shrink is not None and shorter > shrink:
        size = round(picture.height * shrink / shorter), round(picture.width * shrink / shorter)
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float()
    return flat.reshape(picture.height, picture.width, channels).permute(2, 0, 1).contiguous()


def _flatten(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode.startswith("I;16"):  # 16-bit greys: keep the top byte
        picture = picture.point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert(mode)


def to_picture(pixels: Tensor) -> Image.Image:
    """(C, H, W) in 0..255, rounded and clipped, as an 8-bit picture."""
    channels, height, width = pixels.shape
    rounded = pixels.detach().round().clamp(0, 255).to("cpu", torch.uint8)
    data = rounded.permute(1, 2, 0).contiguous()
    raw = ctypes.string_at(data.data_ptr(), data.numel())
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), raw)


def names_file(target: str) -> bool:
    """Whether a name is that of a picture file, by its suffix, and not of a folder ("run.16").

    Raises InputError for a suffix of letters that is no picture format.
    """
    suffix = Path(target).suffix
    if suffix[1:].isalpha():
        return bool(_format(target))
    return _known(suffix) is not None  # such as .jp2


def _known(suffix: str) -> str | None:
    return Image.registered_extensions().get(suffix.lower())


def _format(target: str) -> str:
    kind = "PNG" if target == "-" else _known(Path(target).suffix)
    if kind is None:
        raise InputError(f"{target}: unknown picture format; use a name that ends in .png")
    return kind


def check_format(target: str) -> None:
    """Raise InputError where a file's name is that of no picture format."""
    _format(target)


def write(pixels: Tensor, target: str) -> None:
    """Write a PNG (or the format of the name's suffix) whole or not at all; "-" is stdout."""
    buffer = io.BytesIO()
    to_picture(pixels).save(buffer, format=_format(target))
    if target == "-":
        sys.stdout.buffer.write(buffer.getvalue())
    else:
        write_bytes(Path(target), buffer.getvalue())


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary name, sync, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
