"""Comparison of crops, windows and patches of a sample with those of the exemplar.

- `relative_distance`: distance of crop descriptors (patches, statistics, spectrum, colors).
- `structure`: distance of windows to their nearest neighbor in the exemplar.
- `CopyDetector`: patches that are copies of the exemplar.
- `classifier_score`: classifier two-sample test on windows (Lopez-Paz and Oquab 2017).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.metrics.features import SEED, FeatureMaps, downsample, pyramid

LARGEST_CROP, SMALLEST_CROP = 112, 48  # pixels a side
MAX_CROPS = 16
PROJECTIONS = 48  # random directions in the space of patches
PROJECTED_PATCH = 7  # pixels a side
QUANTILES = 400
MIXTURES = 8  # random directions in the space of colors
RINGS, SECTORS = 8, 6  # bins of the spectrum by frequency and orientation

WINDOW_SIDES = (48, 80)  # pixels
WINDOW_STEP = 8  # pixels between windows
WINDOW_CELLS = 4  # a side: the descriptor of a window is the mean of each cell

PATCH = 8  # pixels a side, at half resolution
COPY_THRESHOLD = 0.35  # of the median distance between patches of the exemplar
MAX_PATCHES = 600  # of a sample

CLASSIFIER_SIDE, CLASSIFIER_STEP = 64, 16  # pixels of a window, and between windows
RIDGE = 0.1  # of the mean diagonal of the kernel


# Crops and their descriptors


def crop_side(*images: Tensor) -> int:
    """Side of crops, a multiple of 8: a quarter of the shortest side, at least half of it to 48."""
    shorter = min(side for image in images for side in image.shape[1:])
    side = min(LARGEST_CROP, shorter // 4)
    return max(side, min(SMALLEST_CROP, shorter // 2)) // 8 * 8


def cut_crops(image: Tensor, side: int) -> Tensor:
    """Crops (N, C, side, side) of an image (C, H, W), spread evenly without overlap."""
    tops, lefts = (_starts(length, side) for length in image.shape[1:])
    crops = [image[:, top : top + side, left : left + side] for top in tops for left in lefts]
    return torch.stack(crops[:MAX_CROPS])


def _starts(length: int, side: int) -> list[int]:
    count = min(math.isqrt(MAX_CROPS), length // side)
    if count == 1:
        return [(length - side) // 2]
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def relative_distance(
    real: Sequence[Tensor], sample: Sequence[Tensor], *, standardize: bool = False
) -> tuple[float, float]:
    """Distance of sample crops to exemplar crops, and variation of sample crops, both relative.

    real, sample: descriptors (N, D) of crops, one tensor for each scale. With mean squared
    distances d, the excess of a scale is e = (d(real, sample) - d(real, real)/2 - d(sample,
    sample)/2) / d(real, real), an energy distance. Returns sqrt(1 + mean e), and the geometric
    mean of sqrt(d(sample, sample) / d(real, real)). standardize: divide each value by its
    standard deviation over the exemplar crops.
    """
    excesses, variations = [], []
    for a, b in zip(real, sample, strict=True):
        if standardize:
            deviation = a.std(dim=0)
            scale = deviation + 0.1 * deviation.mean()
            a, b = a / scale, b / scale  # noqa: PLW2901
        within_real, within_sample = _mean_squared_distance(a), _mean_squared_distance(b)
        between = torch.cdist(a, b).square().mean()
        excesses.append(float((between - (within_real + within_sample) / 2) / within_real))
        variations.append(math.sqrt(float(within_sample / within_real)))
    return math.sqrt(1 + max(0.0, sum(excesses) / len(excesses))), geometric_mean(variations)


def _mean_squared_distance(descriptors: Tensor) -> Tensor:
    """Mean squared distance of different rows of descriptors (N, D)."""
    count = len(descriptors)
    squares = torch.cdist(descriptors, descriptors).square()
    return (squares.sum() - squares.diagonal().sum()) / max(1, count * (count - 1))


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values."""
    return math.exp(sum(math.log(max(value, 1e-6)) for value in values) / len(values))


def feature_moments(maps: Sequence[Tensor]) -> list[Tensor]:
    """Means and covariances (N, D) of feature maps (N, C, h, w) of each scale."""
    moments = []
    for scale in maps:
        values = scale.flatten(2)
        mean = values.mean(dim=2, keepdim=True)
        centered = values - mean
        covariance = centered @ centered.transpose(1, 2) / values.shape[2]
        # The factor gives C means the weight of C * C covariances.
        weighted = mean.flatten(1) * values.shape[1] ** 0.5
        moments.append(torch.cat([weighted, covariance.flatten(1)], 1))
    return moments


