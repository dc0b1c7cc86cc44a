"""Repair of images: masked parts, extensions and seamless borders are sampled, the rest is kept.

Kept pixels come back bit for bit, in the channels and with the transparency that they had.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.images import Image, TextureMap, split_maps
from gcn_cli.inputs import LinkedImages, linked_list, open_image, read_repair_mask, to_pixels
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import ReconstructOptions, SampleOptions
from gcn_cli.samplers.guidance import KnownPixels
from gcn_cli.synthesis import (
    OnEvaluation,
    mirror_positions,
    plan_tiling,
    sampling_size,
    to_finished_pixels,
)

log = logging.getLogger(__name__)

CONTEXT = 128  # pixels around the missing part that the model sees
MIRRORED_BORDER = 32  # pixels beyond the image that are sampled too if the missing part is near

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

    The first of linked maps has the mask. Raises InputError if mask, extend and make_seamless are
    all left out, or if nothing is missing or nothing is known.
    """
    images = [open_image(part) for part in linked_list(image)]
    from_transparency = isinstance(options.mask, str) and options.mask == "alpha"
    source = SourceImages.of(images, checkpoint.maps, drop_alpha=from_transparency)
    pixels, seamless = source.pixels, options.make_seamless is not None
    if options.extend is not None:
        pixels, missing = extend_image(pixels, options.extend)
    elif options.make_seamless is not None:
        missing = edge_band((pixels.shape[1], pixels.shape[2]), options.make_seamless)
    elif options.mask is not None:
        missing = read_repair_mask(images[0], options.mask)
    else:
        raise InputError("repair: needs mask, extend or make_seamless")
    sampling = SampleOptions(
        seed=options.seed or 0,
        steps=options.steps,
        seamless="both" if seamless else None,
        padding_mode=None if seamless else PaddingMode.REFLECT,
        resampling_steps=options.resampling_steps,
    )
    count = options.count or 1
    for result in inpaint(checkpoint, pixels, missing, sampling, count, dtype, on_step):
        yield source.restore(result, options.extend or (0, 0, 0, 0))


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

    def restore(self, result: Tensor, sides: Sides) -> Tensor:
        """Pixels (C, H, W) of the model in the channels of the images, extended by `sides`."""
        parts = zip(self.images, split_maps(result, self.maps), self.maps, strict=True)
        restored = [self._restore_map(*part, sides) for part in parts]
        return torch.cat(restored) if len(restored) > 1 else restored[0]

    def _restore_map(self, image: Image, result: Tensor, known: TextureMap, sides: Sides) -> Tensor:
        if image.mode.startswith("L") and known.mode.startswith("RGB"):
            # Known grays are equal in all channels, so their median is exact.
            result = torch.cat([result[:3].median(dim=0, keepdim=True).values, result[3:]])
        if image.has_alpha and not known.mode.endswith("A") and not self.drop_alpha:
            left, top, right, bottom = sides
            alpha = F.pad(image.pixels[-1:], (left, right, top, bottom), value=255.0)
            result = torch.cat([result, alpha])
        return result


def extend_image(pixels: Tensor, sides: Sides) -> tuple[Tensor, Tensor]:
    """An image (C, H, W) extended by pixels of its mean color, and where these are, (H, W) bool.

    Raises InputError if no side is given.
    """
    left, top, right, bottom = sides
    if min(sides) < 0 or max(sides) < 1:
        raise InputError(
            f"--extend {','.join(map(str, sides))}: pixels to add at the left, top, right and "
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

    With seamless options the whole image is sampled as a torus; else only a window around the
    missing part, mirrored at the border of the image. Raises InputError if nothing is missing or
    nothing is known.
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
    axes = [missing.any(dim=1), missing.any(dim=0)]
    if options.seamless == "both":
        rows, columns = (torch.arange(len(axis)) for axis in axes)
    else:
        rows, columns = (_window(axis, kind.net.total_stride) for axis in axes)
    mirrored_rows = mirror_positions(rows, missing.shape[0])
    mirrored_columns = mirror_positions(columns, missing.shape[1])
    window = pixels[:, mirrored_rows][:, :, mirrored_columns]
    missing = missing[mirrored_rows][:, mirrored_columns]
    inside = [(p >= 0) & (p < n) for p, n in zip((rows, columns), pixels.shape[1:], strict=True)]
    target = torch.meshgrid(rows[inside[0]], columns[inside[1]], indexing="ij")
    size = (len(rows), len(columns))
    if sampling_size(checkpoint, options, size) != size:
        raise InputError(f"an image of {size[1]}x{size[0]}: the sides do not fit the model")
    extra_bytes = 12 * checkpoint.config.channel_count * missing.numel()  # known pixels, and result
    plan = plan_tiling(kind, options, size, dtype, "off", extra_bytes=extra_bytes)
    x = checkpoint.normalization.to_model(window)[None].to(kind.device)
    known, evaluations = KnownPixels(x, missing.to(kind.device)), kind.evaluations(options)
    for index in range(count):

        def callback(step: int, _: Tensor, done: int = index * evaluations) -> None:
            if on_step is not None:
                on_step(done + step, count * evaluations)

        sample = kind.sample(options, [index], None, plan, dtype, callback, known=known)
        repaired = torch.where(missing, to_finished_pixels(checkpoint, sample)[0], window)
        result = pixels.clone()
        result[:, target[0], target[1]] = repaired[:, inside[0]][:, :, inside[1]]
        yield result


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
