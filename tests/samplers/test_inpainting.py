"""A given part in a chain: against a Gaussian whose conditional distribution is known."""

from functools import partial

import pytest
import torch

from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.inpainting import KnownPixels
from gcn_cli.samplers.rng import ImageNoise

CORRELATION = 0.8
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])


def denoise(x: torch.Tensor, noise: float) -> torch.Tensor:
    """D of pairs of pixels N(0, COVARIANCE)."""
    filtered = COVARIANCE @ torch.linalg.inv(COVARIANCE + noise**2 * torch.eye(2))
    mean: torch.Tensor = x @ filtered.T
    return mean


def test_the_rest_is_drawn_given_what_is_known_the_better_the_more_rounds() -> None:
    """x given y is N(rho y, 1 - rho^2); a single round falls short of its mean by a third."""
    count, value = 4000, 1.5
    known = torch.tensor([value, 0.0]).expand(1, 1, 1, 2)
    given = KnownPixels(known, torch.tensor([[False, True]]))
    levels = noise_levels(40, 20.0, 0.02)
    means, variances = [], []
    for rounds in (1, 2, 8):
        noise = ImageNoise(0, "chain", [0])
        start = levels[0] * noise((1, 1, count, 2)) + torch.where(given.anew, 0.0, known)
        x = anneal(start, given.holding(denoise), levels, noise, rounds=rounds)
        assert torch.equal(x[..., 0], torch.full((1, 1, count), value))
        means.append(float(x[..., 1].mean()))
        variances.append(float(x[..., 1].var()))
    assert means == sorted(means)
    assert variances == sorted(variances, reverse=True)
    assert means[-1] == pytest.approx(CORRELATION * value, rel=0.06)
    assert variances[-1] == pytest.approx(1 - CORRELATION**2, rel=0.1)


def test_one_round_is_annealing_as_it_was_and_evaluations_are_counted() -> None:
    levels, counted = noise_levels(5, 10.0, 0.1), []
    start = 10 * ImageNoise(0, "start", [0])((1, 1, 3, 2))
    for rounds in (1, 3):
        seen: list[int] = []
        count = partial(lambda kept, k, _: kept.append(k), seen)
        anneal(start, denoise, levels, ImageNoise(0, "c", [0]), count, rounds=rounds)
        counted.append(seen)
    assert counted == [list(range(1, 6)), list(range(1, 14))]
