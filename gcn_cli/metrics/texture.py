"""Quality of texture samples, relative to the exemplar and without learned networks.

The distances are ratios: 1 means that a sample is as close to the exemplar as other crops of the
exemplar are.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from gcn_cli.metrics.features import SEED, FilterPyramid
from gcn_cli.metrics.verdict import Untrained
from gcn_cli.metrics.windows import (
    CopyDetector,
    classifier_score,
    color_quantiles,
    crop_side,
    cut_crops,
    feature_moments,
    geometric_mean,
    log_spectrum,
    patch_quantiles,
    relative_distance,
    structure,
)
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import PaddingMode

SMALLEST_SIDE = 64  # pixels
LARGEST_SIDE = 512  # pixels: of larger images the center is measured
SPECTRUM_SIDE = 128  # pixels, of the windows in which the spectrum of an untrained model is fitted
NOISES = 3  # whose mean quality is that of an untrained model: one varies by half a percent
DESCRIPTIONS = {
    "quality": "geometric mean of the next four ratios, statistics weighted four times; "
    "1.00 = as close as another crop of the exemplar",
    "patches": "distance of patches at several scales (sliced Wasserstein), relative to crops of "
    "the exemplar",
    "statistics": "distance of means and covariances of filter responses, relative",
    "spectrum": "distance of power spectra, relative",
    "colors": "distance of color distributions, relative",
    "classifier": "how often a classifier ranks an unseen crop of the exemplar above one of the "
    "sample: 0.5 = cannot tell, 1.0 = always tells",
    "structure": "distance of windows to the nearest window of the exemplar, relative; "
    "below 1 = copied, above 1 = broken",
    "variety": "variation between crops of the sample, relative; below 1 = too uniform",
    "copied": "share of patches copied from the exemplar, minus the share it repeats itself",
    "coherent": "share of neighboring patches that are neighbors in the exemplar, minus its own",
    "seam_x": "gradient across the seam of copies side by side, relative to inside; 1 = no seam",
    "seam_y": "gradient across the seam of stacked copies, relative to inside; 1 = no seam",
}
"""What each metric means. "Relative" divides by the distance of crops of the exemplar that do not
overlap."""


class TextureMetrics:
    """Measures samples against an exemplar."""

    @torch.no_grad()
    def __init__(self, exemplar: Tensor) -> None:
        """`exemplar` is (C, H, W) in 0..255. Raises ValueError below SMALLEST_SIDE."""
        self.exemplar = _center(exemplar)
        self.filters = FilterPyramid(self.exemplar)
        self.maps = self.filters.maps(self.exemplar)
        self.copies = CopyDetector(self.exemplar)
        self._descriptors: dict[int, dict[str, list[Tensor]]] = {}  # of the exemplar, by crop side

    @torch.no_grad()
    def measure(self, sample: Tensor) -> dict[str, float]:
        """The metrics of DESCRIPTIONS for a sample (C, H, W) in 0..255; NaN if it is too small.

        Raises ValueError below SMALLEST_SIDE.
        """
        whole, sample = sample, _center(sample)
        seam_x, seam_y = seams(whole[:3].float().cpu())
        distances, variety = self._distances(sample)
        maps = self.filters.maps(sample)
        copied, coherent = self.copies.shares(sample)
        return {
            **distances,
            "classifier": classifier_score(self.maps, maps),
            "structure": structure(self.maps, maps),
            "variety": variety,
            "copied": copied,
            "coherent": coherent,
            "seam_x": seam_x,
            "seam_y": seam_y,
        }

    @cached_property
    def untrained(self) -> Untrained:
        """What an untrained model has: Gaussian noise with the spectrum of the exemplar."""
        noises = [spectral_noise(self.exemplar, SEED + k) for k in range(NOISES)]
        measured = [self._distances(noise) for noise in noises]
        qualities = [distances["quality"] for distances, _ in measured]
        return Untrained(
            geometric_mean(qualities), geometric_mean([variety for _, variety in measured])
        )

    @torch.no_grad()
    def _distances(self, sample: Tensor) -> tuple[dict[str, float], float]:
        """The quality and the distances that it is the mean of, and the variety."""
        side = crop_side(self.exemplar, sample)
        if side not in self._descriptors:
            self._descriptors[side] = self._describe(self.exemplar, side)
        descriptors = self._describe(sample, side)
        relative = {
            name: relative_distance(real, descriptors[name], standardize=name == "statistics")
            for name, real in self._descriptors[side].items()
        }
        distances = {name: distance for name, (distance, _) in relative.items()}
        # A model starts with the spectrum of the exemplar: the statistics show what it learns.
        quality = geometric_mean([*distances.values(), *[distances["statistics"]] * 3])
        return {"quality": quality, **distances}, relative["statistics"][1]

    def _describe(self, image: Tensor, side: int) -> dict[str, list[Tensor]]:
        crops = cut_crops(image, side)
        return {
            "patches": patch_quantiles(crops),
            "statistics": feature_moments(self.filters(crops)),
            "spectrum": [log_spectrum(crops)],
            "colors": [color_quantiles(crops)],
        }


@torch.no_grad()
def spectral_noise(image: Tensor, seed: int) -> Tensor:
    """Gaussian noise with the spectrum, mean color and size of an image (C, H, W) in 0..255."""
    mean, scale = image.mean(dim=(1, 2), keepdim=True), image.std().clamp_min(1e-6)
    gaussian = SpectralGaussian(len(image))
    gaussian.fit([(image - mean) / scale], min(SPECTRUM_SIDE, *image.shape[1:]))
    white = torch.randn(1, *image.shape, generator=torch.Generator().manual_seed(seed))
    noise = gaussian.noisy_sample(white, torch.zeros(1), PaddingMode.CIRCULAR)[0]
    return (mean + scale * noise).clamp(0, 255)


def _center(image: Tensor) -> Tensor:
    """The colors (3, H, W) of the center of an image, up to LARGEST_SIDE pixels a side.

    Raises ValueError below SMALLEST_SIDE.
    """
    if min(image.shape[1:]) < SMALLEST_SIDE:
        raise ValueError(f"images under {SMALLEST_SIDE} pixels a side are too small to measure")
    top, left = (max(0, (length - LARGEST_SIDE) // 2) for length in image.shape[1:])
    return image[:3, top : top + LARGEST_SIDE, left : left + LARGEST_SIDE].float().cpu()


def rms_error(a: Tensor, b: Tensor) -> float:
    """Root mean squared difference over pixels and channels, in gray levels."""
    return math.sqrt(float((a - b).square().mean()))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 255; infinite for equal images."""
    error = rms_error(a, b)
    return math.inf if error == 0 else 20 * math.log10(255 / error)


def contrast(a: Tensor, reference: Tensor) -> float:
    """Standard deviation of the pixels of `a` divided by that of the reference."""
    return float(a.std() / reference.std())


def unexplained_variance(a: Tensor, reference: Tensor) -> float:
    """Mean squared difference divided by the variance of the reference about its mean color."""
    centered = reference - reference.mean(dim=(-2, -1), keepdim=True)
    return float((a - reference).square().mean() / centered.square().mean())


def seams(image: Tensor) -> tuple[float, float]:
    """Mean gradient across the seam of copies side by side, and stacked, over that inside.

    1.0 means no visible seam: pixels across it differ as much as neighbors inside.
    """
    ratios = []
    for axis in (-1, -2):
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, image.shape[axis] - 1, 1)
        # One channel at a time: a copy of a huge image may not fit into memory.
        inside = torch.stack([channel.diff(dim=axis).abs_().mean() for channel in image]).mean()
        ratios.append(float((first - last).abs().mean() / inside.clamp_min(1e-6)))
    return ratios[0], ratios[1]
