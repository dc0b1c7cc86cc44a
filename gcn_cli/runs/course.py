"""A training that is to fit into a time: its length is chosen by the speed it turns out to have."""

import logging
import time
from typing import TYPE_CHECKING

from gcn_cli.config.ladder import USUAL_IMAGES

if TYPE_CHECKING:
    from gcn_cli.runs.training import Training

log = logging.getLogger(__name__)

SHARE = 0.93  # of the time that is planned for; iterations vary, and the end is to be reached
WARM_UP = 3  # iterations in which libraries choose their kernels
FIRST = 10  # iterations after them that are timed before the first plan
REVISIONS = 10  # of the plan in a course


class Course:
    """Revises how many iterations a training has, so that it ends in time, refined and whole."""

    def __init__(
        self, seconds: float, started: float, training: "Training", most: int | None
    ) -> None:
        """`started` is a reading of the monotonic clock; `most` are the iterations there may be."""
        self.ends = started + SHARE * seconds
        self.most = most
        self.timed_from, self.timed_at = training.iteration + WARM_UP, started
        self.next = self.timed_from + FIRST

    def __call__(self, training: "Training") -> None:
        """To be called after every iteration."""
        now, iteration = time.monotonic(), training.iteration
        if iteration == self.timed_from:
            self.timed_at = now
        if iteration < self.next:
            return
        pace = (now - self.timed_at) / (iteration - self.timed_from)
        length = training.learner.length_for(iteration, pace, self.ends - now)
        if length is None:
            return
        chosen = length if self.most is None else min(length, self.most)
        if (
            self.most is not None
            and chosen < self.most
            and training.learner.iterations == self.most
        ):
            log.info(
                "some %d iterations fit into the time, of %d%s",
                chosen,
                self.most,
                _remedy(training, chosen),
            )
        training.set_length(chosen)
        self.next = iteration + max(FIRST, chosen // REVISIONS)


def _remedy(training: "Training", chosen: int) -> str:
    """What leaves time for more of them, if anything does: fewer than usual of many images lose."""
    config = training.learner.config
    images = config.batch_size or 0
    few = chosen < config.length_as(None)
    if not few or not config.texture_ladder or images <= USUAL_IMAGES:
        return ""
    return f"; --batch-size {USUAL_IMAGES}, not {images}, leaves time for more, and samples gain"
