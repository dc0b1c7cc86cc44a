"""The course of a ladder's training: its learning rates, and how long a course fits into a time.

A course begins with denoising alone, at rates that rise, and fall to a small part of the highest;
then the likelihood has its part, at rates that fall from there to nothing. The longer that part is,
the lower these rates: a step of Muon is as long as ever, and F would go further than chains follow.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

WARM_UP = 50  # iterations in which the learning rates rise
LAST_RATE = 0.01  # share of the rates that is left at the end
REFINING_COST = 2.2  # of an iteration with likelihood, in those of denoising alone, measured


@dataclass(frozen=True)
class Course:
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


Weighed = Sequence[tuple[float, Course]]
"""Courses of ladders that learn side by side, and what a denoising iteration of each takes."""


def whole_within(side_by_side: Weighed, work: float) -> int:
    """The iterations of the longest whole course that takes no more than `work`."""
    begun = side_by_side[0][1].begun

    def taken(iterations: int) -> float:
        length = begun + iterations
        return sum(cost * replace(own, length=length).work(length) for cost, own in side_by_side)

    most = 1
    while taken(most) <= work:
        most *= 2
    return bisect.bisect_right(range(1, most), work, key=taken)


def work_done(side_by_side: Weighed, iteration: int) -> float:
    """What the courses have taken up to an iteration, in the unit of their costs."""
    return sum(cost * own.work(iteration) for cost, own in side_by_side)


def length_for(side_by_side: Weighed, iteration: int, pace: float, left: float) -> int | None:
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
    return last.begun + max(fewest, whole_within(side_by_side, affordable))


def _half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))
