"""A run's folder while it trains: model file, metrics.jsonl, previews."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gcn_cli import images
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs.board import Board
from gcn_cli.runs.folder import MODEL, make_folder
from gcn_cli.runs.grading import keep_exemplar

if TYPE_CHECKING:
    from gcn_cli.runs.starting import Schedule
    from gcn_cli.runs.training import Training

log = logging.getLogger(__name__)


class Recorder:
    """Keeps a run folder up to date with a training.

    With `overwrite` an older model file stays until the first checkpoint takes its place.
    """

    def __init__(self, run: Path, training: "Training", schedule: "Schedule") -> None:
        self.run, self.training, self.schedule = run, training, schedule
        make_folder(run)
        if training.family.config.crop is not None:
            keep_exemplar(run, training.observed, training.maps[0].channels)
        if schedule.overwrite:
            shutil.rmtree(run / "previews", ignore_errors=True)
        self.board = Board(run, training.iteration) if schedule.tensorboard else None
        self._write_history()
        self.last_save, self.saved = time.monotonic(), training.iteration

    def note(self) -> None:
        """Take down the training's last iteration."""
        training, every = self.training, self.schedule.preview_every
        iteration, last = training.iteration, training.learner.iterations
        self.metrics.write(json.dumps(training.history[-1]) + "\n")
        if every is None:
            every = max(1, last // 10)
        if self.board is not None:
            self.board.note(training.history[-1])
        if every and (iteration % every == 0 or iteration == last):
            preview = training.preview()
            images.write(preview, str(self.run / "previews" / f"{iteration:06d}.png"))
            if self.board is not None:
                self.board.show(preview, iteration)
        if time.monotonic() - self.last_save >= self.schedule.save_every:
            self.save()

    def save(self) -> None:
        """Write the model file as of the last iteration."""
        self.last_save, self.saved = time.monotonic(), self.training.iteration
        files.save(self.run / MODEL, self.training.checkpoint())
        log.debug("saved as after iteration %d", self.saved)

    def rewind(self) -> None:
        """Have the files say what the training does, which went back; it is saved if it began."""
        self.metrics.close()
        if self.board is not None:
            self.board.close()
            self.board = Board(self.run, self.training.iteration)
        self._write_history()
        if self.training.iteration:
            self.save()

    def _write_history(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.training.history)
        images.write_bytes(self.run / "metrics.jsonl", lines.encode())
        self.metrics = (self.run / "metrics.jsonl").open("a", buffering=1, encoding="utf-8")

    def close(self) -> None:
        """End the metrics file, and TensorBoard's."""
        self.metrics.close()
        if self.board is not None:
            self.board.close()
