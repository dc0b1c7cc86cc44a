"""The beginning of a training: a new one, or the one that a run's model file holds."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gcn_cli.config import Config, to_json
from gcn_cli.config.ladder import USUAL
from gcn_cli.errors import InputError
from gcn_cli.learning.batches import room_for
from gcn_cli.learning.ladder.coarser import coarse_share
from gcn_cli.model.spec import filter_numbers, responses_per_pixel
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.folder import MODEL
from gcn_cli.runs.observed import Observed
from gcn_cli.runs.training import Training
from gcn_cli.runtime import free_memory
from gcn_cli.values import as_written, option_name

log = logging.getLogger(__name__)

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
class Schedule:
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
class Work:
    """What a training is to be, once the words for it are understood."""

    observed: Observed
    asked: Config
    run: Path | None  # its folder; None for a model in memory
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype  # of the maps
    ranks: Ranks = ALONE  # the processes that share it


def begin(work: Work) -> Training:
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
    saved = files.load(model_file) if model_file and found else None
    digest = digest_of(observed.pictures)
    room = min(room_for(one, asked.crop or min(one.shape[1:])) for one in observed.pictures)
    channels = len(observed.pictures[0])
    coarse = min(coarse_share(one) for one in observed.pictures)
    settled, said = asked.settled(room, channels, coarse, on_gpu=work.device.type != "cpu")
    where = (work.device, work.dtype, work.ranks)
    if saved is None:
        for line in said:
            log.info(line)
        check_memory(settled, observed, work.device)
        return Training(asked, settled, observed, digest, *where)
    _check_same(run, saved, asked if saved.asked else settled, digest)
    training = Training(asked, saved.config, observed, digest, *where)
    training.go_on(saved)
    if schedule.extension is not None:
        _extend(run, training, schedule.extension)
    log.info("%s: going on after iteration %d", run, training.iteration)
    return training


def _extend(run: Path | None, training: Training, extension: Extension) -> None:
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


def check_memory(config: Config, observed: Observed, device: torch.device) -> None:
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
