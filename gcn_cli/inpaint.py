"""Repair of images: masked parts, extensions and seamless borders are sampled, the rest is kept.

Kept pixels come back bit for bit, in the channels and with the transparency that they had. Along an
axis that tiles, what is missing near a border is continued from the opposite one.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.images import Image, TextureMap, split_maps
from gcn_cli.inputs import LinkedImages, linked_list, open_image, read_repair_mask, to_pixels
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import PhaseMap
from gcn_cli.options import ReconstructOptions, SampleOptions, Seamless
from gcn_cli.samplers.guidance import KnownPixels
from gcn_cli.synthesis import (
    OnEvaluation,
    evaluation_counter,
    mirror_positions,
    plan_tiling,
    sampling_size,
    to_finished_pixels,
)

log = logging.getLogger(__name__)

CONTEXT = 128  # pixels around the missing part that the model sees
MIRRORED_BORDER = 32  # pixels beyond the image that are sampled too if the missing part is near
SEAM_LAGS = (1, 2, 4, 8)  # pixels between the lines that are compared across a border
SEAM_RATIO = (0.1, 1.4)  # of their squared difference to that inside: an image that tiles

Sides = tuple[int, int, int, int]
"""Pixels at the left, top, right and bottom."""


def repair(
    checkpoint: Checkpoint,
    image: LinkedImages,
    options: ReconstructOptions,
    dtype: torch.dtype,
    on_step: OnEvaluation | None = None,
) -> Iterator[Tensor]:
    """`options.count` variants of an image, (C, H, W) in 0..255, repaired as the options say.

    The first of linked maps has the mask. Raises InputError if mask, outpaint and make_seamless are
    all left out, or if nothing is missing or nothing is known.
    """
    images = [open_image(part) for part in linked_list(image)]
    from_transparency = isinstance(options.mask, str) and options.mask == "alpha"
    source = SourceImages.of(images, checkpoint.maps, drop_alpha=from_transparency)
    pixels, seamless = source.pixels, options.seamless
    known = torch.ones_like(pixels[0], dtype=torch.bool)
    if options.outpaint is not None:
        pixels, missing = extend_image(pixels, options.outpaint)
    elif options.make_seamless is not None:
        missing = edge_band((pixels.shape[1], pixels.shape[2]), options.make_seamless)
        seamless = "both"
    elif options.mask is not None:
        missing = read_repair_mask(images[0], options.mask)
        known = ~missing
    else:
        raise InputError("repair: needs mask, outpaint or make_seamless")
    if seamless is None:
        seamless = "off"
        # An extended image has another size than the one whose border was looked at.
        if checkpoint.config.is_texture and options.outpaint is None:
            seamless = _seamless_near(missing, find_seamless(source.pixels, known))
    sampling = SampleOptions(
        seed=options.seed or 0,
        steps=options.steps,
        seamless=seamless,
        resampling_steps=options.resampling_steps,
    )
    count = options.count or 1
    for result in inpaint(checkpoint, pixels, missing, sampling, count, dtype, on_step):
        yield source.restore(result, sides=options.outpaint)


@dataclass(frozen=True)
class SourceImages:
    """An image, or linked maps, as pixels of a model, and the way back to their channels."""

    pixels: Tensor  # (C, H, W)
    images: tuple[Image, ...]
    maps: tuple[TextureMap, ...]
    drop_alpha: bool  # transparent parts are repaired: the result is opaque

    @classmethod
    def of(
        cls, images: Sequence[Image], maps: tuple[TextureMap, ...], *, drop_alpha: bool
    ) -> "SourceImages":
        """Without resizing, and without the transparency that the model does not know.

        Raises InputError for images that do not fit the maps.
        """
        opaque: list[Image] = []
        for image, known in zip(images, maps, strict=False):  # `to_pixels` refuses too few
            if known.mode.startswith("L") and not image.mode.startswith("L"):
                raise InputError("a color image, a gray model: the colors would be lost")
            opaque.append(image if known.mode.endswith("A") else image.without_alpha())
        return cls(to_pixels(opaque, maps), tuple(images), maps, drop_alpha)

    def restore(self, result: Tensor, *, sides: Sides | None = None, factor: int = 1) -> Tensor:
        """Pixels (C, H, W) of the model in the channels of the images.

        The result is larger than the images: extended by `sides`, or enlarged by a factor.
        """
        left, top, right, bottom = sides or (0, 0, 0, 0)
        parts = []
        triples = zip(self.images, split_maps(result, self.maps), self.maps, strict=True)
        for image, part, known in triples:
            if image.mode.startswith("L") and known.mode.startswith("RGB"):
                # Known grays are equal in all channels, so their median is exact.
                median = part[:3].median(dim=0, keepdim=True).values
                gray = median if factor == 1 else part[:3].mean(dim=0, keepdim=True)
                parts += [gray, part[3:]]
            else:
                parts.append(part)
            if image.has_alpha and not known.mode.endswith("A") and not self.drop_alpha:
                alpha = F.pad(image.pixels[-1:], (left, right, top, bottom), value=255.0)
                parts.append(alpha.repeat_interleave(factor, 1).repeat_interleave(factor, 2))
        return torch.cat(parts)


def extend_image(pixels: Tensor, sides: Sides) -> tuple[Tensor, Tensor]:
    """An image (C, H, W) extended by pixels of its mean color, and where these are, (H, W) bool.

    Raises InputError if no side is given.
    """
    left, top, right, bottom = sides
    if min(sides) < 0 or max(sides) < 1:
        raise InputError(
            f"--outpaint {','.join(map(str, sides))}: pixels to add at the left, top, right and "
            "bottom, 0 or more, at least one of them 1 or more"
        )
    padding = (left, right, top, bottom)
    missing = F.pad(torch.zeros(pixels.shape[1:], dtype=torch.bool), padding, value=True)
    extended = F.pad(pixels, padding)
    return torch.where(missing, pixels.mean(dim=(1, 2))[:, None, None], extended), missing


def edge_band(size: tuple[int, int], width: int) -> Tensor:
    """True within `width` pixels of the edges of an image of `size` (height, width)."""
    if not 0 < 2 * width < min(size):
        raise InputError(
            f"--make-seamless {width}: must be less than half of the side of {min(size)} pixels"
        )
    missing = torch.ones(size, dtype=torch.bool)
    missing[width:-width, width:-width] = False
    return missing


def find_seamless(pixels: Tensor, known: Tensor) -> Seamless:
    """The axes along which an image (C, H, W) tiles; known: mask (H, W) of the pixels to use.

    Lines SEAM_LAGS pixels apart are compared across the border and inside. Borders without a known
    pixel, and flat borders, which fit anything, do not tile.
    """
    tiles = []
    for axis in (0, 1):
        image, usable = pixels.transpose(1, 1 + axis), known.transpose(0, axis)
        ratios = [_seam_ratio(image, usable, lag) for lag in SEAM_LAGS if lag < image.shape[1]]
        tiles.append(bool(ratios) and SEAM_RATIO[0] <= min(ratios) and max(ratios) <= SEAM_RATIO[1])
    return _AXES[tiles[0], tiles[1]]


_AXES: dict[tuple[bool, bool], Seamless] = {
    (True, True): "both", (True, False): "y", (False, True): "x", (False, False): "off",
}  # fmt: skip


def _seam_ratio(image: Tensor, known: Tensor, lag: int) -> float:
    """Mean squared difference of rows `lag` apart: across the border over inside; 0 if unknown."""
    columns = known[:lag].all(dim=0) & known[-lag:].all(dim=0)
    image, known = image[:, :, columns], known[:, columns]
    difference = (image - image.roll(-lag, 1)).square().sum(dim=0)
    seam, inside = difference[-lag:], difference[:-lag][known[:-lag] & known[lag:]]
    if not bool(inside.any()):
        return 0.0
    return float(seam.mean() / inside.mean())


def _seamless_near(missing: Tensor, found: Seamless) -> Seamless:
    """The axes of `found` along which the missing part (H, W) is near a border; says so."""
    near = [_is_near_an_end(missing.any(dim=1 - axis)) for axis in (0, 1)]
    axes = _AXES[near[0] and found in ("both", "y"), near[1] and found in ("both", "x")]
    if axes != "off":
        log.info(
            "--seamless %s: found in the image; its repair continues across the border (off: not)",
            axes,
        )
    return axes


def inpaint(
    checkpoint: Checkpoint,
    pixels: Tensor,
    missing: Tensor,
    options: SampleOptions,
    count: int,
    dtype: torch.dtype,
    on_step: OnEvaluation | None = None,
) -> Iterator[Tensor]:
    """`count` variants of an image (C, H, W) in 0..255, sampled where `missing` (H, W) is True.

    Only a window around the missing part is sampled. Along the axes of `options.seamless` it is
    continued across the border if the missing part is near; along others the image is mirrored
    there. A regular pattern goes on as it is in the known part. Raises InputError if nothing is
    missing or nothing is known.
    """
    if not bool(missing.any()) or bool(missing.all()):
        raise InputError("--mask: must be white in some places (repair) and black in others (keep)")
    kind, shrink = checkpoint.kind, checkpoint.config.shrink
    if shrink is not None and min(missing.shape) > shrink:
        log.info(
            "the model was trained on images shrunk to %d pixels, the repair is at full size; if "
            "its structures are too large, train with --set shrink=0",
            shrink,
        )
    stride, seamless = kind.net.total_stride, options.seamless
    tiles = seamless in ("both", "y"), seamless in ("both", "x")
    rows = _axis_window(missing.any(dim=1), stride, tiles=tiles[0])
    columns = _axis_window(missing.any(dim=0), stride, tiles=tiles[1])
    torus = rows.is_torus or columns.is_torus
    phases: PhaseMap | None = None
    field = checkpoint.phases(checkpoint.to_model(pixels), ~missing)
    if field is not None:
        if any(tiles):
            closed = field.to(torch.device("cpu")).closed(missing, tiles)
            field = closed.to(kind.device)
        phases = _window_phases(field, rows, columns)
    options = replace(
        options,
        seamless="both" if torus else None,
        padding_mode=None if torus else PaddingMode.REFLECT,
    )
    window = pixels[:, rows.source][:, :, columns.source]
    missing = missing[rows.source][:, columns.source]
    inside = rows.inside, columns.inside
    if phases is not None:  # a lattice goes on beyond the border, where mirrored pixels would not
        missing = missing | ~(inside[0][:, None] & inside[1])
    target = torch.meshgrid(rows.source[inside[0]], columns.source[inside[1]], indexing="ij")
    size = (len(rows.source), len(columns.source))
    if sampling_size(checkpoint, options, size) != size:
        raise InputError(f"an image of {size[1]}x{size[0]}: the sides do not fit the model")
    extra_bytes = 12 * checkpoint.config.channel_count * missing.numel()  # known pixels, and result
    plan = plan_tiling(kind, options, size, dtype, "off", extra_bytes=extra_bytes)
    x = checkpoint.normalization.to_model(window)[None].to(kind.device)
    known = KnownPixels(x, missing.to(kind.device))
    callback = evaluation_counter(on_step, count * kind.evaluations(options))
    for index in range(count):
        sample = kind.sample(
            options, [index], None, plan, dtype, callback, known=known, phases=phases
        )
        repaired = torch.where(missing, to_finished_pixels(checkpoint, sample)[0], window)
        result = pixels.clone()
        result[:, target[0], target[1]] = repaired[:, inside[0]][:, :, inside[1]]
        yield result


class _AxisWindow(NamedTuple):
    """The pixels along an axis that are sampled."""

    source: Tensor  # (n,): their positions in the image
    inside: Tensor  # (n,) bool: False for mirrored copies beyond the image
    is_torus: bool  # the whole axis, whose ends meet; else n is a multiple of the stride
    start: int  # position of the first pixel, below 0 beyond the image


def _window_phases(phases: PhaseMap, rows: _AxisWindow, columns: _AxisWindow) -> PhaseMap:
    """The phases of an image at positions in a window of it."""
    return lambda down, across: phases(down + rows.start, across + columns.start)


def _axis_window(missing: Tensor, stride: int, *, tiles: bool) -> _AxisWindow:
    """The window around the missing part of an axis (side,), across the border of one that tiles.

    Windows that would meet themselves beyond the border are the whole axis.
    """
    side = len(missing)
    if not tiles or not _is_near_an_end(missing):
        positions = _window(missing, stride)
        inside = (positions >= 0) & (positions < side)
        source = mirror_positions(positions, side)
        return _AxisWindow(source, inside, is_torus=False, start=int(positions[0]))
    marked = missing.nonzero().flatten()
    gaps = torch.cat([marked[1:], marked[:1] + side]) - marked
    widest = int(gaps.argmax())
    first, extent = int(marked[(widest + 1) % len(marked)]), side - int(gaps[widest]) + 1
    length = -(-(extent + 2 * CONTEXT) // stride) * stride
    start = first - CONTEXT if length < side else 0
    source = (torch.arange(min(length, side)) + start) % side
    inside = torch.ones_like(source, dtype=torch.bool)
    return _AxisWindow(source, inside, is_torus=length >= side, start=start)


def _is_near_an_end(missing: Tensor) -> bool:
    """Whether a missing position of an axis (side,) is within MIRRORED_BORDER of an end."""
    return bool(missing[:MIRRORED_BORDER].any() or missing[-MIRRORED_BORDER:].any())


def _window(missing: Tensor, stride: int) -> Tensor:
    """Positions along an axis around the missing ones, (n,); n is a multiple of the stride.

    They exceed an end if the missing part is near it, or if the axis is too short.
    """
    marked, side = missing.nonzero().flatten(), len(missing)
    first, last = int(marked[0]), int(marked[-1])
    low = -MIRRORED_BORDER if first < MIRRORED_BORDER else max(0, first - CONTEXT)
    near_end = side - 1 - last < MIRRORED_BORDER
    high = side + MIRRORED_BORDER if near_end else min(side, last + 1 + CONTEXT)
    length = -(-(high - low) // stride) * stride
    if high == side and low > 0:
        low = max(0, side - length)
    return torch.arange(low, low + length)
