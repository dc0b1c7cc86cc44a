"""The life of a training: begin or resume, train, stop in good order."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.config import Config, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import PixelScale
from gcn_cli.images.bands import side_by_side
from gcn_cli.learning.batches import room_for
from gcn_cli.learning.setup import make_learner
from gcn_cli.learning.trainer import Metrics, train
from gcn_cli.model.period import period
from gcn_cli.model.spec import filter_numbers, responses_per_pixel
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs.checkpoint import Checkpoint, Periods
from gcn_cli.runs.course import Course
from gcn_cli.runs.folder import MODEL, make_folder
from gcn_cli.runs.lock import locked
from gcn_cli.runs.observed import Observed
from gcn_cli.runs.recorder import Recorder
from gcn_cli.runtime import StopRequest, free_memory, peak_memory_mib
from gcn_cli.values import option_name

log = logging.getLogger(__name__)

MAPS_AT_LEAST = 4  # responses, gates, and both on the way down, of two bytes or more
FILTERS_AT_LEAST = 4  # numbers each: the filter, its gradient, its average, its momentum
PERIODS_AGREE = 1.02  # largest over smallest
OnStep = Callable[[int, int, Metrics], None]
"""Called after every iteration with its number, from 1, the number of the last, and measures."""


Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True)
class Schedule:
    """When to stop, to show and to save; but for `planned` none of it changes what is learned."""

    max_time: float | None = None  # seconds
    planned: bool = False  # whether the training is made as long as max_time allows, and whole
    preview_every: int | None = None  # iterations; 0 for none, None for ten a run
    save_every: float = 60.0  # seconds
    overwrite: bool = False
    resume: Resume = "auto"  # go on with what is in the folder; never: refuse to; must: need it


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
    ) -> None:
        """`config` is `asked` once pictures and device have settled it.

        `digest` names the pictures.
        """
        pictures, self.maps = observed.pictures, observed.maps
        self.asked, self.device, self.count = asked, device, len(pictures)
        self.pixels = PixelScale.fit(
            pictures,
            config.mean_color,
            unit_deviation=config.unit_deviation,
            groups=[size for one in self.maps for size in one.groups],
        )
        in_units = [self.pixels.to_model(picture) for picture in pictures]
        try:
            self.family, self.learner = make_learner(config, in_units, device, dtype)
        except ValueError as error:
            raise InputError(f"{error}; see --size, --crop and --layers") from error
        self.periods = periods_of(pictures) if not config.head else (None, None)
        self.digest = digest
        self.iteration = 0
        self.history: list[Metrics] = []
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def go_on(self, saved: Checkpoint) -> None:
        """Put back where a saved training stood."""
        self.learner.load_state(saved.learner_state)
        self.iteration, self.history = saved.iteration, list(saved.history)
        self.seconds_before = saved.seconds

    def set_length(self, iterations: int) -> None:
        """Have so many iterations in all."""
        self.learner.set_length(iterations)
        self.family = self.family.with_length(iterations)

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
        )


def run_training(
    observed: Observed,
    asked: Config,
    run: Path | None,
    schedule: Schedule,
    device: torch.device,
    dtype: torch.dtype,
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Training:
    """Train what is asked on what is observed into the folder `run`, where one is named.

    Goes on with what is there. Ends at the last iteration, after the time limit, or where
    `should_stop` says so; all that is learned by then is saved. Raises InputError for what does
    not fit together, DivergedError where learning left the finite numbers.
    """
    limit = StopRequest(schedule.max_time)
    with ExitStack() as held:
        if run is not None and run.is_dir():
            held.enter_context(locked(run))
        training = _begin(observed, asked, run, schedule, device, dtype)
        if run is not None and not run.is_dir():
            make_folder(run)
            held.enter_context(locked(run))
        return _carried_on(training, run, schedule, limit, on_step, should_stop)


def _carried_on(
    training: Training,
    run: Path | None,
    schedule: Schedule,
    limit: StopRequest,
    on_step: OnStep | None,
    should_stop: Callable[[], bool] | None,
) -> Training:
    """Train from where the training stands."""
    if training.complete:
        log.info("%s: complete, %d iterations; --overwrite trains anew", run, training.iteration)
        return training
    height, width = training.learner.observed.image_size
    log.info(
        "training %s on %s from %d picture(s) at %dx%d",
        run or "in memory", training.device, training.count, width, height,
    )  # fmt: skip
    recorder = None if run is None else Recorder(run, training, schedule)
    course = None
    if schedule.max_time is not None and schedule.planned:
        course = Course(schedule.max_time, limit.started, training)

    def note(iteration: int, metrics: Metrics) -> None:
        training.iteration = iteration
        training.history.append({"iteration": float(iteration), **metrics})
        if course is not None:
            course(training)
        if recorder is not None:
            recorder.note()
        if on_step is not None:
            on_step(iteration, training.learner.iterations, metrics)

    def stop() -> bool:
        return limit() or (should_stop is not None and should_stop())

    try:
        train(training.learner, done=training.iteration, should_stop=stop, on_step=note)
    finally:
        if recorder is not None:
            recorder.close()
    if recorder is not None:
        recorder.save()
    if training.complete or limit.timed_out:
        _report(training)
    return training


def _begin(
    observed: Observed,
    asked: Config,
    run: Path | None,
    schedule: Schedule,
    device: torch.device,
    dtype: torch.dtype,
) -> Training:
    """A new training, or the one of the run's model file, where there is one.

    A saved training keeps what pictures and device settled when it began.
    """
    model_file = None if run is None or schedule.overwrite else run / MODEL
    found = model_file is not None and model_file.exists()
    if found and schedule.resume == "never":
        raise InputError(f"{run}: holds a model (--resume never); name another run with -o")
    if not found and schedule.resume == "must":
        raise InputError(f"{run}: holds no model to go on with (--resume must); see -o")
    saved = files.load(model_file) if model_file and found else None
    digest = digest_of(observed.pictures)
    room = min(room_for(one, asked.crop or min(one.shape[1:])) for one in observed.pictures)
    channels = len(observed.pictures[0])
    settled, said = asked.settled(room, channels, on_gpu=device.type != "cpu")
    if saved is None:
        for line in said:
            log.info(line)
        _check_memory(settled, observed, device)
        return Training(asked, settled, observed, digest, device, dtype)
    _check_same(run, saved, asked if saved.asked else settled, digest)
    training = Training(asked, saved.config, observed, digest, device, dtype)
    training.go_on(saved)
    log.info("%s: going on after iteration %d", run, training.iteration)
    return training


def _check_memory(config: Config, observed: Observed, device: torch.device) -> None:
    """Raise InputError where a training needs more than can be had, by what it needs at least."""
    free = free_memory(device)
    sides = observed.pictures[0].shape[1:]
    height, width = (config.size or config.crop or int(side) for side in sides)
    depth, images = config.space_to_depth, config.batch_size or len(observed.pictures)
    maps = images * height * width * responses_per_pixel(config.layers, depth)
    filters = filter_numbers(config.layers, config.bands, depth)
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
        if now[key] != then.get(key):
            was = f"{option_name(key)} {then.get(key)}, not {now[key]}"
            raise InputError(f"{run}: trained with {was}; {remedy}")
    if saved.data_digest != pictures:
        raise InputError(f"{run}: trained on other pictures; {remedy}")


def _report(training: Training) -> None:
    """Say what became of it."""
    learner, done = training.learner, training.iteration
    for sentence in learner.verdicts(training.history):
        log.info(sentence)
    memory = peak_memory_mib(training.device)
    log.info("%.0f s in all, peak memory %.0f MiB", training.seconds, memory)
    if not training.complete:
        log.info("time limit after iteration %d of %d, saved", done, learner.iterations)
        for sentence in learner.cut_short(done):
            log.info(sentence)


def periods_of(pictures: Sequence[Tensor]) -> Periods:
    """Those that all pictures (C, H, W) of a texture agree in."""
    found = []
    for axis in (-2, -1):
        own = [period(picture, axis) for picture in pictures]
        known = [one for one in own if one is not None]
        agree = len(known) == len(own) and max(known) <= PERIODS_AGREE * min(known)
        found.append(sum(known) / len(known) if agree else None)
    return found[0], found[1]


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
