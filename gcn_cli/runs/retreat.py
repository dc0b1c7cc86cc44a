"""Where to go back to when learning diverges: states of a while ago, kept in memory."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.errors import DivergedError
from gcn_cli.learning.trainer import Metrics
from gcn_cli.runs.training import Training
from gcn_cli.values import option_name

log = logging.getLogger(__name__)

EVERY = 50  # iterations from one kept state to the next
KEPT = 3  # states: what was kept last may already have been on its way out
TRIES = 3  # times a training goes back


class Kept(NamedTuple):
    """A training as it stood after an iteration: the learner's state and all measures until then.

    The measures are kept too: after a step back the training's own are those of another way.
    """

    iteration: int
    state: dict[str, Tensor]
    history: Sequence[Metrics]


class Retreat:
    """The last good states of a training, and how often it went back to one."""

    def __init__(self, training: Training) -> None:
        self.kept: deque[Kept] = deque(maxlen=KEPT)
        self.newest = Kept(-1, {}, ())  # of all that were ever kept
        self.tried = 0
        self._keep(training)

    def note(self, training: Training) -> None:
        """Keep the state of a training now and then; to be called after every iteration."""
        if training.iteration % EVERY == 0:
            self._keep(training)

    def back(self, training: Training, error: DivergedError) -> bool:
        """Have a training that diverged stand at an earlier state, with steps half as long.

        That state is given up: should it lead astray again, one before it is taken. False where it
        was tried too often: then the training stands at the newest state that was good.
        """
        self.tried += 1
        if self.tried > TRIES:
            self.put_back(training)
            return False
        found = self.kept.pop() if len(self.kept) > 1 else self.kept[0]
        _stand(training, found, training.family.config.slower())
        log.info("%s; back to iteration %d with %s", error, training.iteration, _named(training))
        return True

    def put_back(self, training: Training) -> None:
        """Have a training stand at the newest state that was good, as it was."""
        _stand(training, self.newest, training.family.config)

    def given_up(self, training: Training, error: DivergedError) -> DivergedError:
        """What is to be said after the last try."""
        names = [option_name(name) for name in training.asked.steps_lowered]
        left = "nothing is saved"
        if training.iteration:
            left = f"the model of iteration {training.iteration} is saved"
        return DivergedError(
            f"{error}, after going back {TRIES} times; {left}; lower {' or '.join(names)}, "
            "then --overwrite"
        )

    def _keep(self, training: Training) -> None:
        state = training.learner.state()
        if all(bool(tensor.isfinite().all()) for tensor in state.values()):
            copies = {name: tensor.detach().clone() for name, tensor in state.items()}
            self.kept.append(Kept(training.iteration, copies, tuple(training.history)))
            if training.iteration > self.newest.iteration:
                self.newest = self.kept[-1]


def _stand(training: Training, kept: Kept, config: Config) -> None:
    """Have a training stand at a kept state; what was kept stays as it is."""
    state = {name: tensor.clone() for name, tensor in kept.state.items()}
    training.go_back(kept.iteration, state, kept.history, config)


def _named(training: Training) -> str:
    config = training.family.config
    names = config.steps_lowered
    return ", ".join(f"{option_name(name)} {getattr(config, name):g}" for name in names)
