"""Descriptors of crops, and how far those of two pictures are apart.

Every distance is divided by that between crops of the exemplar which do not overlap: 1 is as near
as another part of the exemplar.

Nearest neighbors: are things whole and in their places, and were they copied?

Can a judge tell samples from the exemplar? One that learns it, on windows of both.

Ridge regression on means and deviations of features: learned on one half of exemplar and sample,
asked on the other, for four halves. 0.5 cannot, 1 always; two parts of one texture are told apart
too, a little, since they are two parts.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.metrics.features import SEED, FeatureMaps, halved, pyramid

LARGEST_CROP, SMALLEST_CROP = 112, 48
MOST_CROPS = 16
DIRECTIONS = 48  # random projections of patches
QUANTILES = 400
RINGS, SECTORS = 8, 6  # of the spectrum
PROJECTED_PATCH = 7


def cut_crops(picture: Tensor, side: int) -> Tensor:
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


def relative_distance(
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
        shape = (DIRECTIONS, crops.shape[1], PROJECTED_PATCH, PROJECTED_PATCH)
        directions = torch.randn(shape, generator=generator)
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        projected = torch.nn.functional.conv2d(band, directions, stride=2 if number == 0 else 1)
        ordered = projected.flatten(2).sort(dim=2).values
        places = torch.linspace(0, ordered.shape[2] - 1, min(QUANTILES, ordered.shape[2])).long()
        found.append(ordered[:, :, places].flatten(1) / math.sqrt(DIRECTIONS * len(places)))
    return found


def colors(crops: Tensor) -> list[Tensor]:
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
    """Log power in rings and sectors of the spectrum of crops (N, C, H, W), in gray."""
    gray = crops.mean(dim=1)
    side = gray.shape[-1]
    window = torch.hann_window(side, periodic=False)
    seen = (gray - gray.mean(dim=(1, 2), keepdim=True)) * window[:, None] * window
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
    sums = torch.zeros(len(gray), RINGS * SECTORS).index_add_(1, index, power[:, inside])
    counts = torch.zeros(RINGS * SECTORS).index_add_(0, index, torch.ones(len(index)))
    kept = counts > 0
    return [torch.log(sums[:, kept] / counts[kept] + 1e-3)]


CELLS = 4  # a side, of a window's description
STEP = 8  # pixels from one window of the exemplar to the next
SIDES = (48, 80)
PATCH = 8  # pixels a side of a patch that may be a copy, of pictures at half their size
NEAR = 0.35  # of the usual distance to the nearest: from here a patch is a copy
MOST = 600  # patches that are looked for


def structure(exemplar: FeatureMaps, sample: FeatureMaps) -> float:
    """Distance of windows of a sample to the nearest of the exemplar, layout and all, over its own.

    Its own are windows of the exemplar and the nearest that do not overlap them. 1 is as whole as
    another part; more, things are broken or merged; under 1, copied. NaN for small pictures.
    """
    found = []
    for side in SIDES:
        if min(*exemplar.size, *sample.size) < 2 * side:
            continue
        real, made = _described(exemplar, side), _described(sample, side)
        found += [_fidelity(a, b, side) for a, b in zip(real, made, strict=True)]
    return mean_ratio(found) if found else float("nan")


def _described(picture: FeatureMaps, side: int) -> list[Tensor]:
    """Windows on a grid, (rows, columns, values) a map: its means in CELLS x CELLS parts."""
    found = []
    tops, lefts = (range(0, length - side + 1, STEP) for length in picture.size)
    for stride, maps in picture.by_stride():
        cell = max(1, side // CELLS // stride)
        pooled = F.avg_pool2d(maps, cell, 1)[0]
        reach = min(side // stride, min(maps.shape[2:]) - 1) - cell
        places = [round(k * reach / (CELLS - 1)) for k in range(CELLS)]
        rows = [min(top // stride, pooled.shape[1] - 1 - reach) for top in tops]
        columns = [min(left // stride, pooled.shape[2] - 1 - reach) for left in lefts]
        cells = [
            pooled[:, [row + down for row in rows]][:, :, [one + over for one in columns]]
            for down in places
            for over in places
        ]
        found.append(torch.cat(cells).permute(1, 2, 0))
    return found


def _fidelity(real: Tensor, made: Tensor, side: int) -> float:
    """Mean distance to the nearest of as many candidates, made windows over real ones."""
    rows, columns = real.shape[:2]
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    at = torch.stack(grid, dim=-1).flatten(0, 1)
    scale = real.flatten(0, 1).std(dim=0) + 1e-6
    flat = real.flatten(0, 1) / scale
    asked = ((at % 2) == 0).all(dim=1).nonzero()[:, 0]
    apart = (at[asked, None] - at[None]).abs().amax(dim=2) * STEP >= side
    asked, apart = asked[apart.any(dim=1)], apart[apart.any(dim=1)]
    own = squared(flat[asked], flat).masked_fill(~apart, torch.inf).amin(dim=1).sqrt()
    candidates = int(apart.sum(dim=1).float().mean())
    queries = made[::2, ::2].flatten(0, 1) / scale
    chosen = torch.linspace(0, len(flat) - 1, candidates).long()
    theirs = squared(queries, flat[chosen]).amin(dim=1).sqrt()
    return float(theirs.mean() / own.mean())


class CopyDetector:
    """An exemplar's patches, which a sample's may be copies of."""

    def __init__(self, exemplar: Tensor) -> None:
        """`exemplar` is (C, H, W); how like its own parts are is found once."""
        self.real = _half(exemplar)
        own, moves, shape = _nearest(self.real, self.real, apart=PATCH)
        self.near = NEAR * own.median().clamp_min(1e-6)
        self.repeated = float((own < self.near).float().mean())
        self.coherent = _coherent(moves, shape)

    def copying(self, sample: Tensor) -> tuple[float, float]:
        """Share of patches that are copies, and of neighbors that come from the same place.

        Both over what the exemplar itself shows of other parts of it, subtracted: 0 is nothing
        copied.
        """
        distances, moves, shape = _nearest(_half(sample), self.real, apart=0)
        copied = float((distances < self.near).float().mean())
        coherent = _coherent(moves, shape)
        return max(0.0, copied - self.repeated), max(0.0, coherent - self.coherent)

    def origins(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Where the nearest patch lies, as colors (3, H, W) in 0..255; how far it is, (H, W).

        Of every patch on a grid, enlarged to the sample's size; distances in gray levels.
        """
        made = _half(sample)
        distances, moves, shape = _nearest(made, self.real, apart=0)
        steps = [torch.linspace(0, 1, count) for count in shape]
        at = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        there = at * _room(made) + moves.view(*shape, 2)
        share = there / _room(self.real).clamp_min(1)
        middle = torch.full(shape, 0.5)
        colors = torch.stack([share[..., 1], share[..., 0], middle]).clamp(0, 1) * 255
        both = torch.cat([colors, distances.view(1, *shape) / PATCH])
        large = F.interpolate(both[None], size=sample.shape[1:], mode="nearest")[0]
        return large[:3], large[3]


