"""Likelihood ratios from denoising errors, for Gaussians with known densities."""

import math

import pytest
import torch

from gcn_cli.models.energy import Denoiser
from gcn_cli.samplers.annealed import noise_levels
from gcn_cli.samplers.evidence import denoising_errors, relative_log_likelihood

LEVELS = noise_levels(60, 300.0, 0.003)


def gaussian(mean: float, deviation: float) -> Denoiser:
    """D of white Gaussian images."""

    def denoise(x: torch.Tensor, level: float) -> torch.Tensor:
        share = deviation**2 / (deviation**2 + level**2)
        return mean + share * (x - mean)

    return denoise


def log_density(x: torch.Tensor, mean: float, deviation: float) -> float:
    quadratic = ((x - mean) / deviation).square() / 2
    return -float(quadratic.sum()) - x.numel() * math.log(deviation)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 2.0), (0.5, 1.0), (-1.0, 0.5)])
def test_a_difference_of_evidence_is_the_log_likelihood_ratio(
    mean: float, deviation: float
) -> None:
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    standard, other = (
        relative_log_likelihood(denoising_errors(gaussian(*parameters), x, LEVELS, draws=4), LEVELS)
        for parameters in ((0.0, 1.0), (mean, deviation))
    )
    expected = log_density(x, 0.0, 1.0) - log_density(x, mean, deviation)
    assert standard - other == pytest.approx(expected, rel=0.03, abs=5)


def test_a_model_has_the_most_evidence_for_its_own_samples() -> None:
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    for scale in (1.0, 1.3):
        evidence = {
            deviation: relative_log_likelihood(
                denoising_errors(gaussian(0.0, deviation), scale * x, LEVELS, draws=2), LEVELS
            )
            for deviation in (1.0, 1.3)
        }
        assert max(evidence, key=lambda deviation: evidence[deviation]) == scale
