"""Annealed sampling against a Gaussian whose denoiser is known."""

import math

import pytest
import torch

from gcn_cli.samplers.annealed import anneal, count_evaluations, noise_levels, with_restarts
from gcn_cli.samplers.rng import ImageNoise

MEAN, VARIANCE = 0.4, 0.25


def denoise(x: torch.Tensor, level: float) -> torch.Tensor:
    return (VARIANCE * x + level**2 * MEAN) / (VARIANCE + level**2)


@pytest.mark.parametrize(("steps", "tolerance"), [(25, 0.05), (100, 0.02)])
def test_it_recovers_mean_and_deviation_of_a_gaussian(steps: int, tolerance: float) -> None:
    noise = ImageNoise(0, "chain", range(8))
    levels = noise_levels(steps, 25.0, 0.02)
    x = anneal(25.0 * noise((8, 1, 60, 60)), denoise, levels, noise)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(math.sqrt(VARIANCE), rel=tolerance)


def test_levels_are_evenly_spaced_and_counted() -> None:
    levels = noise_levels(5, 16.0, 1.0)
    assert levels == pytest.approx([16, 8, 4, 2, 1])
    assert noise_levels(1, 16.0, 1.0) == [16.0]
    calls: list[float] = []

    def counting(x: torch.Tensor, level: float) -> torch.Tensor:
        calls.append(level)
        return 0 * x

    seen: list[int] = []
    noise = ImageNoise(0, "chain", [0])
    anneal(torch.ones(1, 1, 2, 2), counting, levels, noise, lambda number, _: seen.append(number))
    assert calls == levels
    assert seen == [1, 2, 3, 4, 5]


def test_a_single_step_is_the_denoised_start() -> None:
    x = anneal(torch.ones(1, 1, 2, 2), denoise, [3.0], ImageNoise(0, "chain", [0]))
    torch.testing.assert_close(x, denoise(torch.ones(1, 1, 2, 2), 3.0))


def test_levels_of_a_band_are_gone_through_again() -> None:
    levels = noise_levels(5, 16.0, 1.0)
    again = with_restarts(levels, (1.5, 9.0), 2)
    assert again == pytest.approx([16, 8, 4, 2, 8, 4, 2, 8, 4, 2, 1])
    assert with_restarts(levels, (3.0, 5.0), 2) == levels  # a level alone is no way
    calls: list[float] = []

    def counting(x: torch.Tensor, level: float) -> torch.Tensor:
        calls.append(level)
        return 0 * x

    anneal(torch.ones(1, 1, 2, 2), counting, again, ImageNoise(0, "chain", [0]))
    assert calls == pytest.approx([16, 8, 4, 8, 4, 8, 4, 2, 1])  # noise is put on at 2, twice
    assert count_evaluations(again) == len(calls)


def test_chains_that_went_back_up_are_of_the_same_gaussian() -> None:
    noise = ImageNoise(0, "chain", range(8))
    levels = with_restarts(noise_levels(50, 25.0, 0.02), (0.2, 3.0), 4)
    x = anneal(25.0 * noise((8, 1, 60, 60)), denoise, levels, noise)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(math.sqrt(VARIANCE), rel=0.05)
