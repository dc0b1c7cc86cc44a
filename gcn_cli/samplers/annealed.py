"""Annealed Langevin sampling: from white noise down the ladder, one evaluation of B a step.

Langevin dynamics whose noise level falls from s to t has, while D(I) = I + s^2 grad log p_s(I)
stays what it is, the exact solution

    I <- (t/s)^2 I + (1 - (t/s)^2) D + t sqrt(1 - (t/s)^2) Z,

to first order in log(s/t) a Langevin step of eps^2 = 2 (s^2 - t^2). D does change on the way:
it is carried half a step ahead along its last change (Adams-Bashforth in log s), which gives the
same pictures from a quarter of the evaluations.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gcn_cli.models.chunks import chunks
from gcn_cli.samplers.langevin import Callback
from gcn_cli.samplers.rng import NoiseSource

Denoiser = Callable[[Tensor, float], Tensor]
"""D: (N, C, H, W) at a noise deviation -> the mean of the clean images."""


def noise_levels(steps: int, highest: float, lowest: float) -> list[float]:
    """`steps` deviations from highest to lowest, evenly spaced in their logarithm."""
    ratio = math.log(lowest / highest) / max(1, steps - 1)
    return [highest * math.exp(ratio * k) for k in range(steps)]


def with_restarts(levels: list[float], band: tuple[float, float], times: int) -> list[float]:
    """Levels of which those in a band, lowest and highest, are gone through `times` more.

    A chain that has settled something wrongly there can settle it anew (restart sampling, Xu et al.
    2023). `anneal` puts noise on where a level is above the one before.
    """
    again = [level for level in levels if band[0] <= level <= band[1]]
    if len(again) < 2:
        return levels
    after = levels.index(again[-1]) + 1
    return [*levels[:after], *again * times, *levels[after:]]


def count_evaluations(levels: list[float]) -> int:
    """How often `anneal` asks for D on its way: at every level but those that noise is put on."""
    return len(levels) - sum(later > level for level, later in itertools.pairwise(levels))


def annealed_step(
    x: Tensor, mean: Tensor, ratio: float, lower: Tensor | float, noise: Tensor
) -> Tensor:
    """From a level to `ratio` times it, which is `lower`, about the posterior mean D."""
    kept = ratio**2
    return mean + kept * (x - mean) + lower * math.sqrt(1 - kept) * noise


@torch.no_grad()
def anneal(
    start: Tensor,
    denoise: Denoiser,
    levels: list[float],
    noise: NoiseSource,
    callback: Callback | None = None,
    *,
    rounds: int = 1,
) -> Tensor:
    """Run down `levels` from `start`, noisy images at levels[0]; the last step ends at D.

    `start` is moved in place, piece by piece: beside it there are only D and the D before. Where a
    level is above the one before, noise is put on (`with_restarts`).
    With `rounds` above 1 every step down but the last is taken back by noise and taken again, so
    often in all: chains with a part that is given need the time to settle beside it. The callback
    counts evaluations. (N, C, H, W) -> (N, C, H, W).
    """
    x, before, last_step, evaluated = start, None, math.inf, 0
    for level, lower in zip(levels, [*levels[1:], None], strict=True):
        if lower is not None and lower > level:
            _raise_(x, level, lower, noise)
            before = None
            continue
        for left in reversed(range(rounds if lower else 1)):
            mean = denoise(x, level)
            evaluated += 1
            if lower is None:
                x = mean
            else:
                step = math.log(level / lower)
                further = 0.0 if before is None or left else step / last_step / 2
                for now, ahead, past in chunks(x, mean, mean if before is None else before):
                    aim = ahead + (ahead - past) * further if further else ahead
                    drawn = noise(now.shape).to(now.dtype)
                    now.copy_(annealed_step(now, aim, math.exp(-step), lower, drawn))
                if left:
                    _raise_(x, lower, level, noise)
                else:
                    before, last_step = mean, step
            if callback is not None:
                callback(evaluated, x)
    return x


def _raise_(x: Tensor, level: float, higher: float, noise: NoiseSource) -> None:
    """Put noise on images at a level, in place, so that they are at a higher one."""
    for (now,) in chunks(x):
        now.add_(noise(now.shape), alpha=math.sqrt(higher**2 - level**2))
