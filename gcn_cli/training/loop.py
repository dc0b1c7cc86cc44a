"""The training loop: counts iterations, checks metrics, stops. Trainers do the computing."""

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
    """One training: its iterations, a preview of its samples, a state that can be saved."""

    data: TrainingData
    group: ProcessGroup

    @property
    def config(self) -> Config:
        """The training settings; the length follows `set_length` and `extend`."""

    @property
    def iterations(self) -> int:
        """The iterations of the whole training."""

    @property
    def likelihood_starts(self) -> list[int]:
        """The iterations after which likelihood training starts (iterations get slower), sorted."""

    @property
    def was_extended(self) -> bool:
        """Whether iterations were added to a finished training."""

    def step(self, iteration: int) -> Metrics:
        """Run one iteration, numbered from 1. Raises DivergedError if training diverged."""

    def preview(self) -> Tensor:
        """A few samples (N, C, H, W) in model units."""

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to resume exactly."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""

    def check_convergence(self, history: Sequence[Metrics]) -> list[str]:
        """One message for each finding; rows of the history have an "iteration"."""

    def early_stop_advice(self, iteration: int) -> list[str]:
        """What a training that stops after `iteration` lacks, and what to do."""

    def length_for(self, iteration: int, pace: float, seconds_left: float) -> int | None:
        """The total iterations of a training that ends `seconds_left` after `iteration`.

        `pace` is the mean time of an iteration so far in seconds. None if the length is fixed.
        """

    def set_length(self, iterations: int) -> None:
        """Change the total number of iterations; the schedule follows."""

    def extend(self, iterations: int) -> None:
        """Add iterations to a finished training."""


def run_iterations(
    trainer: Trainer,
    *,
    done: int,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, Metrics], None],
) -> int:
    """Run from iteration `done` + 1 to the trainer's last; returns the last iteration run.

    The trainer may change its length on the way. `should_stop` is called after each iteration, so
    at least one is run. Raises DivergedError if a metric is not finite.
    """
    while done < trainer.iterations:
        iteration = done + 1
        metrics = trainer.step(iteration)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(f"iteration {iteration}: {name} is {value}")
        on_step(iteration, metrics)
        done = iteration
        if trainer.group.any_process(should_stop()):
            break
    return done
