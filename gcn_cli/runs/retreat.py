"""Where to go back to when learning diverges: states of a while ago, kept in memory."""

import logging
from collections import deque

from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.errors import DivergedError
from gcn_cli.runs.training import Training
from gcn_cli.values import option_name

log = logging.getLogger(__name__)

EVERY = 50  # iterations from one kept state to the next
KEPT = 3  # states: what was kept last may already have been on its way out
TRIES = 3  # times a training goes back


class Retreat:
    """The last good states of a training, and how often it went back to one."""

    def __init__(self, training: Training) -> None:
        self.kept: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=KEPT)
        self.tried = 0
        self._keep(training)

    def note(self, training: Training) -> None:
        """Keep the state of a training now and then; to be called after every iteration."""
        if training.iteration % EVERY == 0:
            self._keep(training)

    def back(self, training: Training, error: DivergedError) -> bool:
        """Have a training that diverged stand at an earlier state, with steps half as long.

        Each time at an earlier one, where there is one. False where it was tried too often: then
        the training stands at that state, as it was.
        """
        self.tried += 1
        going_on = self.tried <= TRIES
        config = training.family.config
        self.put_back(training, config.slower() if going_on else config)
        if going_on:
            log.info(
                "%s; back to iteration %d with %s", error, training.iteration, _named(training)
            )
        return going_on

    def put_back(self, training: Training, config: Config | None = None) -> None:
        """Have a training stand at the last state kept, which is given up if there is another."""
        iteration, state = self.kept.pop() if len(self.kept) > 1 else self.kept[0]
        own = {name: tensor.clone() for name, tensor in state.items()}
        training.go_back(iteration, own, config or training.family.config)

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
            own = {name: tensor.detach().clone() for name, tensor in state.items()}
            self.kept.append((training.iteration, own))


def _named(training: Training) -> str:
    config = training.family.config
    names = config.steps_lowered
    return ", ".join(f"{option_name(name)} {getattr(config, name):g}" for name in names)