def _half(picture: Tensor) -> Tensor:
    return halved(picture[None])[0]


def _room(picture: Tensor) -> Tensor:
    """Places of a patch down and across a picture (C, H, W), less one."""
    return torch.tensor([side - PATCH for side in picture.shape[1:]])


def _nearest(
    sample: Tensor, exemplar: Tensor, apart: int
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Of patches on a grid: distance to the nearest of the exemplar, how far it lies, the grid.

    With `apart` the pictures are one, and the nearest is to be so far from the patch itself.
    """
    step = PATCH // 2
    while (sample.shape[1] // step) * (sample.shape[2] // step) > MOST:
        step += 1
    rows, columns = (range(0, length - PATCH + 1, step) for length in sample.shape[1:])
    at = torch.tensor([(row, column) for row in rows for column in columns])
    asked = torch.stack([sample[:, r : r + PATCH, c : c + PATCH] for r, c in at.tolist()])
    known = F.unfold(exemplar[None], PATCH)[0].T  # (places, values)
    width = exemplar.shape[2] - PATCH + 1
    place = torch.arange(len(known))
    where = torch.stack([place // width, place % width], dim=1)
    distances, moves = [], []
    for first in range(0, len(at), 64):
        some, own = asked[first : first + 64].flatten(1), at[first : first + 64]
        found = squared(some, known)
        if apart:
            near = (own[:, None] - where[None]).abs().amax(dim=2) < apart
            found = found.masked_fill(near, torch.inf)
        best = found.min(dim=1)
        distances.append(best.values.sqrt())
        moves.append(where[best.indices] - own)
    return torch.cat(distances), torch.cat(moves), (len(rows), len(columns))


def _coherent(moves: Tensor, shape: tuple[int, int]) -> float:
    """Share of neighbors on a grid whose nearest lie in the same place next to one another."""
    grid = moves.view(*shape, 2)
    pairs = [(grid[1:] - grid[:-1]).flatten(0, 1), (grid[:, 1:] - grid[:, :-1]).flatten(0, 1)]
    same = torch.cat([(pair.abs().amax(dim=1) <= 1) for pair in pairs])
    return float(same.float().mean()) if len(same) else 0.0


CLASSIFIER_STEP = 16  # pixels from one window to the next
CLASSIFIER_SIDE = 64
RIDGE = 0.1  # of the mean of the kernel's diagonal


def classifier_score(exemplar: FeatureMaps, sample: FeatureMaps) -> float:
    """The area under the curve, in the mean of four halves; NaN for pictures under 128 pixels."""
    if min(*exemplar.size, *sample.size) < 2 * CLASSIFIER_SIDE:
        return float("nan")
    real, made = _classifier_windows(exemplar), _classifier_windows(sample)
    found = []
    for turned in (False, True):
        a, b = (one.transpose(0, 1) if turned else one for one in (real, made))
        count = min(len(a), len(b))
        half = (
            count - CLASSIFIER_SIDE // CLASSIFIER_STEP + 1
        ) // 2  # so that the halves share no pixel
        if half < 1:
            continue
        first, last = slice(0, half), slice(count - half, count)
        found += [_asked(a, b, one, other) for one, other in ((first, last), (last, first))]
    # Under a half is chance: what set the halves apart in one did the opposite in the other.
    return max(0.5, sum(found) / len(found)) if found else float("nan")


def _classifier_windows(picture: FeatureMaps) -> Tensor:
    """Windows on a grid: (rows, columns, values)."""
    found = []
    for stride, maps in picture.by_stride():
        seen = F.pad(maps, (0, CLASSIFIER_STEP, 0, CLASSIFIER_STEP), mode="replicate")
        size, hop = CLASSIFIER_SIDE // stride, CLASSIFIER_STEP // stride
        mean, square = (F.avg_pool2d(one, size, hop)[0] for one in (seen, seen.square()))
        found += [mean, (square - mean.square()).clamp_min(0).sqrt()]
    rows, columns = ((length - CLASSIFIER_SIDE) // CLASSIFIER_STEP + 1 for length in picture.size)
    return torch.cat([one[:, :rows, :columns] for one in found]).permute(1, 2, 0)


def _asked(real: Tensor, made: Tensor, learned: slice, asked: slice) -> float:
    """The area under the curve on windows of `asked`, of a judge that saw those of `learned`."""
    known = torch.cat([one[learned].flatten(0, 1) for one in (real, made)])
    count = len(real[learned].flatten(0, 1))
    answers = torch.ones(len(known))
    answers[count:] = -1
    middle, scale = known.mean(dim=0), known.std(dim=0)
    scale = scale + 0.1 * scale.mean()
    x = (known - middle) / scale
    kernel = x @ x.T / x.shape[1]
    ridge = RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel))
    weights = torch.linalg.solve(kernel + ridge, answers)
    says = [
        ((one[asked].flatten(0, 1) - middle) / scale) @ x.T / x.shape[1] @ weights
        for one in (real, made)
    ]
    over = (says[0][:, None] > says[1][None]).float() + 0.5 * (says[0][:, None] == says[1][None])
    return float(over.mean())
