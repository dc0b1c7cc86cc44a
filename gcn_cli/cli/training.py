"""The life of a run: read pictures, begin or resume, train, stop in good order."""

import dataclasses
import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.cli.console import say
from gcn_cli.cli.recording import Recorder, Schedule
from gcn_cli.config import Config, LadderConfig
from gcn_cli.errors import InputError, InterruptedRunError
from gcn_cli.images import PixelScale
from gcn_cli.learning.denoising import DenoisingLearner
from gcn_cli.learning.refinement import LARGEST_GAP
from gcn_cli.learning.setup import make_learner
from gcn_cli.learning.trainer import Metrics, train
from gcn_cli.learning.verdict import apart, verdict
from gcn_cli.runtime import StopRequest, peak_memory_mib


def run_training(
    sources: list[str],
    run: Path,
    config: Config,
    schedule: Schedule,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Train `config` on `sources` into the folder `run`; goes on with what is there."""
    stop = StopRequest(schedule.max_time)
    pictures, digest = _read(sources, config)
    config = _fit_crop(config, pictures)
    ladder = isinstance(config, LadderConfig)
    pixels = PixelScale.fit(pictures, config.mean_color, unit_deviation=ladder)
    try:
        learner = make_learner(config, [pixels.to_model(p) for p in pictures], device, dtype)
    except ValueError as error:
        raise InputError(f"{sources[0]}: {error}; see --size, --crop and --layers") from error
    recorder = Recorder(run, config, pixels, learner, digest, schedule)
    recorder.begin()
    if recorder.iteration >= learner.iterations:
        recorder.close()
        say(f"{run}: complete, {learner.iterations} iterations; --overwrite trains anew")
        print(run)
        return
    height, width = learner.observed.image_size
    say(f"training {run} on {device} from {len(pictures)} picture(s) at {width}x{height}")
    with stop.listening():
        try:
            train(learner, done=recorder.iteration, should_stop=stop, on_step=recorder.note)
        finally:
            recorder.close()
    recorder.save()
    if stop.signal is not None:
        message = f"{stop.signal.name} after iteration {recorder.iteration}; saved"
        if stop.signal.name == "SIGINT":
            say(message)
            raise KeyboardInterrupt
        raise InterruptedRunError(f"{message}, the same command goes on")
    if ladder:
        _judge(recorder.history)
    say(f"{recorder.seconds:.0f} s in all, peak memory {peak_memory_mib(device):.0f} MiB")
    if recorder.iteration < learner.iterations:
        say(f"time limit after iteration {recorder.iteration} of {learner.iterations}, saved")
        if isinstance(learner, DenoisingLearner) and learner.rules.refined:
            say(
                "samples are rough until the likelihood has had its part: the same command goes "
                "on; a whole training in this time is "
                f"--iterations {learner.fitting(recorder.iteration)} --overwrite"
            )
    print(run)


def _judge(history: list[Metrics]) -> None:
    """Say what became of the denoising, and of the likelihood after it."""
    turn = next((k for k, row in enumerate(history) if row["likelihood"]), len(history))
    for said in (
        verdict([row["loss"] for row in history[:turn]]),
        apart([row["gap"] for row in history[turn:]], 1.5 * LARGEST_GAP),
    ):
        if said is not None:
            say(said)


def _read(sources: list[str], config: Config) -> tuple[list[Tensor], str]:
    """The pictures as the config wants them, and a digest that names them."""
    size = (config.size, config.size) if config.size else None
    longest = config.shrink if isinstance(config, LadderConfig) else None
    found = images.expand_sources(sources)
    pictures = [images.read(source, config.channels, size, longest) for source in found]
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(str(tuple(picture.shape)).encode())
        digest.update(images.to_picture(picture).tobytes())
    return pictures, digest.hexdigest()


def _fit_crop(config: Config, pictures: list[Tensor]) -> Config:
    """A ladder's crop is cut down to what small pictures have, and that is said."""
    if not isinstance(config, LadderConfig) or config.crop is None:
        return config
    smallest = min(min(picture.shape[1:]) for picture in pictures)
    if smallest >= config.crop:
        return config
    stride = config.depth * math.prod(layer.stride for layer in config.layers)
    crop = smallest // stride * stride
    if crop <= 2 * config.margin:
        raise InputError(f"a picture of side {smallest} is too small to learn from; enlarge it")
    say(f"--crop {config.crop}: cut down to {crop}, the smallest picture has a side of {smallest}")
    return dataclasses.replace(config, crop=crop)
