"""Metrics of pixels. Images are (C, H, W) in 0..255."""

import math

import torch
from torch import Tensor


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
