"""Pictures as callers have them: files, Pillow pictures, numpy arrays, torch tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gcn_cli import images
from gcn_cli.errors import InputError

Array = NDArray[np.uint8] | NDArray[np.floating]
Picture = str | Path | Image.Image | Array | Tensor
"""A file's path ("-" is standard input); a Pillow picture; an array (H, W) or (H, W, C) or a tensor
(C, H, W), uint8 or floating point, in 0..255, with 1 or 3 channels."""

Kind = Literal["pillow", "numpy", "torch"]
"""What pictures come back as: 8-bit Pillow pictures; arrays (H, W, C) of uint8; tensors (C, H, W)
of float32, neither rounded nor cut to 0..255."""


def open_once(picture: Picture) -> Picture:
    """A picture that can be read again: a file's is opened (standard input has it only once)."""
    if isinstance(picture, str | Path):
        return images.open_picture(str(picture))
    return picture


def to_pixels(
    picture: Picture,
    channels: int,
    size: tuple[int, int] | None = None,
    shrink: int | None = None,
) -> Tensor:
    """Any picture as (channels, H, W) float32 in 0..255, fitted as `images.to_pixels` does.

    Arrays and tensors that need no fitting keep their fractions; else they are rounded to 8 bits.
    Raises InputError for what is no picture.
    """
    opened = open_once(picture)
    if isinstance(opened, Image.Image):
        return images.to_pixels(opened, channels, size, shrink)
    assert not isinstance(opened, str | Path)
    values = _planes(opened)
    shorter = min(values.shape[1:])
    fits = size in (None, values.shape[1:]) and (size or shrink is None or shorter <= shrink)
    if values.shape[0] == channels and fits:
        return values
    return images.to_pixels(images.to_picture(values), channels, size, shrink)


def _planes(values: Array | Tensor) -> Tensor:
    """(C, H, W) float32 of an array or a tensor."""
    if isinstance(values, Tensor):
        planes = values.detach().float().cpu()
    else:
        planes = torch.from_numpy(np.asarray(values, dtype=np.float32))
        planes = planes[None] if planes.ndim == 2 else planes.movedim(-1, 0)
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape:
        raise InputError(
            f"a picture of shape {tuple(values.shape)}: arrays are (H, W) or (H, W, C), tensors "
            "(C, H, W), with 1 or 3 channels"
        )
    if not bool(torch.isfinite(planes).all()):
        raise InputError("a picture with values that are no finite numbers")
    return planes.contiguous()


def kind_of(picture: Picture) -> Kind:
    """The kind to answer with: of a file, a Pillow picture."""
    if isinstance(picture, Tensor):
        return "torch"
    return "pillow" if isinstance(picture, str | Path | Image.Image) else "numpy"


def as_kind(pixels: Tensor, kind: Kind) -> Image.Image | NDArray[np.uint8] | Tensor:
    """(C, H, W) in 0..255 as the kind asked for. Raises InputError for another word."""
    if kind == "torch":
        return pixels
    if kind not in ("pillow", "numpy"):
        raise InputError(f"kind {kind}: must be pillow, numpy or torch")
    picture = images.to_picture(pixels)
    if kind == "pillow":
        return picture
    array: NDArray[np.uint8] = np.asarray(picture)
    return array if array.ndim == 3 else array[:, :, None]


def as_list(pictures: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture, or several; a folder's path stands for the pictures in it."""
    several: Sequence[Picture] = (
        pictures if isinstance(pictures, Sequence) and not isinstance(pictures, str) else [pictures]
    )
    found: list[Picture] = []
    for picture in several:
        is_path = isinstance(picture, str | Path)
        found += images.expand_sources([str(picture)]) if is_path else [picture]
    if not found:
        raise InputError("no pictures: give one or more to learn from")
    return found


def mask_of(picture: Picture, mask: Picture, pixels: Tensor) -> Tensor:
    """Where a picture is to be made anew, (H, W) bool: where `mask` is more white than black.

    The word "alpha" takes what is more clear than not in the picture itself. Raises InputError for
    a mask of another size than `pixels` (C, H, W), or a picture without transparency.
    """
    size = (pixels.shape[1], pixels.shape[2])
    if isinstance(mask, str) and mask == "alpha":
        if not isinstance(picture, Image.Image) or not picture.has_transparency_data:
            raise InputError("--mask alpha: the picture has no transparency; name a mask picture")
        clear = to_pixels(picture.convert("RGBA").getchannel("A"), 1)
        return clear[0] < 128
    white = to_pixels(mask, 1)
    if tuple(white.shape[1:]) != size:
        found, wanted = (f"{w}x{h}" for h, w in (white.shape[1:], size))
        raise InputError(f"--mask: is {found}, the picture {wanted}; make both one size")
    return white[0] >= 128