def patch_quantiles(crops: Tensor) -> list[Tensor]:
    """Quantiles (N, D) of random projections of patches, for each scale of crops (N, C, H, W).

    Squared distances of them are sliced Wasserstein distances. A scale holds the details that the
    next coarser one lacks (Laplacian pyramid).
    """
    generator = torch.Generator().manual_seed(SEED)
    scales, quantiles = pyramid(crops), []
    for index, scale in enumerate(scales):
        details = scale
        if index + 1 < len(scales):
            size = (scale.shape[2], scale.shape[3])
            details = scale - F.interpolate(
                scales[index + 1], size=size, mode="bilinear", align_corners=False
            )
        shape = (PROJECTIONS, crops.shape[1], PROJECTED_PATCH, PROJECTED_PATCH)
        directions = torch.randn(shape, generator=generator)
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        projected = F.conv2d(details, directions, stride=2 if index == 0 else 1).flatten(2)
        count = min(QUANTILES, projected.shape[2])
        quantiles.append(_quantiles(projected, count) / math.sqrt(PROJECTIONS * count))
    return quantiles


def color_quantiles(crops: Tensor) -> Tensor:
    """Quantiles (N, D) of every channel, and of random mixtures, of crops (N, C, H, W)."""
    channels = crops.shape[1]
    mixtures = torch.randn(MIXTURES, channels, generator=torch.Generator().manual_seed(SEED))
    mixtures /= mixtures.norm(dim=1, keepdim=True)
    return _quantiles(torch.cat([torch.eye(channels), mixtures]) @ crops.flatten(2), QUANTILES)


def _quantiles(values: Tensor, count: int) -> Tensor:
    """Evenly spaced quantiles (N, K * count) of values (N, K, n)."""
    indices = torch.linspace(0, values.shape[2] - 1, count).long()
    return values.sort(dim=2).values[:, :, indices].flatten(1)


def log_spectrum(crops: Tensor) -> Tensor:
    """Log power (N, D) of gray crops (N, C, H, W) in rings and sectors of the Fourier plane."""
    gray = crops.mean(dim=1)
    side = gray.shape[-1]
    window = torch.hann_window(side, periodic=False)
    centered = gray - gray.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.rfft2(centered * window[:, None] * window).abs().square()
    fy, fx = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    radius = (fy.square() + fx.square()).sqrt()
    angle = torch.atan2(fy, fx + 1e-9) / math.pi + 0.5
    lowest = 1.5 / side
    ring = (torch.log(radius.clamp_min(1e-9) / lowest) / math.log(0.5 / lowest) * RINGS).floor()
    bins = ring * SECTORS + (angle * SECTORS).floor().clamp(0, SECTORS - 1)
    inside = (ring >= 0) & (ring < RINGS)
    index = bins[inside].long()
    sums = torch.zeros(len(gray), RINGS * SECTORS).index_add_(1, index, power[:, inside])
    counts = torch.zeros(RINGS * SECTORS).index_add_(0, index, torch.ones(len(index)))
    filled = counts > 0
    return torch.log(sums[:, filled] / counts[filled] + 1e-3)


# Windows and their nearest neighbors


def structure(exemplar: FeatureMaps, sample: FeatureMaps) -> float:
    """Mean distance of windows of the sample to the nearest exemplar window, relative.

    The reference is the distance of exemplar windows to the nearest one that does not overlap
    them. Returns 1 for structures as whole as in the exemplar, more for broken or merged ones,
    less for copies; NaN for small images.
    """
    ratios = []
    for side in WINDOW_SIDES:
        if min(*exemplar.size, *sample.size) >= 2 * side:
            scales = zip(_layouts(exemplar, side), _layouts(sample, side), strict=True)
            ratios += [_nearest_ratio(real, other, side) for real, other in scales]
    return geometric_mean(ratios) if ratios else math.nan


