"""Learning-rate schedule, time planning and convergence checks of noise-conditional models.

A schedule starts with denoising alone: rates warm up, then fall along a half cosine. Maximum
likelihood joins for the last part, at lower rates that fall to nearly zero. Muon steps have a fixed
length, so a longer likelihood part has lower rates: F must not move further than chains follow.
"""

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gcn_cli.errors import DivergedError

WARM_UP = 50  # iterations in which the learning rates rise
FINAL_RATE = 0.01  # share of the rates left at the end
LIKELIHOOD_COST = 2.2  # measured cost of an iteration with likelihood, in denoising iterations


@dataclass(frozen=True)
class Schedule:
    """Learning rates of the iterations `start` + 1 to `end`; rates and shares are 0 to 1."""

    start: int  # 0, or the iterations before the training was extended
    end: int
    likelihood_share: float  # last part of the iterations, trained with likelihood
    likelihood_rate: float  # highest share of the learning rates where this part starts
    full_rate_iterations: int  # a longer part starts at a rate lower in proportion

    @property
    def likelihood_start(self) -> int:
        """The last iteration of denoising alone."""
        return self.start + math.ceil((self.end - self.start) * (1 - self.likelihood_share))

    @property
    def likelihood_start_rate(self) -> float:
        """Share of the learning rates where likelihood training starts."""
        iterations = max(1, self.end - self.likelihood_start)
        return self.likelihood_rate * min(1.0, self.full_rate_iterations / iterations)

    def rate(self, iteration: int) -> float:
        """Share of the learning rates at an iteration."""
        middle = self.likelihood_start
        if iteration > middle:
            progress = (iteration - middle) / (self.end - middle)
            return self.likelihood_start_rate * _half_cosine(progress) + (
                FINAL_RATE * self.likelihood_start_rate
            )
        lowest = self.likelihood_start_rate if self.likelihood_share else FINAL_RATE
        progress = (iteration - self.start) / (middle - self.start)
        decay = lowest + (1 - lowest) * _half_cosine(progress)
        return min(1, (iteration - self.start) / WARM_UP) * decay

    def cost(self, iteration: int) -> float:
        """Cost of the schedule up to an iteration, in iterations of denoising alone."""
        denoising = min(self.likelihood_start, iteration)
        return denoising - self.start + LIKELIHOOD_COST * (iteration - denoising)


@dataclass(frozen=True)
class StageSettings:
    """The settings in which the stages of a training differ."""

    noise_min: float  # in deviations of the stage's data
    noise_max: float
    seed: int
    margin: int  # pixels at the border of crops that do not count in the loss
    max_difference: float  # bound on energy differences
    transition_level: float  # where chains initialize those of the finer stage; 0 for the finest
    schedule: Schedule  # at the beginning

    @property
    def log_range(self) -> float:
        """Length of the range of noise levels, in log s."""
        return math.log(self.noise_max / self.noise_min)


WeightedSchedules = Sequence[tuple[float, Schedule]]
"""Schedules of stages that train together, each with the cost of its denoising iteration."""


def total_cost(schedules: WeightedSchedules, iteration: int) -> float:
    """Cost of all schedules up to an iteration, in the unit of their weights."""
    return sum(weight * schedule.cost(iteration) for weight, schedule in schedules)


def longest_within(schedules: WeightedSchedules, cost: float) -> int:
    """The iterations of the longest complete training that costs at most `cost`."""
    start = schedules[0][1].start

    def cost_of(iterations: int) -> float:
        end = start + iterations
        return total_cost([(weight, replace(old, end=end)) for weight, old in schedules], end)

    bound = 1
    while cost_of(bound) <= cost:
        bound *= 2
    return bisect.bisect_right(range(1, bound), cost, key=cost_of)


def length_for(
    schedules: WeightedSchedules, iteration: int, pace: float, seconds_left: float
) -> int | None:
    """The total iterations of a training that ends `seconds_left` after `iteration`.

    `pace` is the mean time of an iteration of this schedule so far, in seconds. The length is never
    so short that likelihood training would already have started. None once it has in all stages.
    """
    last = max(
        (schedule for _, schedule in schedules), key=lambda schedule: schedule.likelihood_start
    )
    if iteration > last.likelihood_start:
        return None
    done = iteration - last.start
    budget = total_cost(schedules, iteration) * (1 + max(0.0, seconds_left) / (pace * done))
    shortest = math.ceil(done / (1 - last.likelihood_share)) + 1
    return last.start + max(shortest, longest_within(schedules, budget))


