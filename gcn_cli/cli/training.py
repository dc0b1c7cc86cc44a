"""The life of a run: read pictures, begin or resume, train, keep the folder up to date."""

import dataclasses
import hashlib
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcn_cli import checkpoint as files
from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.cli.console import Progress, say
from gcn_cli.cli.runs import MODEL
from gcn_cli.config import Config, LadderConfig, to_json
from gcn_cli.errors import DivergedError, InputError, InterruptedRunError
from gcn_cli.images import PixelScale
from gcn_cli.learning.setup import AnyLearner, make_learner
from gcn_cli.learning.trainer import Metrics, train
from gcn_cli.model.ladder import LadderNet
from gcn_cli.runtime import StopRequest
from gcn_cli.values import option_name


@dataclass(frozen=True)
class Schedule:
    """When to stop, to show and to save; none of it changes what is learned."""

    max_time: float | None
    preview_every: int | None
    save_every: float
    overwrite: bool


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
    pixels = _scale(config, pictures)
    try:
        learner = make_learner(config, [pixels.to_model(p) for p in pictures], device, dtype)
    except ValueError as error:
        raise InputError(f"{sources[0]}: {error}; see --size, --crop and --layers") from error
    if schedule.overwrite and (run / MODEL).exists():
        _clear(run)
    recorder = Recorder(run, config, pixels, learner, digest, schedule)
    recorder.resume()
    if recorder.iteration >= learner.iterations:
        say(f"{run}: complete, {learner.iterations} iterations; --overwrite trains anew")
        return
    height, width = learner.observed.image_size
    say(f"training {run} on {device} from {len(pictures)} picture(s) at {width}x{height}")
    with stop.listening():
        try:
            train(learner, done=recorder.iteration, should_stop=stop, on_step=recorder.note)
        except DivergedError as error:
            raise DivergedError(f"{error}; {run} keeps the last checkpoint") from error
        finally:
            recorder.close()
    recorder.save()
    if stop.signal is not None:
        message = f"{stop.signal.name} after iteration {recorder.iteration}; saved"
        if stop.signal.name == "SIGINT":
            say(message)
            raise KeyboardInterrupt
        raise InterruptedRunError(f"{message}, the same command goes on")
    if recorder.iteration < learner.iterations:
        say(f"time limit after iteration {recorder.iteration} of {learner.iterations}, saved")
    print(run)


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


def _scale(config: Config, pictures: list[Tensor]) -> PixelScale:
    """The mean colour that becomes 0; ladders also have a deviation of 1."""
    count = sum(picture[0].numel() for picture in pictures)
    total = torch.stack([picture.double().sum(dim=(1, 2)) for picture in pictures]).sum(dim=0)
    mean = config.mean_color or tuple((total / count).tolist())
    scale = PixelScale(mean, 1.0)
    spread = torch.stack([scale.to_model(p).double().square().sum() for p in pictures]).sum()
    deviation = math.sqrt(float(spread) / (count * config.channels))
    if deviation < 1e-3:
        raise InputError("the pictures have one colour only; there is nothing to learn")
    return PixelScale(mean, deviation if isinstance(config, LadderConfig) else 1.0)


def _clear(run: Path) -> None:
    """Take away what an earlier training left; samples stay."""
    (run / MODEL).unlink()
    (run / "metrics.jsonl").unlink(missing_ok=True)
    shutil.rmtree(run / "previews", ignore_errors=True)


class Recorder:
    """Keeps the run folder: model file, metrics.jsonl, previews, and the line on the screen."""

    def __init__(
        self,
        run: Path,
        config: Config,
        pixels: PixelScale,
        learner: AnyLearner,
        digest: str,
        schedule: Schedule,
    ) -> None:
        self.run, self.config, self.pixels = run, config, pixels
        self.learner, self.digest, self.schedule = learner, digest, schedule
        self.iteration = 0
        self.history: list[Metrics] = []
        self.seconds_before = 0.0
        self.started = self.last_save = time.monotonic()
        self.progress: Progress | None = None

    def resume(self) -> None:
        """Go on from the run's model file, where there is one.

        Raises InputError where it was made with other values or other pictures.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        if (self.run / MODEL).exists():
            saved = files.load(self.run / MODEL)
            self._check_same(saved)
            self.learner.load_state(saved.learner_state)
            self.iteration, self.history = saved.iteration, saved.history
            self.seconds_before = saved.seconds
            say(f"{self.run}: going on after iteration {self.iteration}")
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        images.write_bytes(self.run / "metrics.jsonl", lines.encode())
        self.metrics = (self.run / "metrics.jsonl").open("a", encoding="utf-8")
        self.progress = Progress("train", self.learner.iterations, self.iteration)

    def _check_same(self, saved: Checkpoint) -> None:
        now, then = to_json(self.config), to_json(saved.config)
        changed = [key for key in now if now[key] != then[key]]
        remedy = "use --overwrite to train anew, or -o for another run"
        if changed:
            key = changed[0]
            raise InputError(
                f"{self.run}: trained with {option_name(key)} {then[key]}, not {now[key]}; {remedy}"
            )
        if saved.data_digest != self.digest:
            raise InputError(f"{self.run}: trained on other pictures; {remedy}")

    def note(self, iteration: int, metrics: Metrics) -> None:
        """Take down one iteration."""
        self.iteration = iteration
        row = {"iteration": float(iteration), **metrics}
        self.history.append(row)
        self.metrics.write(json.dumps(row) + "\n")
        words = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        assert self.progress is not None
        self.progress.update(iteration, words)
        every = self.schedule.preview_every
        if every is None:
            every = max(1, self.learner.iterations // 10)
        if every and (iteration % every == 0 or iteration == self.learner.iterations):
            sheet = images.grid(self.pixels.to_pixels(self.learner.preview()[:16].cpu()))
            images.write(sheet, str(self.run / "previews" / f"{iteration:06d}.png"))
        if time.monotonic() - self.last_save >= self.schedule.save_every:
            self.save()

    def save(self) -> None:
        """Write the model file as of the last iteration."""
        self.last_save = time.monotonic()
        files.save(
            self.run / MODEL,
            Checkpoint(
                config=self.config,
                pixels=self.pixels,
                model=self.learner.model,
                image_size=_sample_size(self.learner),
                iteration=self.iteration,
                total_iterations=self.learner.iterations,
                seconds=self.seconds_before + self.last_save - self.started,
                data_digest=self.digest,
                history=self.history,
                learner_state=self.learner.state(),
            ),
        )

    def close(self) -> None:
        """End the bar and the metrics file."""
        self.metrics.close()
        if self.progress is not None:
            self.progress.bar.close()


def _sample_size(learner: AnyLearner) -> tuple[int, int]:
    """The size that samples have by default: that of the picture, as far as it makes a torus."""
    height, width = learner.observed.picture_size
    if isinstance(learner.model, LadderNet):
        stride = learner.model.total_stride
        return height // stride * stride, width // stride * stride
    return height, width
