"""What a training is shown: pictures, linked maps and masks, as the channels of a model."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images import Map, Raster
from gcn_cli.images.bands import holds_normals
from gcn_cli.learning.batches import free_places
from gcn_cli.runs.pictures import Picture, check_same_size, fitted, open_once, white_of

log = logging.getLogger(__name__)

Alpha = Literal["auto", "mask", "channel", "drop"]
"""What transparency means: unknown pixels, a channel like a colour, nothing (laid on white)."""

FREE_SHARE = 0.05  # of the places of a crop that show nothing clear: from here clear is a hole


@dataclass(frozen=True)
class Observed:
    """Pictures (C, H, W) in 0..255, NaN where nothing is known, and what their channels are."""

    pictures: list[Tensor]
    maps: tuple[Map, ...]


def observe(
    pictures: Sequence[Picture],
    *,
    linked: Sequence[Picture] = (),
    mask: Picture | None = None,
    alpha: Alpha = "auto",
    channels: int | None = None,
    size: int | None = None,
    shrink: int | None = None,
    crop: int | None = None,
    multiple: int = 1,
) -> Observed:
    """Pictures of one texture, or one picture and the maps `linked` to it.

    channels: 1 grey, 3 colour, None as the pictures are. mask: of one picture, white where nothing
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
    raw = [open_once(picture) for picture in (*pictures, *linked)]
    hidden = None if mask is None else white_of(mask, raw[0].size)
    wanted = (size, size) if size else None
    rasters = [fitted(one, wanted, shrink) for one in raw]
    if crop is None and not linked and mask is None:
        rasters = _fitted_together(rasters, multiple)
    if alpha != "drop":
        _refuse_transparent(rasters, (*pictures, *linked))
    alpha = _meant(alpha, rasters, crop)
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
        covered = Raster(255.0 * hidden[None], "L").resized(rasters[0].size).values[0] > 0
        made[0] = made[0].masked_fill(covered, torch.nan)
    _refuse_hidden(made, pictures, masked=mask is not None, alpha=alpha)
    return Observed(made, tuple(maps))


def _refuse_transparent(rasters: Sequence[Raster], pictures: Sequence[Picture]) -> None:
    """Raise InputError for a picture of which nothing can be seen."""
    for raster, picture in zip(rasters, pictures, strict=True):
        if raster.bands.endswith("A") and not bool(raster.values[-1].any()):
            raise InputError(
                f"{_title(picture)}: is wholly transparent, nothing to learn; leave it out, or "
                "lay it on white with --alpha drop"
            )


def _refuse_hidden(
    planes: Sequence[Tensor], pictures: Sequence[Picture], *, masked: bool, alpha: Alpha
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


def _fitted_together(rasters: list[Raster], multiple: int) -> list[Raster]:
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


def _meant(alpha: Alpha, rasters: Sequence[Raster], crop: int | None) -> Alpha:
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
        free += len(free_places(hidden, side))
        places += (raster.size[0] - side + 1) * (raster.size[1] - side + 1)
    if free >= FREE_SHARE * places:
        log.info("transparency: taken for holes, of which nothing is learned (--alpha mask)")
        return "mask"
    log.info("transparency: learned like a colour (--alpha channel)")
    return "channel"


def _map(group: Sequence[Raster], name: str, alpha: Alpha, channels: int | None) -> Map:
    """How the channels of these pictures are one."""
    colour = any(one.bands.startswith("RGB") for one in group)
    if channels is not None:
        colour = channels == 3
    bands = "RGB" if colour else "L"
    profiles = {one.profile for one in group if one.bands.startswith(bands)}
    if alpha == "channel" and any(one.clear is not None for one in group):
        bands += "A"
    made = Map(
        name,
        bands,
        depth=16 if any(one.depth == 16 for one in group) else 8,
        profile=profiles.pop() if len(profiles) == 1 else None,
    )
    normals = all(holds_normals(one.to_bands("RGB")) for one in group if colour) and colour
    return replace(made, normals=normals)


def _channels(raster: Raster, one: Map, alpha: Alpha) -> Tensor:
    """The channels of a picture, NaN where it is a hole."""
    clear = raster.clear
    if clear is None or alpha == "drop":
        return raster.to_bands(one.bands)
    if alpha == "mask":
        opaque = replace(raster, values=raster.values[:-1], bands=raster.bands[:-1])
        return opaque.to_bands(one.bands).masked_fill(clear, torch.nan)
    # What colour a clear pixel has is chance: it gets the mean of what can be seen.
    made = raster.to_bands(one.bands)
    seen = made[-1:] / made[-1].sum()
    mean = (made[:-1] * seen).sum(dim=(1, 2))[:, None, None]
    return torch.cat([torch.where(made[-1:] > 0, made[:-1], mean), made[-1:]])


def _title(picture: Picture) -> str:
    """What messages call a picture."""
    return str(picture) if isinstance(picture, str | Path) else "a picture"


def _name(picture: Picture, place: int) -> str:
    if isinstance(picture, str | Path) and str(picture) != "-":
        return Path(picture).stem
    return f"map{place + 1}"
