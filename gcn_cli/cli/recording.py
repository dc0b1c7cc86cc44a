"""A run's folder while it trains: model file, metrics.jsonl, previews, the line on the screen."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gcn_cli import checkpoint as files
from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.cli.console import Progress, say
from gcn_cli.cli.runs import MODEL
from gcn_cli.config import Config, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import PixelScale
from gcn_cli.learning.setup import AnyLearner
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.ladder import LadderNet
from gcn_cli.values import option_name


@dataclass(frozen=True)
class Schedule:
    """When to stop, to show and to save; none of it changes what is learned."""

    max_time: float | None
    preview_every: int | None
    save_every: float
    overwrite: bool


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

    def begin(self) -> None:
        """Go on from the run's model file, where there is one, or begin anew.

        With --overwrite an older model file stays until the first checkpoint takes its place.
        Raises InputError where it was made with other values or other pictures.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        if self.schedule.overwrite:
            shutil.rmtree(self.run / "previews", ignore_errors=True)
        elif (self.run / MODEL).exists():
            saved = files.load(self.run / MODEL)
            self._check_same(saved)
            self.learner.load_state(saved.learner_state)
            self.iteration, self.history = saved.iteration, saved.history
            self.seconds_before = saved.seconds
            say(f"{self.run}: going on after iteration {self.iteration}")
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        images.write_bytes(self.run / "metrics.jsonl", lines.encode())
        self.metrics = (self.run / "metrics.jsonl").open("a", buffering=1, encoding="utf-8")
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
                seconds=self.seconds,
                data_digest=self.digest,
                history=self.history,
                learner_state=self.learner.state(),
            ),
        )

    @property
    def seconds(self) -> float:
        """Spent on this run up to its last save, all sessions together."""
        return self.seconds_before + self.last_save - self.started

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
