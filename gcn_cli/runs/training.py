"""A training as it stands: a model and its learner on some pictures."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.config import Config
from gcn_cli.errors import InputError
from gcn_cli.images import PixelScale
from gcn_cli.images.bands import side_by_side
from gcn_cli.learning.setup import make_learner
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.pattern import find_pattern
from gcn_cli.model.period import Periods, period
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.observed import Observed

PERIODS_AGREE = 1.02  # largest over smallest


class Training:
    """A model and its learner on some pictures, and how far they are."""

    def __init__(
        self,
        asked: Config,
        config: Config,
        observed: Observed,
        digest: str,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
    ) -> None:
        """`config` is `asked` once pictures and device have settled it.

        `digest` names the pictures; `ranks` share the work.
        """
        pictures, self.maps = observed.pictures, observed.maps
        self.observed = pictures
        self.asked, self.device, self.dtype, self.ranks = asked, device, dtype, ranks
        self.pixels = PixelScale.fit(
            pictures,
            config.mean_color,
            unit_deviation=config.unit_deviation,
            groups=[size for one in self.maps for size in one.groups],
        )
        self.in_units = [self.pixels.to_model(picture) for picture in pictures]
        # Once, for chains and samples alike: where holes are filled, the filling would change it.
        self.pattern = find_pattern(self.in_units) if config.texture_ladder else None
        self._make(config)
        self.periods: Periods = (None, None)
        if self.pattern is not None:
            self.periods = self.pattern.periods
        elif not config.head:
            self.periods = periods_of(pictures)
        self.digest = digest
        self.iteration = 0
        self.history: list[Metrics] = []
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def _make(self, config: Config) -> None:
        """A learner at its start."""
        try:
            self.family, self.learner = make_learner(
                config, self.in_units, self.device, self.dtype, self.ranks, pattern=self.pattern
            )
        except ValueError as error:
            raise InputError(f"{error}; see --size, --crop and --layers") from error

    def go_on(self, saved: Checkpoint) -> None:
        """Put back where a saved training stood."""
        self.learner.load_state(saved.learner_state)
        self.iteration, self.history = saved.iteration, list(saved.history)
        self.seconds_before = saved.seconds

    def go_back(
        self,
        iteration: int,
        state: dict[str, Tensor],
        history: Sequence[Metrics],
        config: Config,
    ) -> None:
        """Stand after another `iteration` again, with the learner's `state` and `history` of then.

        What comes after is learned under another `config`, in its rates alone.
        """
        self._make(config)
        self.learner.load_state(state)
        self.iteration, self.history = iteration, list(history)

    def set_length(self, iterations: int) -> None:
        """Have so many iterations in all."""
        self.learner.set_length(iterations)
        self.family = self.family.with_config(self.learner.config)

    def extend(self, iterations: int) -> None:
        """Have so many iterations more, once all are done."""
        self.learner.extend(iterations)
        self.family = self.family.with_config(self.learner.config)

    @property
    def asked_length(self) -> int:
        """Iterations of a stage as asked, or as many as such a model has by default."""
        return self.family.config.length_as(self.asked.iterations)

    @property
    def complete(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration >= self.learner.iterations

    @property
    def seconds(self) -> float:
        """Spent on this training, all sessions together."""
        return self.seconds_before + time.monotonic() - self.started

    def preview(self) -> Tensor:
        """Some samples side by side, (C, H, W) in 0..255."""
        made = self.pixels.to_pixels(self.learner.preview()[:16].cpu())
        return images.grid(torch.stack([side_by_side(one, self.maps) for one in made]))

    def checkpoint(self) -> Checkpoint:
        """All of it, as it is now."""
        height, width = self.learner.observed.picture_size
        return Checkpoint(
            family=self.family,
            pixels=self.pixels,
            image_size=self.family.net.fitting(height, width),
            iteration=self.iteration,
            total_iterations=self.learner.iterations,
            seconds=self.seconds,
            data_digest=self.digest,
            history=self.history,
            learner_state=self.learner.state(),
            asked=self.asked,
            maps=self.maps,
            periods=self.periods,
            pattern=self.pattern,
        )


def periods_of(pictures: Sequence[Tensor]) -> Periods:
    """Those that all pictures (C, H, W) of a texture agree in."""
    found = []
    for axis in (-2, -1):
        own = [period(picture, axis) for picture in pictures]
        known = [one for one in own if one is not None]
        agree = len(known) == len(own) and max(known) <= PERIODS_AGREE * min(known)
        found.append(sum(known) / len(known) if agree else None)
    return found[0], found[1]
