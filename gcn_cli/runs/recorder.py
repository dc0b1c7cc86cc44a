"""A run's folder while it trains: model file, metrics.jsonl, previews."""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gcn_cli import images
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs.folder import MODEL, make_folder

if TYPE_CHECKING:
    from gcn_cli.runs.training import Schedule, Training


class Recorder:
    """Keeps a run folder up to date with a training.

    With `overwrite` an older model file stays until the first checkpoint takes its place.
    """

    def __init__(self, run: Path, training: "Training", schedule: "Schedule") -> None:
        self.run, self.training, self.schedule = run, training, schedule
        make_folder(run)
        if schedule.overwrite:
            shutil.rmtree(run / "previews", ignore_errors=True)
        lines = "".join(json.dumps(row) + "\n" for row in training.history)
        images.write_bytes(run / "metrics.jsonl", lines.encode())
        self.metrics = (run / "metrics.jsonl").open("a", buffering=1, encoding="utf-8")
        self.last_save = time.monotonic()

    def note(self) -> None:
        """Take down the training's last iteration."""
        training, every = self.training, self.schedule.preview_every
        iteration, last = training.iteration, training.learner.iterations
        self.metrics.write(json.dumps(training.history[-1]) + "\n")
        if every is None:
            every = max(1, last // 10)
        if every and (iteration % every == 0 or iteration == last):
            images.write(training.preview(), str(self.run / "previews" / f"{iteration:06d}.png"))
        if time.monotonic() - self.last_save >= self.schedule.save_every:
            self.save()

    def save(self) -> None:
        """Write the model file as of the last iteration."""
        self.last_save = time.monotonic()
        files.save(self.run / MODEL, self.training.checkpoint())

    def close(self) -> None:
        """End the metrics file."""
        self.metrics.close()