def _half_cosine(progress: float) -> float:
    """From 1 to 0 as `progress` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


MIN_LOSSES = 50  # for a convergence check
SPIKE = 3.0  # times the median loss: a step overshot
MANY_SPIKES = 0.01  # share of the losses; from fewer, before the last fifth, a training recovers
FLAT = 0.01  # relative fall of the loss that counts as none
LARGE_DIFFERENCE = 0.06  # energy difference per value, above chance
DIVERGED_LOSS = 20.0  # a Gaussian model has a loss of 1 at most
CHAIN_DEVIATIONS = (0.02, 20.0)  # of a chain over noisy data: below it collapsed, above diverged


class Convergence(NamedTuple):
    """What a loss does: "unstable", "stalled", "converged" or "still learning", and the figures."""

    state: str
    reason: str

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


def convergence(losses: Sequence[float]) -> Convergence | None:
    """What the denoising losses, in order, do if they show more than chance.

    The loss of an iteration varies by several percent with its crops and its noise: short trainings
    mostly show nothing, and None is returned, as for fewer than MIN_LOSSES.
    """
    if len(losses) < MIN_LOSSES:
        return None
    fifth = len(losses) // 5
    first, previous, last = losses[:fifth], losses[-2 * fifth : -fifth], losses[-fifth:]
    loss = statistics.fmean(last)
    high = SPIKE * statistics.median(losses)
    spikes = sum(value > high for value in losses[fifth:])
    if spikes > MANY_SPIKES * len(losses) or max(last) > high:
        reason = f"{spikes} of {len(losses)} losses are far above the median; lower filter_rate"
        return Convergence("unstable", reason)
    fall, error = _relative_fall(first, last)
    if fall + error < FLAT:
        reason = f"the loss, {loss:.3g}, is not below that of the first iterations"
        return Convergence("stalled", reason)
    fall, error = _relative_fall(previous, last)
    if fall + error < FLAT:
        return Convergence("converged", f"the loss, {loss:.3g}, no longer falls")
    if fall > error:
        reason = f"the loss, {loss:.3g}, fell by {fall:.1%} in the last fifth"
        return Convergence("still learning", reason)
    return None


def _relative_fall(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The fall of the mean loss as a share of it, and twice the standard error of that share."""
    mean = statistics.fmean(before)
    variance = sum(statistics.pvariance(part) / len(part) for part in (before, after))
    return 1 - statistics.fmean(after) / mean, 2 * math.sqrt(variance) / mean


def difference_warning(differences: Sequence[float]) -> str | None:
    """One sentence if the energy differences, in order, are large in the last fifth."""
    if not differences:
        return None
    mean = statistics.fmean(differences[-(len(differences) // 5 + 1) :])
    if mean <= LARGE_DIFFERENCE:
        return None
    return (
        f"unstable: the energy difference between samples and data stays at {mean:.2g}; "
        "lower likelihood_weight or filter_rate"
    )


def too_short_warning(schedules: WeightedSchedules, iteration: int) -> str:
    """One sentence on a training that stops at an iteration, before its likelihood part."""
    length = longest_within(schedules, total_cost(schedules, iteration))
    return (
        "samples are rough without likelihood training: run the same command again to resume; "
        f"a complete training in this time is --iterations {max(1, length)} --overwrite"
    )


def check_divergence(
    iteration: int, loss: float, difference: float, lowest: float, highest: float
) -> None:
    """Raise DivergedError if a metric is not finite, the loss is huge, or a chain left the data.

    `lowest` and `highest` are deviations of chains relative to noisy data.
    """
    metrics = {"loss": loss, "energy difference": difference, "deviation of a chain": highest}
    bad = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        reason = bad[0]
    elif loss > DIVERGED_LOSS:
        reason = f"the loss diverged to {loss:.3g}"
    elif lowest < CHAIN_DEVIATIONS[0]:
        reason = f"a chain collapsed to {lowest:.3g} times the deviation of noisy data"
    elif highest > CHAIN_DEVIATIONS[1]:
        reason = f"a chain diverged to {highest:.3g} times the deviation of noisy data"
    else:
        return
    raise DivergedError(f"iteration {iteration}: {reason}")
