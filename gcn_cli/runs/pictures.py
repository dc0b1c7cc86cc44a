"""Pictures as callers have them: files, Pillow pictures, numpy arrays, torch tensors."""

from collections import Counter
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
from gcn_cli.images import BANDS, Map, Raster
from gcn_cli.images.reading import WIDE, pillow_raster

Array = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.floating]
Picture = str | Path | Image.Image | Array | Tensor | Raster
"""A file's path ("-" is standard input); a Pillow picture; an array (H, W) or (H, W, C) or a tensor
(C, H, W), uint8 or floating point in 0..255 or uint16 in 0..65535, with 1 to 4 bands."""

Linked = Picture | Sequence[Picture]
"""A picture, or one for each of a model's linked maps; a tensor may have the channels of all."""

Kind = Literal["pillow", "numpy", "torch"]
"""What pictures come back as: 8-bit Pillow pictures; arrays (H, W, C) of uint8; tensors (C, H, W)
of float32, neither rounded nor cut to 0..255."""


def open_once(picture: Picture) -> Raster:
    """A picture of any kind in memory (standard input can be read once only).

    Raises InputError for what is no picture.
    """
    if isinstance(picture, Raster):
        return picture
    if isinstance(picture, str | Path):
        return images.open_picture(str(picture))
    if isinstance(picture, Image.Image):
        return pillow_raster(picture)
    values, depth = _planes(picture)
    bands = next((name for name, count in BANDS.items() if count == len(values)), None)
    if bands is None:
        raise InputError(
            f"a picture of shape {tuple(picture.shape)}: arrays are (H, W) or (H, W, C), tensors "
            "(C, H, W), with 1 to 4 bands"
        )
    return Raster(values, bands, depth)


def to_pixels(
    picture: Linked,
    maps: Sequence[Map],
    size: tuple[int, int] | None = None,
    shrink: int | None = None,
) -> Tensor:
    """Any picture as a model of `maps` sees it: (channels, H, W) float32 in 0..255.

    `size` (H, W) resizes, `shrink` makes a longer shorter side that long. Raises InputError where
    linked maps lack a picture or differ in size.
    """
    whole = sum(one.channels for one in maps)
    if isinstance(picture, Tensor) and len(picture) == whole and size is None and shrink is None:
        return _planes(picture)[0]
    parts = several(picture)
    if len(parts) != len(maps):
        names = ", ".join(one.name or "a picture" for one in maps)
        raise InputError(f"{len(parts)} picture(s) for a model of {names}; give each (--with)")
    rasters = [fitted(open_once(part), size, shrink) for part in parts]
    check_same_size(rasters, [one.name for one in maps])
    bands = [raster.to_bands(one.bands) for raster, one in zip(rasters, maps, strict=True)]
    return torch.cat(bands) if len(bands) > 1 else bands[0]


def several(picture: Linked) -> list[Picture]:
    """One picture, or those of linked maps."""
    if isinstance(picture, Sequence) and not isinstance(picture, str):
        return list(picture)
    return [picture]


def fitted(raster: Raster, size: tuple[int, int] | None, shrink: int | None) -> Raster:
    """At `size` (H, W), or with a shorter side of `shrink` at the most."""
    return raster.resized(size) if size is not None else raster.shrunk(shrink)


def check_same_size(rasters: Sequence[Raster], names: Sequence[str]) -> None:
    """Raise InputError where linked maps differ in size."""
    for raster, name in zip(rasters, names, strict=True):
        if raster.size != rasters[0].size:
            (height, width), (up, across) = raster.size, rasters[0].size
            raise InputError(
                f"{name}: is {width}x{height}, {names[0]} {across}x{up}; linked maps need one size"
            )


def _planes(values: Array | Tensor) -> tuple[Tensor, int]:
    """(C, H, W) float32 in 0..255 of an array or a tensor, and bits a band (32 for fractions)."""
    if isinstance(values, Tensor):
        narrow, wide = values.dtype == torch.uint8, values.dtype == torch.uint16
        planes = values.detach().float().cpu()
    else:
        narrow, wide = values.dtype == np.uint8, values.dtype == np.uint16
        planes = torch.from_numpy(np.asarray(values, dtype=np.float32))
        planes = planes[None] if planes.ndim == 2 else planes.movedim(-1, 0)
    if planes.ndim != 3 or 0 in planes.shape:
        raise InputError(
            f"a picture of shape {tuple(values.shape)}: arrays are (H, W) or (H, W, C), tensors "
            "(C, H, W), with 1 to 4 bands"
        )
    if not bool(torch.isfinite(planes).all()):
        raise InputError("a picture with values that are no finite numbers")
    planes = planes / WIDE if wide else planes
    whole = narrow or (not wide and bool((planes == planes.round().clamp(0, 255)).all()))
    return planes.contiguous(), 16 if wide else 8 if whole else 32


def kind_of(picture: Linked) -> Kind:
    """The kind to answer with: of a file, a Pillow picture; of linked maps, one tensor."""
    if isinstance(picture, str | Path | Image.Image | Raster):
        return "pillow"
    return "numpy" if isinstance(picture, np.ndarray) else "torch"


def as_kind(pixels: Tensor, kind: Kind) -> Image.Image | NDArray[np.uint8] | Tensor:
    """(C, H, W) in 0..255 as the kind asked for.

    Raises InputError for another word, and for linked maps, which are no one picture.
    """
    if kind == "torch":
        return pixels
    if kind not in ("pillow", "numpy"):
        raise InputError(f"kind {kind}: must be pillow, numpy or torch")
    if len(pixels) > max(BANDS.values()):
        raise InputError(f"kind {kind}: linked maps come as one tensor; use torch and Model.split")
    picture = images.to_picture(pixels)
    if kind == "pillow":
        return picture
    array: NDArray[np.uint8] = np.asarray(picture)
    return array if array.ndim == 3 else array[:, :, None]


def as_list(pictures: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture, or several; a folder's path stands for the pictures in it."""
    found: list[Picture] = []
    for picture in several(pictures):
        is_path = isinstance(picture, str | Path)
        found += images.expand_sources([str(picture)]) if is_path else [picture]
    if not found:
        raise InputError("no pictures: give one or more to learn from")
    names = Counter(picture for picture in found if isinstance(picture, str))
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: given twice; name each picture once")
    return found


def white_of(mask: Picture, size: tuple[int, int]) -> Tensor:
    """Where a mask is more white than black, (H, W) bool.

    Raises InputError for a mask of another size than `size` (H, W).
    """
    white = open_once(mask).to_bands("L")
    if tuple(white.shape[1:]) != size:
        found, wanted = (f"{w}x{h}" for h, w in (white.shape[1:], size))
        raise InputError(f"--mask: is {found}, the picture {wanted}; make both one size")
    return white[0] >= 128


def mask_of(picture: Raster, mask: Picture) -> Tensor:
    """Where a picture is to be made anew, (H, W) bool: where `mask` is more white than black.

    The word "alpha" takes what is more clear than not in the picture itself. Raises InputError for
    a mask of another size, or a picture without transparency.
    """
    if not (isinstance(mask, str) and mask == "alpha"):
        return white_of(mask, picture.size)
    if not picture.bands.endswith("A"):
        raise InputError("--mask alpha: the picture has no transparency; name a mask picture")
    return picture.values[-1] < 128
