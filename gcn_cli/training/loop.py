"""The training loop. It counts, stops and reports; what a step computes is the learner's."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.errors import DivergedError
from gcn_cli.training.data import TrainingData
from gcn_cli.training.distributed import ProcessGroup

Metrics = dict[str, float]


class Trainer(Protocol):
    """One training: a step, a look at its samples, and a state that can be saved whole.

    A step raises DivergedError where it sees that learning ran away.
    """

    observed: TrainingData
    ranks: ProcessGroup

    @property
    def config(self) -> Config:
        """What it is trained with; its length changes with `set_length` and `extend`."""
        ...

    @property
    def iterations(self) -> int: ...

    def step(self, iteration: int) -> Metrics: ...

    def preview(self) -> Tensor: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: dict[str, Tensor]) -> None: ...

    def verdicts(self, history: Sequence[Metrics]) -> list[str]: ...

    def cut_short(self, iteration: int) -> list[str]: ...

    def length_for(self, iteration: int, pace: float, left: float) -> int | None:
        """Iterations of a whole training that ends `left` seconds after `iteration`.

        `pace` is what an iteration has taken so far, in seconds. None where the length is fixed.
        """
        ...

    def set_length(self, iterations: int) -> None:
        """Change the course to one of so many iterations."""
        ...

    @property
    def turns(self) -> list[int]:
        """Iterations after which all take longer than before, in order."""
        ...

    @property
    def was_extended(self) -> bool:
        """Whether iterations were added."""
        ...

    def extend(self, iterations: int) -> None:
        """Have so many iterations more, once all are done."""
        ...


def run_iterations(
    learner: Trainer,
    *,
    done: int,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, Metrics], None],
) -> int:
    """Run from iteration `done` + 1 to the learner's last; returns the last iteration done.

    The last may change on the way.
    `should_stop` is asked after every iteration, so that a run always moves by one at least.
    Raises DivergedError at the first metric that is not a finite number.
    """
    while done < learner.iterations:
        iteration = done + 1
        metrics = learner.step(iteration)
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(f"iteration {iteration}: {bad[0]} is {metrics[bad[0]]}")
        on_step(iteration, metrics)
        done = iteration
        if learner.ranks.any(should_stop()):
            break
    return done
