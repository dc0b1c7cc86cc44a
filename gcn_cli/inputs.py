"""Pictures as callers have them: files, Pillow pictures, numpy arrays, torch tensors.

What a training is shown: pictures, linked maps and masks, as the channels of a model.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images import BANDS, Image, TextureMap
from gcn_cli.images.image import holds_normals
from gcn_cli.images.reading import WIDE, pillow_raster
from gcn_cli.training.data import free_positions

log = logging.getLogger(__name__)

Array = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.floating]
ImageLike = str | Path | PillowImage.Image | Array | Tensor | Image
"""A file's path ("-" is standard input); a Pillow picture; an array (H, W) or (H, W, C) or a tensor
(C, H, W), uint8 or floating point in 0..255 or uint16 in 0..65535, with 1 to 4 bands."""

LinkedImages = ImageLike | Sequence[ImageLike]
"""A picture, or one for each of a model's linked maps; a tensor may have the channels of all."""

OutputKind = Literal["pillow", "numpy", "torch"]
"""What pictures come back as: 8-bit Pillow pictures; arrays (H, W, C) of uint8; tensors (C, H, W)
of float32, neither rounded nor cut to 0..255."""


def open_image(picture: ImageLike) -> Image:
    """A picture of any kind in memory (standard input can be read once only).

    Raises InputError for what is no picture.
    """
    if isinstance(picture, Image):
        return picture
    if isinstance(picture, str | Path):
        return images.open_picture(str(picture))
    if isinstance(picture, PillowImage.Image):
        return pillow_raster(picture)
    values, depth = _planes(picture)
    bands = next((name for name, count in BANDS.items() if count == len(values)), None)
    if bands is None:
        raise InputError(
            f"a picture of shape {tuple(picture.shape)}: arrays are (H, W) or (H, W, C), tensors "
            "(C, H, W), with 1 to 4 bands"
        )
    return Image(values, bands, depth)


