"""Curves and previews of a training for TensorBoard, an optional extra.

A run's folder while it trains: model file, metrics.jsonl, previews.
"""

import json
import logging
import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gcn_cli import checkpoint as checkpoint_file
from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.runs.folder import MODEL, make_folder
from gcn_cli.runs.grades import keep_exemplar
from gcn_cli.training.loop import Metrics

if TYPE_CHECKING:
    from gcn_cli.runs.session import RunOptions, Session

log = logging.getLogger(__name__)

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoardLogger:
    """Event files in a run's folder."""

    def __init__(self, run: Path, done: int) -> None:
        """Goes on after iteration `done`; what was written of later ones no longer counts.

        Raises InputError where TensorBoard is not installed.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of what others mean to take away
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    "--tensorboard: needs TensorBoard; pip install 'gcn-cli[tensorboard]'"
                ) from error
            self.writer = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=done + 1)

    def note(self, measures: Metrics) -> None:
        """The measures of an iteration."""
        iteration = int(measures["iteration"])
        for name, value in measures.items():
            if name != "iteration":
                self.writer.add_scalar(name, value, iteration)

    def show(self, picture: Tensor, iteration: int) -> None:
        """A picture (C, H, W) in 0..255."""
        shown = picture[:3] if len(picture) >= 3 else picture[:1]
        narrow = shown.round().clamp(0, 255).byte()
        self.writer.add_image("samples", narrow, iteration)

    def close(self) -> None:
        self.writer.close()


class RunRecorder:
    """Keeps a run folder up to date with a training.

    With `overwrite` an older model file stays until the first checkpoint takes its place.
    """

    def __init__(self, run: Path, training: "Session", schedule: "RunOptions") -> None:
        self.run, self.training, self.schedule = run, training, schedule
        make_folder(run)
        if training.family.config.crop is not None:
            keep_exemplar(run, training.observed, training.maps[0].channels)
        if schedule.overwrite:
            shutil.rmtree(run / "previews", ignore_errors=True)
        self.board = TensorBoardLogger(run, training.iteration) if schedule.tensorboard else None
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
        checkpoint_file.save(self.run / MODEL, self.training.checkpoint())
        log.debug("saved as after iteration %d", self.saved)

    def rewind(self) -> None:
        """Have the files say what the training does, which went back; it is saved if it began."""
        self.metrics.close()
        if self.board is not None:
            self.board.close()
            self.board = TensorBoardLogger(self.run, self.training.iteration)
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
