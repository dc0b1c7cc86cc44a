"""Likelihood ratios by denoising errors, against Gaussians, of which everything is known."""

import math

import pytest
import torch

from gcn_cli.samplers.annealed import Denoiser, noise_levels
from gcn_cli.samplers.evidence import denoising_errors, log_evidence

LEVELS = noise_levels(60, 300.0, 0.003)


def gaussian(mean: float, deviation: float) -> Denoiser:
    """D of white Gaussian images."""

    def denoise(x: torch.Tensor, level: float) -> torch.Tensor:
        share = deviation**2 / (deviation**2 + level**2)
        return mean + share * (x - mean)

    return denoise


def log_density(x: torch.Tensor, mean: float, deviation: float) -> float:
    whole = ((x - mean) / deviation).square() / 2
    return -float(whole.sum()) - x.numel() * math.log(deviation)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 2.0), (0.5, 1.0), (-1.0, 0.5)])
def test_a_difference_is_the_log_likelihood_ratio(mean: float, deviation: float) -> None:
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    told = [
        log_evidence(denoising_errors(gaussian(*own), x, LEVELS, draws=4), LEVELS)
        for own in ((0.0, 1.0), (mean, deviation))
    ]
    true = log_density(x, 0.0, 1.0) - log_density(x, mean, deviation)
    assert told[0] - told[1] == pytest.approx(true, rel=0.03, abs=5)


def test_the_more_likely_model_wins_for_its_own_samples() -> None:
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    one, other = gaussian(0.0, 1.0), gaussian(0.0, 1.3)
    for scale, likelier in ((1.0, one), (1.3, other)):
        told = {
            which: log_evidence(denoising_errors(which, scale * x, LEVELS, draws=2), LEVELS)
            for which in (one, other)
        }
        assert max(told, key=lambda which: told[which]) is likelier
