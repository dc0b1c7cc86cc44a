"""Fitting the strength of guidance: against Gaussians, whose variance tells how well it fits."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gcn_cli.learning.guidance import TRIALS, crossing, fit_guidance, smooth
from gcn_cli.sampling.annealed import anneal, noise_levels
from gcn_cli.sampling.noise import ImageNoise

LEVELS = tuple(noise_levels(16, 8.0, 0.1))


@dataclass(frozen=True)
class GaussianRung:
    """Pixels learned as N(0, now), early as N(0, early), seen at a level of noise."""

    noise: float
    now: float
    early: float
    strength: float

    def contrast(self, x: Tensor) -> Tensor:
        precisions = [1 / (variance + self.noise**2) for variance in (self.now, self.early)]
        return -0.5 * (precisions[0] - precisions[1]) * x.square().sum(dim=(1, 2, 3))

    def denoise(self, x: Tensor) -> Tensor:
        now, early = (v / (v + self.noise**2) for v in (self.now, self.early))
        return (now + self.strength * (now - early)) * x


@dataclass
class GaussianLadder:
    now: float
    early: float
    levels: tuple[float, ...] = LEVELS
    strengths: Tensor = field(default_factory=lambda: torch.zeros(len(LEVELS)))

    def at(self, noise: float, dtype: torch.dtype = torch.float32) -> GaussianRung:
        nearest = min(range(len(LEVELS)), key=lambda k: abs(LEVELS[k] - noise))
        return GaussianRung(noise, self.now, self.early, float(self.strengths[nearest]))


def sampled_variance(model: GaussianLadder) -> float:
    noise = ImageNoise(5, "chain", range(2))
    start = math.sqrt(LEVELS[0] ** 2 + 1) * noise((2, 3, 64, 64))
    return float(anneal(start, lambda x, s: model.at(s).denoise(x), list(LEVELS), noise).var())


@pytest.mark.parametrize(("now", "early"), [(1.3, 1.8), (0.8, 0.6)])
def test_guidance_brings_the_variance_of_chains_to_that_of_the_data(
    now: float, early: float
) -> None:
    """Learning went from `early` to `now` on its way to the data's variance of 1."""
    model = GaussianLadder(now, early)
    before = sampled_variance(model)
    assert abs(before - 1) > 0.1
    clean = ImageNoise(1, "data", range(2))((2, 3, 64, 64))
    fit_guidance(model, clean, 0, torch.float32)
    assert abs(sampled_variance(model) - 1) < 0.5 * abs(before - 1)


def test_a_ladder_that_is_right_is_hardly_guided() -> None:
    model = GaussianLadder(1.0, 1.5)
    clean = ImageNoise(1, "data", range(2))((2, 3, 64, 64))
    fit_guidance(model, clean, 0, torch.float32)
    telling = torch.tensor(LEVELS) < 1  # the others hide so much that chance decides
    assert float(model.strengths[telling].max()) < 0.2


def test_the_same_seed_fits_the_same_strengths() -> None:
    clean = ImageNoise(1, "data", range(2))((2, 3, 16, 16))
    models = [GaussianLadder(1.3, 1.8) for _ in range(2)]
    for model in models:
        fit_guidance(model, clean, 3, torch.float32)
    assert torch.equal(models[0].strengths, models[1].strengths)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ((0.1, 0.2, 0.3), TRIALS[0]),
        ((-1.0, 1.0, 2.0), TRIALS[1] / 2),
        ((-1.0, -0.5, 0.5), (TRIALS[1] + TRIALS[2]) / 2),
        ((-3.0, -2.0, -1.0), TRIALS[2]),
    ],
)
def test_crossing_is_where_the_gap_closes(values: tuple[float, ...], place: float) -> None:
    assert crossing(TRIALS, values) == pytest.approx(place)


def test_smoothing_keeps_a_constant_and_spreads_a_peak() -> None:
    assert smooth([0.5] * 4) == [0.5] * 4
    assert smooth([0.0, 1.0, 0.0, 0.0]) == [0.25, 0.5, 0.25, 0.0]
