"""Inpainting with a Gaussian whose conditional distribution is known."""

from functools import partial

import pytest
import torch

from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.guidance import KnownPixels
from gcn_cli.samplers.rng import ImageNoise

CORRELATION = 0.8
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])


def denoise(x: torch.Tensor, noise: float) -> torch.Tensor:
    """D of pairs of pixels N(0, COVARIANCE)."""
    wiener = COVARIANCE @ torch.linalg.inv(COVARIANCE + noise**2 * torch.eye(2))
    mean: torch.Tensor = x @ wiener.T
    return mean


def test_resampling_brings_missing_pixels_to_their_conditional_distribution() -> None:
    """x given y is N(rho y, 1 - rho^2); without resampling the mean falls short by a third."""
    count, value = 4000, 1.5
    known = torch.tensor([value, 0.0]).expand(1, 1, 1, 2)
    pixels = KnownPixels(known, torch.tensor([[False, True]]))
    levels = noise_levels(40, 20.0, 0.02)
    means, variances = [], []
    for resampling in (1, 2, 8):
        noise = ImageNoise(0, "chain", [0])
        start = levels[0] * noise((1, 1, count, 2)) + torch.where(pixels.missing, 0.0, known)
        x = anneal(start, pixels.constrain(denoise), levels, noise, resampling=resampling)
        assert torch.equal(x[..., 0], torch.full((1, 1, count), value))
        means.append(float(x[..., 1].mean()))
        variances.append(float(x[..., 1].var()))
    assert means == sorted(means)
    assert variances == sorted(variances, reverse=True)
    assert means[-1] == pytest.approx(CORRELATION * value, rel=0.06)
    assert variances[-1] == pytest.approx(1 - CORRELATION**2, rel=0.1)


def test_each_step_but_the_last_is_resampled() -> None:
    levels, counts = noise_levels(5, 10.0, 0.1), []
    start = 10 * ImageNoise(0, "start", [0])((1, 1, 3, 2))
    for resampling in (1, 3):
        steps: list[int] = []
        record = partial(lambda steps, step, _: steps.append(step), steps)
        noise = ImageNoise(0, "chain", [0])
        anneal(start, denoise, levels, noise, record, resampling=resampling)
        counts.append(steps)
    assert counts == [list(range(1, 6)), list(range(1, 14))]
