"""Annealed sampling from a Gaussian whose denoiser is known."""

import math

import pytest
import torch
from torch import Tensor

from gcn_cli.samplers.annealed import anneal, count_evaluations, noise_levels, with_restarts
from gcn_cli.samplers.rng import ImageNoise

MEAN, VARIANCE = 0.4, 0.25


def denoise(x: Tensor, level: float) -> Tensor:
    return (VARIANCE * x + level**2 * MEAN) / (VARIANCE + level**2)


def evaluated_levels(levels: list[float]) -> tuple[list[float], list[int]]:
    """Levels at which `anneal` evaluates D, and the steps that the callback gets."""
    calls: list[float] = []
    steps: list[int] = []

    def record(x: Tensor, level: float) -> Tensor:
        calls.append(level)
        return 0 * x

    noise = ImageNoise(0, "chain", [0])
    anneal(torch.ones(1, 1, 2, 2), record, levels, noise, lambda step, _: steps.append(step))
    return calls, steps


@pytest.mark.parametrize(
    ("steps", "restarts", "tolerance"), [(25, 0, 0.05), (100, 0, 0.02), (50, 4, 0.05)]
)
def test_samples_have_mean_and_deviation_of_the_gaussian(
    steps: int, restarts: int, tolerance: float
) -> None:
    noise = ImageNoise(0, "chain", range(8))
    levels = with_restarts(noise_levels(steps, 25.0, 0.02), (0.2, 3.0), restarts)
    x = anneal(25.0 * noise((8, 1, 60, 60)), denoise, levels, noise)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(math.sqrt(VARIANCE), rel=tolerance)


def test_levels_are_evenly_spaced_and_evaluated_once() -> None:
    levels = noise_levels(5, 16.0, 1.0)
    assert levels == pytest.approx([16, 8, 4, 2, 1])
    assert noise_levels(1, 16.0, 1.0) == [16.0]
    assert evaluated_levels(levels) == (levels, [1, 2, 3, 4, 5])


def test_a_single_step_is_the_denoised_start() -> None:
    x = anneal(torch.ones(1, 1, 2, 2), denoise, [3.0], ImageNoise(0, "chain", [0]))
    torch.testing.assert_close(x, denoise(torch.ones(1, 1, 2, 2), 3.0))


def test_restarts_repeat_the_levels_of_an_interval() -> None:
    levels = noise_levels(5, 16.0, 1.0)
    restarted = with_restarts(levels, (1.5, 9.0), 2)
    assert restarted == pytest.approx([16, 8, 4, 2, 8, 4, 2, 8, 4, 2, 1])
    assert with_restarts(levels, (3.0, 5.0), 2) == levels  # one level cannot be repeated
    calls, _ = evaluated_levels(restarted)
    assert calls == pytest.approx([16, 8, 4, 8, 4, 8, 4, 2, 1])  # noise is added at 2, twice
    assert count_evaluations(restarted) == len(calls)
