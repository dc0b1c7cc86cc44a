"""Annealed Langevin sampling with a denoiser: from white noise down the noise levels.

With D(I) = I + s^2 grad log p_s(I), a step from noise level s to t is

    I <- (t/s)^2 I + (1 - (t/s)^2) D + t sqrt(1 - (t/s)^2) Z,

the exact solution of the reverse-time SDE for constant D. To first order in log(s/t) it is a
Langevin step with eps^2 = s^2 - t^2 and a step of the probability flow, each with half of the
drift. Since D changes on the way, it is extrapolated by half a step in log s (SDE-DPM-Solver++(2M),
Lu et al. 2022), which gives images of the same quality from a quarter of the evaluations. Each step
evaluates D once.
"""

import itertools
import math

import torch
from torch import Tensor

from gcn_cli.models.chunks import chunks
from gcn_cli.models.energy import Denoiser
from gcn_cli.samplers.langevin import Callback
from gcn_cli.samplers.rng import NoiseSource


def noise_levels(steps: int, highest: float, lowest: float) -> list[float]:
    """`steps` deviations from highest to lowest, evenly spaced in their logarithm."""
    ratio = math.log(lowest / highest) / max(1, steps - 1)
    return [highest * math.exp(ratio * k) for k in range(steps)]


def with_restarts(levels: list[float], interval: tuple[float, float], times: int) -> list[float]:
    """Levels with those in an interval (lowest, highest) repeated `times` more.

    A chain can correct errors there: each time it goes back up the interval and down again (restart
    sampling, Xu et al. 2023). `anneal` adds the noise where a level is above the last one.
    """
    repeated = [level for level in levels if interval[0] <= level <= interval[1]]
    if len(repeated) < 2:
        return levels
    stop = levels.index(repeated[-1]) + 1
    return [*levels[:stop], *repeated * times, *levels[stop:]]


def count_evaluations(levels: list[float]) -> int:
    """Number of evaluations of D in `anneal`: one per level, except before a restart."""
    return len(levels) - sum(later > level for level, later in itertools.pairwise(levels))


def annealed_step(
    x: Tensor, mean: Tensor, ratio: float, lower: Tensor | float, noise: Tensor
) -> Tensor:
    """One step of the equation above to the level `lower` = t, with ratio = t / s, mean = D."""
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
    resampling: int = 1,
) -> Tensor:
    """Sample from `start`, noisy images at levels[0]; returns D at the last level, (N, C, H, W).

    `start` is overwritten, in chunks: in addition, only D and the last D are in memory. Where a
    level is above the last one, noise is added (`with_restarts`). With `resampling` n, each step
    but the last is taken n times, with noise added in between (RePaint, Lugmayr et al. 2022), so
    that missing pixels adapt to known ones. The callback counts evaluations of D.
    """
    x, last_mean, last_step, evaluations = start, None, math.inf, 0
    for level, lower in zip(levels, [*levels[1:], None], strict=True):
        if lower is not None and lower > level:
            _add_noise_(x, level, lower, noise)
            last_mean = None
            continue
        for repeats_left in reversed(range(resampling if lower else 1)):
            mean = denoise(x, level)
            evaluations += 1
            if lower is None:
                x = mean
            else:
                step = math.log(level / lower)
                extrapolate = last_mean is not None and not repeats_left
                weight = step / last_step / 2 if extrapolate else 0
                parts = chunks(x, mean, mean if last_mean is None else last_mean)
                for image, ahead, behind in parts:
                    if weight:
                        ahead = ahead + (ahead - behind) * weight  # noqa: PLW2901
                    step_noise = noise(image.shape).to(image.dtype)
                    image.copy_(annealed_step(image, ahead, math.exp(-step), lower, step_noise))
                if repeats_left:
                    _add_noise_(x, lower, level, noise)
                else:
                    last_mean, last_step = mean, step
            if callback is not None:
                callback(evaluations, x)
    return x


def _add_noise_(x: Tensor, level: float, higher: float, noise: NoiseSource) -> None:
    """Bring noisy images from a level to a higher one, in place."""
    for (chunk,) in chunks(x):
        chunk.add_(noise(chunk.shape), alpha=math.sqrt(higher**2 - level**2))
