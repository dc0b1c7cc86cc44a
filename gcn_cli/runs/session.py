"""A training as it stands: a model and its learner on some pictures.

The beginning of a training: a new one, or the one that a run's model file holds.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gcn_cli import checkpoint as checkpoint_file
from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import USUAL, Config, as_written, option_name, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.images.image import side_by_side
from gcn_cli.inputs import TrainingImages
from gcn_cli.kinds import make_trainer
from gcn_cli.models.layers import filter_parameters, responses_per_pixel
from gcn_cli.pattern import Periods, find_pattern, find_period
from gcn_cli.runs.folder import MODEL
from gcn_cli.runtime import free_memory
from gcn_cli.training.data import coarse_share, crop_limit
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Metrics

log = logging.getLogger(__name__)

PERIODS_AGREE = 1.02  # largest over smallest


class Session:
    """A model and its learner on some pictures, and how far they are."""

    def __init__(
        self,
        asked: Config,
        config: Config,
        observed: TrainingImages,
        digest: str,
        device: torch.device,
        dtype: torch.dtype,
        ranks: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`config` is `asked` once pictures and device have settled it.

        `digest` names the pictures; `ranks` share the work.
        """
        pictures, self.maps = observed.pictures, observed.maps
        self.observed = pictures
        self.asked, self.device, self.dtype, self.ranks = asked, device, dtype, ranks
        self.pixels = Normalization.fit(
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
            self.family, self.learner = make_trainer(
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
        own = [find_period(picture, axis) for picture in pictures]
        known = [one for one in own if one is not None]
        agree = len(known) == len(own) and max(known) <= PERIODS_AGREE * min(known)
        found.append(sum(known) / len(known) if agree else None)
    return found[0], found[1]


MAPS_AT_LEAST = 4  # responses, gates, and both on the way down, of two bytes or more
FILTERS_AT_LEAST = 4  # numbers each: the filter, its gradient, its average, its momentum
PLANNED = 0.93  # of the time of an extension, by the speed of the iterations before
FEWEST = 20  # iterations of an extension by time

Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True)
class Extension:
    """What a finished training is to have more: `iterations`, or as many as `seconds` allow."""

    iterations: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RunOptions:
    """When to stop, to show and to save; but for lengths none of it changes what is learned."""

    max_time: float | None = None  # seconds
    planned: bool = False  # whether the training is made as long as max_time allows, and whole
    preview_every: int | None = None  # iterations; 0 for none, None for ten a run
    save_every: float = 60.0  # seconds
    overwrite: bool = False
    resume: Resume = "auto"  # go on with what is in the folder; never: refuse to; must: need it
    extension: Extension | None = None
    tensorboard: bool = False  # event files too


@dataclass(frozen=True)
class TrainingJob:
    """What a training is to be, once the words for it are understood."""

    observed: TrainingImages
    asked: Config
    run: Path | None  # its folder; None for a model in memory
    schedule: RunOptions
    device: torch.device
    dtype: torch.dtype  # of the maps
    ranks: ProcessGroup = SINGLE_PROCESS  # the processes that share it


def begin(work: TrainingJob) -> Session:
    """A new training, or the one of the run's model file, where there is one.

    A saved training keeps what pictures and device settled when it began.
    """
    run, asked, observed, schedule = work.run, work.asked, work.observed, work.schedule
    model_file = None if run is None or schedule.overwrite else run / MODEL
    found = model_file is not None and model_file.exists()
    if found and schedule.resume == "never":
        raise InputError(f"{run}: holds a model (--resume never); name another run with -o")
    if not found and schedule.resume == "must":
        raise InputError(f"{run}: holds no model to go on with (--resume must); see -o")
    if not found and schedule.extension is not None:
        raise InputError(f"{run}: holds no model to go on with (--extend); train it first")
    saved = checkpoint_file.load(model_file) if model_file and found else None
    digest = digest_of(observed.pictures)
    room = min(crop_limit(one, asked.crop or min(one.shape[1:])) for one in observed.pictures)
    channels = len(observed.pictures[0])
    coarse = min(coarse_share(one) for one in observed.pictures)
    settled, said = asked.settled(room, channels, coarse, on_gpu=work.device.type != "cpu")
    where = (work.device, work.dtype, work.ranks)
    if saved is None:
        for line in said:
            log.info(line)
        check_memory(settled, observed, work.device)
        return Session(asked, settled, observed, digest, *where)
    _check_same(run, saved, asked if saved.asked else settled, digest)
    training = Session(asked, saved.config, observed, digest, *where)
    training.go_on(saved)
    if schedule.extension is not None:
        _extend(run, training, schedule.extension)
    log.info("%s: going on after iteration %d", run, training.iteration)
    return training


def _extend(run: Path | None, training: Session, extension: Extension) -> None:
    """Give a finished training more to do; one that was interrupted in doing so has that left."""
    if not training.complete:
        if training.learner.was_extended:
            return
        raise InputError(
            f"{run}: is not finished, iteration {training.iteration} of "
            f"{training.learner.iterations}; the same command without --extend goes on"
        )
    iterations = extension.iterations
    if iterations is None:
        assert extension.seconds is not None
        pace = training.seconds_before / max(1, training.iteration)
        iterations = max(FEWEST, int(PLANNED * extension.seconds / max(pace, 1e-9)))
    training.extend(iterations)
    log.info("%s: %d more iterations (--extend)", run, iterations)


def check_memory(config: Config, observed: TrainingImages, device: torch.device) -> None:
    """Raise InputError where a training needs more than can be had, by what it needs at least."""
    free = free_memory(device)
    sides = observed.pictures[0].shape[1:]
    height, width = (config.size or config.crop or int(side) for side in sides)
    depth, images = config.space_to_depth, config.batch_size or len(observed.pictures)
    maps = images * height * width * responses_per_pixel(config.layers, depth)
    filters = filter_parameters(config.layers, config.bands, depth)
    needed = 2 * MAPS_AT_LEAST * maps + 4 * FILTERS_AT_LEAST * filters
    if free is not None and needed > free:
        raise InputError(
            f"--batch-size {images}, --layers: need {needed / 2**30:.1f} GiB of memory at the "
            f"least, {free / 2**30:.1f} GiB are free on {device}; make them, or --crop, smaller"
        )


def _check_same(run: Path | None, saved: Checkpoint, config: Config, pictures: str) -> None:
    """Raise InputError where a run was made with other values or from other pictures."""
    now, then = to_json(config), to_json(saved.asked or saved.config)
    remedy = "use --overwrite to train anew, or -o for another run"
    for key in now:
        if key == "channels" and now[key] is None:
            continue  # as the pictures have, and those are compared below
        if key == "iterations" and now[key] is None and then.get(key) == USUAL:
            continue  # as it was written before several ladders had another default
        if now[key] != then.get(key):
            option, was = option_name(key), as_written(key, then.get(key))
            own = f"the default of {option}" if was is None else f"{option} {was}"
            other = as_written(key, now[key]) or "the default"
            raise InputError(f"{run}: trained with {own}, not {other}; {remedy}")
    if saved.data_digest != pictures:
        raise InputError(f"{run}: trained on other pictures; {remedy}")
    if not saved.learned_alike:
        raise InputError(f"{run}: its ladders had other batches, in an older gcn; {remedy}")


def digest_of(pictures: Sequence[Tensor]) -> str:
    """Names pictures (C, H, W) by their size and their pixels; what is hidden counts too."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(str(tuple(picture.shape)).encode())
        values = picture.cpu().permute(1, 2, 0).contiguous().numpy()
        narrow = values.round().clip(0, 255)
        exact = bool((narrow == values).all())  # never where something is hidden
        found.update(narrow.astype("uint8").tobytes() if exact else values.tobytes())
    return found.hexdigest()