def _layouts(image: FeatureMaps, side: int) -> list[Tensor]:
    """Descriptors (rows, columns, D) of windows on a grid, for each map: means of its cells."""
    layouts = []
    tops, lefts = (range(0, length - side + 1, WINDOW_STEP) for length in image.size)
    for stride, maps in image.maps.items():
        cell = max(1, side // WINDOW_CELLS // stride)
        pooled = F.avg_pool2d(maps, cell, 1)[0]
        reach = min(side // stride, min(maps.shape[2:]) - 1) - cell
        offsets = [round(k * reach / (WINDOW_CELLS - 1)) for k in range(WINDOW_CELLS)]
        rows = [min(top // stride, pooled.shape[1] - 1 - reach) for top in tops]
        columns = [min(left // stride, pooled.shape[2] - 1 - reach) for left in lefts]
        cells = [
            pooled[:, [row + y for row in rows]][:, :, [column + x for column in columns]]
            for y in offsets
            for x in offsets
        ]
        layouts.append(torch.cat(cells).permute(1, 2, 0))
    return layouts


def _nearest_ratio(real: Tensor, sample: Tensor, side: int) -> float:
    """Mean distance to the nearest real window: of sample windows over that of real ones.

    Both choose among the same number of candidates.
    """
    rows, columns = real.shape[:2]
    positions = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    scale = real.flatten(0, 1).std(dim=0) + 1e-6
    windows = real.flatten(0, 1) / scale
    queries = ((positions % 2) == 0).all(dim=1).nonzero()[:, 0]
    offsets = (positions[queries, None] - positions[None]).abs().amax(dim=2)
    disjoint = offsets * WINDOW_STEP >= side
    queries, disjoint = queries[disjoint.any(dim=1)], disjoint[disjoint.any(dim=1)]
    distances = torch.cdist(windows[queries], windows).masked_fill(~disjoint, torch.inf)
    candidates = int(disjoint.sum(dim=1).float().mean())
    chosen = torch.linspace(0, len(windows) - 1, candidates).long()
    of_sample = torch.cdist(sample[::2, ::2].flatten(0, 1) / scale, windows[chosen]).amin(dim=1)
    return float(of_sample.mean() / distances.amin(dim=1).mean())


# Patches that are copies


class CopyDetector:
    """Finds patches of a sample that are copies of an exemplar (C, H, W)."""

    def __init__(self, exemplar: Tensor) -> None:
        self.exemplar = downsample(exemplar[None])[0]
        distances, offsets = self._nearest(self.exemplar, exclude=PATCH)
        self.threshold = COPY_THRESHOLD * distances.median().clamp_min(1e-6)
        self.repeated = float((distances < self.threshold).float().mean())
        self.coherent = _coherent_share(offsets)

    def shares(self, sample: Tensor) -> tuple[float, float]:
        """Share of copied patches, and of neighbors copied from one place, of a sample (C, H, W).

        The shares of the exemplar, which may repeat itself, are subtracted: 0 is nothing copied.
        """
        distances, offsets = self._nearest(downsample(sample[None])[0])
        copied = float((distances < self.threshold).float().mean())
        return max(0.0, copied - self.repeated), max(0.0, _coherent_share(offsets) - self.coherent)

    def origins(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """For each pixel of a sample (C, H, W), the nearest exemplar patch.

        Returns its position as colors (3, H, W) in 0..255 (x red, y green), and its distance
        (H, W), root mean squared in gray levels.
        """
        half = downsample(sample[None])[0]
        distances, offsets = self._nearest(half)
        axes = [torch.linspace(0, 1, count) for count in distances.shape]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        last, last_of_exemplar = (
            torch.tensor([length - PATCH for length in image.shape[1:]])
            for image in (half, self.exemplar)
        )
        y, x = ((grid * last + offsets) / last_of_exemplar.clamp_min(1)).clamp(0, 1).unbind(-1)
        maps = torch.stack([255 * x, 255 * y, torch.full_like(x, 127.5), distances / PATCH])
        maps = F.interpolate(maps[None], size=sample.shape[1:], mode="nearest")[0]
        return maps[:3], maps[3]

    def _nearest(self, sample: Tensor, exclude: int = 0) -> tuple[Tensor, Tensor]:
        """Distance (rows, columns) of patches on a grid to the nearest exemplar patch.

        Also returns the offset (rows, columns, 2) to it in pixels. exclude: smallest offset
        allowed, for the exemplar itself.
        """
        step = PATCH // 2
        while (sample.shape[1] // step) * (sample.shape[2] // step) > MAX_PATCHES:
            step += 1
        windows = sample.unfold(1, PATCH, step).unfold(2, PATCH, step)  # (C, rows, columns, y, x)
        shape = windows.shape[1:3]
        queries = windows.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        positions = step * torch.cartesian_prod(*(torch.arange(count) for count in shape))
        patches = F.unfold(self.exemplar[None], PATCH)[0].T
        index = torch.arange(len(patches))
        columns = self.exemplar.shape[2] - PATCH + 1
        sources = torch.stack([index // columns, index % columns], dim=1)
        distances, offsets = [], []
        # Parts of 64 patches limit the memory.
        for some, at in zip(torch.split(queries, 64), torch.split(positions, 64), strict=True):
            distance = torch.cdist(some, patches)
            if exclude:
                too_near = (at[:, None] - sources[None]).abs().amax(dim=2) < exclude
                distance = distance.masked_fill(too_near, torch.inf)
            nearest = distance.min(dim=1)
            distances.append(nearest.values)
            offsets.append(sources[nearest.indices] - at)
        return torch.cat(distances).view(shape), torch.cat(offsets).view(*shape, 2)


def _coherent_share(offsets: Tensor) -> float:
    """Share of neighbors whose offsets (rows, columns, 2) differ by 1 pixel at most."""
    changes = [offsets.diff(dim=0).flatten(0, 1), offsets.diff(dim=1).flatten(0, 1)]
    same = torch.cat([change.abs().amax(dim=1) <= 1 for change in changes])
    return float(same.float().mean()) if len(same) else 0.0


# Classifier two-sample test


def classifier_score(exemplar: FeatureMaps, sample: FeatureMaps) -> float:
    """Two-sample classifier score (AUC) of windows of the sample against those of the exemplar.

    Kernel ridge regression on means and deviations of features is trained on one half of both
    images and tested on the other, for four halves. The score is the mean area under the ROC
    curve: 0.5 = cannot tell, 1.0 = always tells. Crops of one texture score a little over 0.5.
    NaN for images under 128 pixels a side.
    """
    if min(*exemplar.size, *sample.size) < 2 * CLASSIFIER_SIDE:
        return math.nan
    by_rows = _classifier_features(exemplar), _classifier_features(sample)
    by_columns = by_rows[0].transpose(0, 1), by_rows[1].transpose(0, 1)
    scores = []
    for real, other in (by_rows, by_columns):
        count = min(len(real), len(other))
        half = (count - CLASSIFIER_SIDE // CLASSIFIER_STEP + 1) // 2  # halves share no pixel
        if half >= 1:
            first, last = slice(0, half), slice(count - half, count)
            scores += [_test_score(real, other, *split) for split in ((first, last), (last, first))]
    # A mean below 0.5 is chance: differences between halves point in opposite directions.
    return max(0.5, sum(scores) / len(scores)) if scores else math.nan


def _classifier_features(image: FeatureMaps) -> Tensor:
    """Means and deviations (rows, columns, D) of the features of windows on a grid."""
    features = []
    for stride, maps in image.maps.items():
        padded = F.pad(maps, (0, CLASSIFIER_STEP, 0, CLASSIFIER_STEP), mode="replicate")
        window = (CLASSIFIER_SIDE // stride, CLASSIFIER_STEP // stride)
        mean, square = (F.avg_pool2d(m, *window)[0] for m in (padded, padded.square()))
        features += [mean, (square - mean.square()).clamp_min(0).sqrt()]
    rows, columns = ((length - CLASSIFIER_SIDE) // CLASSIFIER_STEP + 1 for length in image.size)
    return torch.cat([feature[:, :rows, :columns] for feature in features]).permute(1, 2, 0)


def _test_score(real: Tensor, sample: Tensor, train: slice, test: slice) -> float:
    """Area under the ROC curve on the windows `test` of a classifier trained on `train`."""
    parts = [real[train].flatten(0, 1), sample[train].flatten(0, 1)]
    windows = torch.cat(parts)
    labels = torch.cat([torch.ones(len(parts[0])), -torch.ones(len(parts[1]))])
    mean, deviation = windows.mean(dim=0), windows.std(dim=0)
    scale = deviation + 0.1 * deviation.mean()
    x = (windows - mean) / scale
    kernel = x @ x.T / x.shape[1]
    ridge = RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel))
    weights = torch.linalg.solve(kernel + ridge, labels)
    of_real, of_sample = (
        ((image[test].flatten(0, 1) - mean) / scale) @ x.T / x.shape[1] @ weights
        for image in (real, sample)
    )
    greater, equal = of_real[:, None] > of_sample[None], of_real[:, None] == of_sample[None]
    return float((greater.float() + 0.5 * equal.float()).mean())
