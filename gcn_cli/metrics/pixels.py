"""Measures of pictures that need no learned weights. Pixels are (C, H, W) in 0..255."""

import math

import torch
from torch import Tensor


def rms_error(a: Tensor, b: Tensor) -> float:
    """Root of the mean squared difference a pixel and channel, in gray levels."""
    return math.sqrt(float((a - b).square().mean()))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal pictures."""
    error = rms_error(a, b)
    return math.inf if error == 0 else 20 * math.log10(255 / error)


def contrast(a: Tensor, reference: Tensor) -> float:
    """Deviation of a's pixels from their mean, relative to the reference's."""
    return float(a.std() / reference.std())


def unexplained_variance(a: Tensor, reference: Tensor) -> float:
    """Mean squared difference over the reference's variance about its mean color."""
    centered = reference - reference.mean(dim=(-2, -1), keepdim=True)
    return float((a - reference).square().mean() / centered.square().mean())


def seams(a: Tensor) -> tuple[float, float]:
    """Mean gradient across the seam over that inside, of copies laid side by side and on top.

    1.0 is no seam: what lies across is as like as neighbors inside are.
    """
    found = []
    for axis in (-1, -2):
        across = (a.narrow(axis, 0, 1) - a.narrow(axis, a.shape[axis] - 1, 1)).abs().mean()
        # Band by band: of a huge picture there is no room for a copy.
        inside = torch.stack([band.diff(dim=axis).abs_().mean() for band in a]).mean()
        found.append(float(across / inside.clamp_min(1e-6)))
    return found[0], found[1]