def to_pixels(
    picture: LinkedImages,
    maps: Sequence[TextureMap],
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
    rasters = [fitted(open_image(part), size, shrink) for part in parts]
    check_same_size(rasters, [one.name for one in maps])
    bands = [raster.to_bands(one.bands) for raster, one in zip(rasters, maps, strict=True)]
    return torch.cat(bands) if len(bands) > 1 else bands[0]


def several(picture: LinkedImages) -> list[ImageLike]:
    """One picture, or those of linked maps."""
    if isinstance(picture, Sequence) and not isinstance(picture, str):
        return list(picture)
    return [picture]


def fitted(raster: Image, size: tuple[int, int] | None, shrink: int | None) -> Image:
    """At `size` (H, W), or with a shorter side of `shrink` at the most."""
    return raster.resized(size) if size is not None else raster.shrunk(shrink)


def check_same_size(rasters: Sequence[Image], names: Sequence[str]) -> None:
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


def kind_of(picture: LinkedImages) -> OutputKind:
    """The kind to answer with: of a file, a Pillow picture; of linked maps, one tensor."""
    if isinstance(picture, str | Path | PillowImage.Image | Image):
        return "pillow"
    return "numpy" if isinstance(picture, np.ndarray) else "torch"


def as_kind(pixels: Tensor, kind: OutputKind) -> PillowImage.Image | NDArray[np.uint8] | Tensor:
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


def as_list(pictures: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One picture, or several; a folder's path stands for the pictures in it."""
    found: list[ImageLike] = []
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


def mask_pixels(mask: ImageLike, size: tuple[int, int]) -> Tensor:
    """Where a mask is more white than black, (H, W) bool.

    Raises InputError for a mask of another size than `size` (H, W).
    """
    white = open_image(mask).to_bands("L")
    if tuple(white.shape[1:]) != size:
        found, wanted = (f"{w}x{h}" for h, w in (white.shape[1:], size))
        raise InputError(f"--mask: is {found}, the picture {wanted}; make both one size")
    return white[0] >= 128


def repair_mask(picture: Image, mask: ImageLike) -> Tensor:
    """Where a picture is to be made anew, (H, W) bool: where `mask` is more white than black.

    The word "alpha" takes what is more clear than not in the picture itself. Raises InputError for
    a mask of another size, or a picture without transparency.
    """
    if not (isinstance(mask, str) and mask == "alpha"):
        return mask_pixels(mask, picture.size)
    if not picture.bands.endswith("A"):
        raise InputError("--mask alpha: the picture has no transparency; name a mask picture")
    return picture.values[-1] < 128


Alpha = Literal["auto", "mask", "channel", "drop"]
"""What transparency means: unknown pixels, a channel like a color, nothing (laid on white)."""

FREE_SHARE = 0.05  # of the places of a crop that show nothing clear: from here clear is a hole


@dataclass(frozen=True)
class TrainingImages:
    """Pictures (C, H, W) in 0..255, NaN where nothing is known, and what their channels are."""

    pictures: list[Tensor]
    maps: tuple[TextureMap, ...]


def load_training_images(
    pictures: Sequence[ImageLike],
    *,
    linked: Sequence[ImageLike] = (),
    mask: ImageLike | None = None,
    alpha: Alpha = "auto",
    channels: int | None = None,
    size: int | None = None,
    shrink: int | None = None,
    crop: int | None = None,
    multiple: int = 1,
) -> TrainingImages:
    """Pictures of one texture, or one picture and the maps `linked` to it.

    channels: 1 gray, 3 color, None as the pictures are. mask: of one picture, white where nothing
    is to be learned. crop: None for pictures that are learned whole, which are fitted to one size,
    of sides that are multiples of `multiple`. Raises InputError for what does not fit together.
    """
    if alpha not in get_args(Alpha):
        raise InputError(f"--alpha {alpha}: must be one of {', '.join(get_args(Alpha))}")
    if channels not in (None, 1, 3):
        raise InputError(f"--channels {channels}: must be 1, 3, or 0 for what the pictures have")
    for given, option in ((bool(linked), "--with"), (mask is not None, "--mask")):
        if given and len(pictures) > 1:
            raise InputError(f"{option}: goes with one picture, not with {len(pictures)}")
    raw = [open_image(picture) for picture in (*pictures, *linked)]
    hidden = None if mask is None else mask_pixels(mask, raw[0].size)
    wanted = (size, size) if size else None
    rasters = [fitted(one, wanted, shrink) for one in raw]
    if crop is None and not linked and mask is None:
        rasters = _fitted_together(rasters, multiple)
    if alpha != "drop":
        _refuse_transparent(rasters, (*pictures, *linked))
    alpha = _alpha_meaning(alpha, rasters, crop)
    groups = [[one] for one in rasters] if linked else [rasters]
    names = [_name(one, k) for k, one in enumerate((*pictures, *linked))] if linked else [""]
    if len(set(names)) < len(names):
        raise InputError(f"--with: two maps of one name among {', '.join(names)}; rename one")
    maps = [_map(group, name, alpha, channels) for group, name in zip(groups, names, strict=True)]
    if not linked:
        made = [_channels(one, maps[0], alpha) for one in rasters]
    else:
        check_same_size(rasters, names)
        made = [torch.cat([_channels(r, m, alpha) for r, m in zip(rasters, maps, strict=True)])]
        for one in maps:
            kind = ", normals" if one.normals else ""
            log.info("map %s: %s, %d bits%s", one.name, one.bands, one.depth, kind)
    if hidden is not None:
        # Antialiased, so that what is hidden in part is unknown too.
        covered = Image(255.0 * hidden[None], "L").resized(rasters[0].size).values[0] > 0
        made[0] = made[0].masked_fill(covered, torch.nan)
    _refuse_hidden(made, pictures, masked=mask is not None, alpha=alpha)
    return TrainingImages(made, tuple(maps))


def _refuse_transparent(rasters: Sequence[Image], pictures: Sequence[ImageLike]) -> None:
    """Raise InputError for a picture of which nothing can be seen."""
    for raster, picture in zip(rasters, pictures, strict=True):
        if raster.bands.endswith("A") and not bool(raster.values[-1].any()):
            raise InputError(
                f"{_title(picture)}: is wholly transparent, nothing to learn; leave it out, or "
                "lay it on white with --alpha drop"
            )


def _refuse_hidden(
    planes: Sequence[Tensor], pictures: Sequence[ImageLike], *, masked: bool, alpha: Alpha
) -> None:
    """Raise InputError for what is one hole, (C, H, W) with NaN at every place."""
    # Of linked maps there is one tensor, named by the first.
    for pixels, picture in zip(planes, pictures, strict=True):
        if not bool(pixels.isnan().any(dim=0).all()):
            continue
        title = _title(picture)
        if not masked:
            raise InputError(
                f"{title}: --alpha mask leaves no pixel that is wholly opaque, nothing to learn; "
                "use --alpha channel or --alpha drop"
            )
        more = "; --alpha drop keeps what is clear" if alpha == "mask" else ""
        raise InputError(
            f"--mask: hides all of {title}, nothing to learn; paint black what is to be "
            f"learned{more}"
        )


def _fitted_together(rasters: list[Image], multiple: int) -> list[Image]:
    """Pictures of one size: that of most, or else squares as large as the smallest allows.

    What has other proportions loses its ends; what was done is said.
    """
    sizes = Counter(one.size for one in rasters)
    (height, width), shared = sizes.most_common(1)[0]
    if 2 * shared <= len(rasters):
        height = width = min(min(size) for size in sizes)
        height = width = max(multiple, height // multiple * multiple)
    size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if set(sizes) == {size}:
        return rasters
    others = sum(count for found, count in sizes.items() if found != size)
    log.info(
        "%d of %d pictures are of other sizes: their middle is resized to %dx%d (--size)",
        others, len(rasters), size[1], size[0],
    )  # fmt: skip
    return [one.middle(size).resized(size) for one in rasters]


def _alpha_meaning(alpha: Alpha, rasters: Sequence[Image], crop: int | None) -> Alpha:
    """What transparency is taken for; said aloud where it was not asked for."""
    clear = [raster.clear for raster in rasters]
    if alpha != "auto":
        return alpha
    if all(one is None for one in clear):
        return "drop"
    free = places = 0
    for raster, own in zip(rasters, clear, strict=True):
        side = min(crop or max(raster.size), *raster.size)
        hidden = torch.zeros(raster.size, dtype=torch.bool) if own is None else own
        free += len(free_positions(hidden, side))
        places += (raster.size[0] - side + 1) * (raster.size[1] - side + 1)
    if free >= FREE_SHARE * places:
        log.info("transparency: taken for holes, of which nothing is learned (--alpha mask)")
        return "mask"
    log.info("transparency: learned like a color (--alpha channel)")
    return "channel"


def _map(group: Sequence[Image], name: str, alpha: Alpha, channels: int | None) -> TextureMap:
    """How the channels of these pictures are one."""
    color = any(one.bands.startswith("RGB") for one in group)
    if channels is not None:
        color = channels == 3
    bands = "RGB" if color else "L"
    profiles = {one.profile for one in group if one.bands.startswith(bands)}
    if alpha == "channel" and any(one.clear is not None for one in group):
        bands += "A"
    made = TextureMap(
        name,
        bands,
        depth=16 if any(one.depth == 16 for one in group) else 8,
        profile=profiles.pop() if len(profiles) == 1 else None,
    )
    normals = all(holds_normals(one.to_bands("RGB")) for one in group if color) and color
    return replace(made, normals=normals)


def _channels(raster: Image, one: TextureMap, alpha: Alpha) -> Tensor:
    """The channels of a picture, NaN where it is a hole."""
    clear = raster.clear
    if clear is None or alpha == "drop":
        return raster.to_bands(one.bands)
    if alpha == "mask":
        opaque = replace(raster, values=raster.values[:-1], bands=raster.bands[:-1])
        return opaque.to_bands(one.bands).masked_fill(clear, torch.nan)
    # What color a clear pixel has is chance: it gets the mean of what can be seen.
    made = raster.to_bands(one.bands)
    seen = made[-1:] / made[-1].sum()
    mean = (made[:-1] * seen).sum(dim=(1, 2))[:, None, None]
    return torch.cat([torch.where(made[-1:] > 0, made[:-1], mean), made[-1:]])


def _title(picture: ImageLike) -> str:
    """What messages call a picture."""
    return str(picture) if isinstance(picture, str | Path) else "a picture"


def _name(picture: ImageLike, place: int) -> str:
    if isinstance(picture, str | Path) and str(picture) != "-":
        return Path(picture).stem
    return f"map{place + 1}"
