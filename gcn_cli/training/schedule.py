"""The course of a ladder's training: its learning rates, and how long a course fits into a time.

A course begins with denoising alone, at rates that rise, and fall to a small part of the highest;
then the likelihood has its part, at rates that fall from there to nothing. The longer that part is,
the lower these rates: a step of Muon is as long as ever, and F would go further than chains follow.

What a course of losses says: has learning stalled, been unstable, settled, or is it going on?

And when it cannot go on: what is not finite, or has run away.
"""

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gcn_cli.errors import DivergedError

WARM_UP = 50  # iterations in which the learning rates rise
LAST_RATE = 0.01  # share of the rates that is left at the end
REFINING_COST = 2.2  # of an iteration with likelihood, in those of denoising alone, measured


@dataclass(frozen=True)
class Schedule:
    """The iterations after `begun` up to `length`, which is that of the whole training."""

    begun: int  # iterations of the courses before
    length: int
    refined: float  # share of the course, at its end, in which the likelihood counts: 0 to 1
    refined_rate: float  # share of the learning rates at which it begins to, at most
    refined_fully: int  # iterations for which it begins at that; of more, lower in proportion

    @property
    def turn(self) -> int:
        """The last iteration of denoising alone."""
        return self.begun + math.ceil((self.length - self.begun) * (1 - self.refined))

    @property
    def turning_rate(self) -> float:
        """Share of the learning rates at which the likelihood begins to count."""
        return self.refined_rate * min(1.0, self.refined_fully / max(1, self.length - self.turn))

    def rate(self, iteration: int) -> float:
        """Share of the learning rates at an iteration, 0 to 1."""
        turn = self.turn
        if iteration > turn:
            done = (iteration - turn) / (self.length - turn)
            return self.turning_rate * _half_cosine(done) + LAST_RATE * self.turning_rate
        last = self.turning_rate if self.refined else LAST_RATE
        done = (iteration - self.begun) / (turn - self.begun)
        falling = last + (1 - last) * _half_cosine(done)
        return min(1, (iteration - self.begun) / WARM_UP) * falling

    def work(self, iteration: int) -> float:
        """What the course takes up to an iteration, in iterations of denoising alone."""
        turn = min(self.turn, iteration)
        return turn - self.begun + REFINING_COST * (iteration - turn)


WeightedSchedules = Sequence[tuple[float, Schedule]]
"""Courses of ladders that learn side by side, and what a denoising iteration of each takes."""


def longest_within(side_by_side: WeightedSchedules, work: float) -> int:
    """The iterations of the longest whole course that takes no more than `work`."""
    begun = side_by_side[0][1].begun

    def taken(iterations: int) -> float:
        length = begun + iterations
        return sum(cost * replace(own, length=length).work(length) for cost, own in side_by_side)

    most = 1
    while taken(most) <= work:
        most *= 2
    return bisect.bisect_right(range(1, most), work, key=taken)


def work_done(side_by_side: WeightedSchedules, iteration: int) -> float:
    """What the courses have taken up to an iteration, in the unit of their costs."""
    return sum(cost * own.work(iteration) for cost, own in side_by_side)


def length_for(
    side_by_side: WeightedSchedules, iteration: int, pace: float, left: float
) -> int | None:
    """The length of a whole training that ends `left` seconds after `iteration`.

    `pace` is what an iteration of this course has taken so far, in seconds. Not so short that the
    likelihood would have begun before; None where it has begun for all.
    """
    last = max((own for _, own in side_by_side), key=lambda own: own.turn)
    if iteration > last.turn:
        return None
    done = iteration - last.begun
    affordable = work_done(side_by_side, iteration) * (1 + max(0.0, left) / (pace * done))
    fewest = math.ceil(done / (1 - last.refined)) + 1
    return last.begun + max(fewest, longest_within(side_by_side, affordable))


def _half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


FEWEST = 50  # losses that a verdict needs
SPIKE = 3.0  # times the median: a step that overshot
STALLED = 0.99  # share of the first losses that is hardly less
SETTLED_SHARE = 0.005  # share of the loss by which a fifth of the training hardly lowers it
APART = 0.06  # a gap between data and chains that is no chance
RUNAWAY_LOSS = 20.0  # a loss: that of a Gaussian is 1 at most
SPREAD = (0.02, 20.0)  # of a chain's deviation to that of noisy data: a collapsed one, a runaway


def convergence(losses: Sequence[float]) -> str | None:
    """One sentence on denoising losses in order; None for too few of them."""
    if len(losses) < FEWEST:
        return None
    fifth = len(losses) // 5
    first, before, last = losses[:fifth], losses[-2 * fifth : -fifth], losses[-fifth:]
    now = statistics.fmean(last)
    spikes = sum(loss > SPIKE * statistics.median(losses) for loss in losses[fifth:])
    if spikes:
        return f"unstable: {spikes} losses far above the rest; lower --filter-rate"
    if now > STALLED * statistics.fmean(first):
        return f"stalled: the loss, {now:.3g}, is hardly below that of the first iterations"
    fallen = 1 - now / statistics.fmean(before)
    error = statistics.pstdev(last) / now * (2 / fifth) ** 0.5
    if fallen < max(SETTLED_SHARE, 2 * error):
        return f"settled: the loss, {now:.3g}, no longer falls"
    return f"still learning: the loss, {now:.3g}, fell by {fallen:.1%} in the last fifth"


def difference_warning(gaps: Sequence[float]) -> str | None:
    """One sentence on the gaps between data and chains in order, where they end too large."""
    last = gaps[-(len(gaps) // 5 + 1) :]
    if not gaps or statistics.fmean(last) <= APART:
        return None
    return "unstable: samples stay apart from the data; lower --likelihood or --filter-rate"


def too_short_warning(side_by_side: WeightedSchedules, iteration: int) -> str:
    """One sentence on a training that ends at an iteration, before its likelihood."""
    whole = longest_within(side_by_side, work_done(side_by_side, iteration))
    return (
        "samples are rough until the likelihood has had its part: the same command goes on; "
        f"a whole training in this time is --iterations {max(1, whole)} --overwrite"
    )


def check_divergence(iteration: int, loss: float, gap: float, low: float, high: float) -> None:
    """Raise DivergedError for what is not finite, a runaway loss, chains that collapse or run."""
    for name, value in (("loss", loss), ("gap", gap), ("a chain's deviation", high)):
        if not math.isfinite(value):
            raise DivergedError(f"iteration {iteration}: {name} is {value}")
    if loss > RUNAWAY_LOSS:
        raise DivergedError(f"iteration {iteration}: the loss ran away to {loss:.3g}")
    if low < SPREAD[0] or high > SPREAD[1]:
        what, how = ("collapsed", low) if low < SPREAD[0] else ("ran away", high)
        raise DivergedError(f"iteration {iteration}: a chain {what} to {how:.3g} of its deviation")
