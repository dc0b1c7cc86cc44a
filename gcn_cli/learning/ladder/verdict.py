"""What a course of losses says: has learning stalled, been unstable, settled, or is it going on?

And when it cannot go on: what is not finite, or has run away.
"""

import math
import statistics
from collections.abc import Sequence

from gcn_cli.errors import DivergedError
from gcn_cli.learning.ladder.course import Weighed, whole_within, work_done

FEWEST = 50  # losses that a verdict needs
SPIKE = 3.0  # times the median: a step that overshot
STALLED = 0.99  # share of the first losses that is hardly less
SETTLED = 0.005  # share of the loss by which a fifth of the training hardly lowers it
APART = 0.06  # a gap between data and chains that is no chance
RUNAWAY = 20.0  # a loss: that of a Gaussian is 1 at most
SPREAD = (0.02, 20.0)  # of a chain's deviation to that of noisy data: a collapsed one, a runaway


def verdict(losses: Sequence[float]) -> str | None:
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
    if fallen < max(SETTLED, 2 * error):
        return f"settled: the loss, {now:.3g}, no longer falls"
    return f"still learning: the loss, {now:.3g}, fell by {fallen:.1%} in the last fifth"


def apart(gaps: Sequence[float]) -> str | None:
    """One sentence on the gaps between data and chains in order, where they end too large."""
    last = gaps[-(len(gaps) // 5 + 1) :]
    if not gaps or statistics.fmean(last) <= APART:
        return None
    return "unstable: samples stay apart from the data; lower --likelihood or --filter-rate"


def unrefined(side_by_side: Weighed, iteration: int) -> str:
    """One sentence on a training that ends at an iteration, before its likelihood."""
    whole = whole_within(side_by_side, work_done(side_by_side, iteration))
    return (
        "samples are rough until the likelihood has had its part: the same command goes on; "
        f"a whole training in this time is --iterations {max(1, whole)} --overwrite"
    )


def check_course(iteration: int, loss: float, gap: float, low: float, high: float) -> None:
    """Raise DivergedError for what is not finite, a runaway loss, chains that collapse or run."""
    for name, value in (("loss", loss), ("gap", gap), ("a chain's deviation", high)):
        if not math.isfinite(value):
            raise DivergedError(f"iteration {iteration}: {name} is {value}")
    if loss > RUNAWAY:
        raise DivergedError(f"iteration {iteration}: the loss ran away to {loss:.3g}")
    if low < SPREAD[0] or high > SPREAD[1]:
        what, how = ("collapsed", low) if low < SPREAD[0] else ("ran away", high)
        raise DivergedError(f"iteration {iteration}: a chain {what} to {how:.3g} of its deviation")
