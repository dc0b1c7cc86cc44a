"""Descriptors of crops, and how far those of two pictures are apart.

Every distance is divided by that between crops of the exemplar which do not overlap: 1 is as near
as another part of the exemplar.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.quality.features import SEED, pyramid

LARGEST_CROP, SMALLEST_CROP = 112, 48
MOST_CROPS = 16
DIRECTIONS = 48  # random projections of patches
QUANTILES = 400
RINGS, SECTORS = 8, 6  # of the spectrum
PATCH = 7


def cut(picture: Tensor, side: int) -> Tensor:
    """Crops (N, C, side, side) of a picture (C, H, W) that do not overlap, spread over it."""
    rows, columns = (_starts(length, side) for length in picture.shape[1:])
    found = [picture[:, top : top + side, left : left + side] for top in rows for left in columns]
    return torch.stack(found[:MOST_CROPS])


def _starts(length: int, side: int) -> list[int]:
    count = min(math.isqrt(MOST_CROPS), length // side)
    if count == 1:
        return [(length - side) // 2]
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (N, M) of descriptors (N, D) and (M, D)."""
    apart = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return apart.clamp_min_(0)


def crop_side(*pictures: Tensor) -> int:
    """The side of crops of pictures (C, H, W), of which each has four or more a side, or two."""
    shorter = min(side for picture in pictures for side in picture.shape[1:])
    side = min(LARGEST_CROP, shorter // 4)
    return max(side, min(SMALLEST_CROP, shorter // 2)) // 8 * 8


def relative(
    real: Sequence[Tensor], made: Sequence[Tensor], *, evened: bool = False
) -> tuple[float, float]:
    """How far crops of a sample are, and how they vary, over the same of the exemplar's own crops.

    Of several descriptors (N, D) each. What counts is the energy distance: how much farther the
    sample's crops are from the exemplar's than crops of either are from one another. `evened`:
    every value is divided by how it varies among the exemplar's crops, so that all count alike.
    """
    far, varied = [], []
    for a, b in zip(real, made, strict=True):
        if evened:
            spread = a.std(dim=0)
            a, b = (one / (spread + 0.1 * spread.mean()) for one in (a, b))  # noqa: PLW2901
        usual, other = _off_diagonal(squared(a, a)), _off_diagonal(squared(b, b))
        far.append(float((squared(a, b).mean() - (usual + other) / 2) / usual))
        varied.append(math.sqrt(float(other / usual)))
    return math.sqrt(1 + max(0.0, sum(far) / len(far))), mean_ratio(varied)


def mean_ratio(values: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(math.log(max(value, 1e-6)) for value in values) / len(values))


def _off_diagonal(apart: Tensor) -> Tensor:
    count = len(apart)
    return (apart.sum() - apart.diagonal().sum()) / max(1, count * (count - 1))


def moments(maps: Sequence[Tensor]) -> list[Tensor]:
    """Means of maps (N, C, h, w), and how every two of them vary together: (N, D) a map."""
    found = []
    for one in maps:
        flat = one.flatten(2)
        mean = flat.mean(dim=2, keepdim=True)
        varied = flat - mean
        together = varied @ varied.transpose(1, 2) / flat.shape[2]
        found.append(torch.cat([mean.flatten(1) * flat.shape[1] ** 0.5, together.flatten(1)], 1))
    return found


def patches(crops: Tensor) -> list[Tensor]:
    """Quantiles of random projections of patches at every scale: squares are those of Wasserstein.

    Crops (N, C, H, W); what a scale has and the next has not, so that scales count alike.
    """
    generator = torch.Generator().manual_seed(SEED)
    scales, found = pyramid(crops), []
    for number, scale in enumerate(scales):
        band = scale
        if number + 1 < len(scales):
            coarse = torch.nn.functional.interpolate(
                scales[number + 1], size=scale.shape[2:], mode="bilinear", align_corners=False
            )
            band = scale - coarse
        shape = (DIRECTIONS, crops.shape[1], PATCH, PATCH)
        directions = torch.randn(shape, generator=generator)
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        projected = torch.nn.functional.conv2d(band, directions, stride=2 if number == 0 else 1)
        ordered = projected.flatten(2).sort(dim=2).values
        places = torch.linspace(0, ordered.shape[2] - 1, min(QUANTILES, ordered.shape[2])).long()
        found.append(ordered[:, :, places].flatten(1) / math.sqrt(DIRECTIONS * len(places)))
    return found


def colours(crops: Tensor) -> list[Tensor]:
    """Quantiles of every channel, and of random mixtures of them, of crops (N, C, H, W)."""
    count = crops.shape[1]
    generator = torch.Generator().manual_seed(SEED)
    mixtures = torch.randn(8, count, generator=generator)
    mixtures /= mixtures.norm(dim=1, keepdim=True)
    seen = torch.cat([torch.eye(count), mixtures]) @ crops.flatten(2)
    ordered = seen.sort(dim=2).values
    places = torch.linspace(0, ordered.shape[2] - 1, QUANTILES).long()
    return [ordered[:, :, places].flatten(1)]


def spectra(crops: Tensor) -> list[Tensor]:
    """Log power in rings and sectors of the spectrum of crops (N, C, H, W), in grey."""
    grey = crops.mean(dim=1)
    side = grey.shape[-1]
    window = torch.hann_window(side, periodic=False)
    seen = (grey - grey.mean(dim=(1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.rfft2(seen).abs().square()
    down = torch.fft.fftfreq(side)[:, None]
    across = torch.fft.rfftfreq(side)[None]
    radius = (down.square() + across.square()).sqrt()
    angle = torch.atan2(down, across + 1e-9) / math.pi + 0.5
    low = 1.5 / side
    ring = (torch.log(radius.clamp_min(1e-9) / low) / math.log(0.5 / low) * RINGS).floor()
    place = ring * SECTORS + (angle * SECTORS).floor().clamp(0, SECTORS - 1)
    inside = (ring >= 0) & (ring < RINGS)
    index = place[inside].long()
    sums = torch.zeros(len(grey), RINGS * SECTORS).index_add_(1, index, power[:, inside])
    counts = torch.zeros(RINGS * SECTORS).index_add_(0, index, torch.ones(len(index)))
    kept = counts > 0
    return [torch.log(sums[:, kept] / counts[kept] + 1e-3)]
