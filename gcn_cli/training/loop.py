"""The training loop: counts iterations, checks metrics, stops. Trainers do the computing."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
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

    def step(self, iteration: int) -> Tensor:
        """Run one iteration, numbered from 1. Returns its figures (k,), to be read by `metrics`."""

    def metrics(self, iteration: int, figures: Sequence[float]) -> Metrics:
        """The metrics in the figures of an iteration. Raises DivergedError if training diverged."""

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


READ_INTERVAL = 16  # iterations of a GPU whose figures are read together: reading waits for it


def run_iterations(
    trainer: Trainer,
    *,
    done: int,
    should_stop: Callable[[], bool],
    on_steps: Callable[[int, list[Metrics]], None],
    is_due: Callable[[int], bool] = lambda iteration: False,
) -> int:
    """Run from iteration `done` + 1 to the trainer's last; returns the last iteration run.

    `on_steps` gets the number of the last iteration and the metrics of all since its last call: of
    one on a CPU, of up to READ_INTERVAL on a GPU, fewer after an iteration that `is_due`. The
    trainer may change its length on the way. `should_stop` is called after each iteration, so at
    least one is run. Raises DivergedError if a metric is not finite.
    """
    unread: list[Tensor] = []

    def read() -> None:
        """Wait for the device and hand over the metrics of all unread iterations."""
        if unread:
            first, rows = done - len(unread) + 1, torch.stack(unread).tolist()
            unread.clear()
            on_steps(done, [_checked(trainer, k, row) for k, row in enumerate(rows, first)])

    while done < trainer.iterations:
        done += 1
        unread.append(trainer.step(done))
        interval = 1 if unread[-1].device.type == "cpu" else READ_INTERVAL
        if len(unread) >= interval or done == trainer.iterations or is_due(done):
            read()
        if trainer.group.any_process(should_stop()):
            break
    read()
    return done


def _checked(trainer: Trainer, iteration: int, figures: list[float]) -> Metrics:
    metrics = trainer.metrics(iteration, figures)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DivergedError(f"iteration {iteration}: {name} is {value}")
    return metrics
