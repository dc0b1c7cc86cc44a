"""How strongly a ladder is guided: maximum likelihood for one number a level.

With the ladder as it is now and as it was early held fixed, p_s (p_s / p_s^early)^g is an
exponential family in g whose statistic is the contrast h = f_now - f_early. Its likelihood is
largest where chains and noisy data have the same mean of h, the paper's learning rule for one
parameter; a prior about 0 keeps it from following chance where h says little, at levels that
hide a whole picture. Chains are run down the ladder at a few strengths; between them the gap
in h is taken to be linear.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.sampling.annealed import anneal
from gcn_cli.sampling.noise import ImageNoise

TRIALS = (0.0, 0.75, 1.5)  # strengths at which chains are run; the last is the largest there is
PRIOR_DEVIATION = 1.0  # of g; where h varies by some nats it has no say


class Rung(Protocol):
    """A guided level, as far as its strength is concerned."""

    def contrast(self, x: Tensor) -> Tensor: ...

    def denoise(self, x: Tensor) -> Tensor: ...


class Guided(Protocol):
    """A model with a strength of guidance at each of its levels, which fall."""

    levels: tuple[float, ...]
    strengths: Tensor

    def at(self, noise: float, dtype: torch.dtype) -> Rung: ...


@torch.no_grad()
def fit_guidance(model: Guided, clean: Tensor, seed: int, dtype: torch.dtype) -> None:
    """Set the strengths of `model` by chains of the shape of `clean`, data (N, C, H, W)."""
    numbers = range(len(clean))
    observed: list[float] = []
    noise = ImageNoise(seed, "guidance data", numbers, clean.device)
    for level in model.levels:
        noisy = clean + level * noise(clean.shape)
        observed.append(float(model.at(level, dtype).contrast(noisy).sum()))
    gaps = []
    for strength in TRIALS:
        model.strengths.fill_(strength)
        noise = ImageNoise(seed, "guidance", numbers, clean.device)
        start = math.sqrt(model.levels[0] ** 2 + 1) * noise(clean.shape)
        reached = _contrasts(model, start, noise, dtype)
        # The slope of -log likelihood, in nats, and of the prior.
        prior = strength / PRIOR_DEVIATION**2
        gaps.append([there - here + prior for there, here in zip(reached, observed, strict=True)])
    fitted = [crossing(TRIALS, gap) for gap in zip(*gaps, strict=True)]
    model.strengths.copy_(torch.tensor(smooth(fitted)))


def _contrasts(model: Guided, start: Tensor, noise: ImageNoise, dtype: torch.dtype) -> list[float]:
    """The contrast of chains, summed over them, as they pass each level."""
    sums = []

    def denoise(x: Tensor, level: float) -> Tensor:
        rung = model.at(level, dtype)
        sums.append(rung.contrast(x).sum())
        return rung.denoise(x)

    anneal(start, denoise, list(model.levels), noise)
    return torch.stack(sums).tolist()


def crossing(places: Sequence[float], values: Sequence[float]) -> float:
    """Where a piecewise linear function first rises to 0; an end of `places` if it nowhere does."""
    if values[0] >= 0:
        return places[0]
    for k in range(1, len(places)):
        if values[k] >= 0:
            share = values[k - 1] / (values[k - 1] - values[k])
            return places[k - 1] + share * (places[k] - places[k - 1])
    return places[-1]


def smooth(values: Sequence[float]) -> list[float]:
    """Means of neighbours, weighted 1, 2, 1: chains that small measure with some error."""
    ends = [values[0], *values, values[-1]]
    return [(ends[k] + 2 * ends[k + 1] + ends[k + 2]) / 4 for k in range(len(values))]
