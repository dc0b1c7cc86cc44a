"""What a training writes to its run's folder: model file, metrics.jsonl, previews, TensorBoard."""

import itertools
import logging
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

from gcn_cli import checkpoint as checkpoint_file
from gcn_cli import images, strict_json
from gcn_cli.errors import InputError
from gcn_cli.options import TrainOptions
from gcn_cli.runs.folder import MODEL_FILE
from gcn_cli.runs.grades import GRADES_FILE, keep_exemplar
from gcn_cli.runs.session import Session

log = logging.getLogger(__name__)

PREVIEWS, METRICS = "previews", "metrics.jsonl"
MADE = ("samples", "reconstructions", "repairs")  # folders of images that a model has made


class RunWriter:
    """Keeps a run's folder up to date with its training.

    With --overwrite an older model file stays until the first checkpoint replaces it.
    """

    def __init__(self, run: Path, session: Session, options: TrainOptions) -> None:
        """Raises InputError if --tensorboard is given and TensorBoard is not installed."""
        self.run, self.session, self.options = run, session, options
        if session.kind.config.crop is not None:
            keep_exemplar(run, session.images)
        if options.overwrite:
            shutil.rmtree(run / PREVIEWS, ignore_errors=True)
            (run / GRADES_FILE).unlink(missing_ok=True)
        self.last_save, self.saved = time.monotonic(), session.iteration
        self._open()

    def _open(self) -> None:
        """Start the logs of the iterations that follow; logs of later ones are cut off."""
        self.events = _event_writer(self.run, self.session) if self.options.tensorboard else None
        lines = "".join(strict_json.dumps(row) + "\n" for row in self.session.history)
        images.write_bytes(self.run / METRICS, lines.encode())
        self.metrics = (self.run / METRICS).open("a", buffering=1, encoding="utf-8")

    def is_due(self, iteration: int) -> bool:
        """Whether a preview or a checkpoint is written after an iteration."""
        return self._preview_is_due(iteration) or self._save_is_due()

    def update(self, count: int) -> None:
        """Write the metrics of the last `count` iterations, and what is due after the last."""
        session = self.session
        for row in session.history[-count:]:
            self.metrics.write(strict_json.dumps(row) + "\n")
            if self.events is not None:
                for name, value in row.items():
                    if name != "iteration":
                        self.events.add_scalar(name, value, int(row["iteration"]))
        iteration = session.iteration
        if self._preview_is_due(iteration):
            preview, whole = session.preview(), images.sheet_map(session.images.maps)
            path = str(self.run / PREVIEWS / f"{iteration:06d}.png")
            depth = images.own_bit_depth(len(preview), whole.bit_depth)
            images.write(preview, path, depth, whole.icc_profile)
            if self.events is not None:
                colors = preview[:3] if len(preview) >= 3 else preview[:1]
                self.events.add_image("samples", colors.round().clamp(0, 255).byte(), iteration)
        if self._save_is_due():
            self.save()

    def _preview_is_due(self, iteration: int) -> bool:
        every, last = self.options.preview_every, self.session.trainer.iterations
        if every is None:
            every = max(1, last // 10)
        return bool(every) and (iteration % every == 0 or iteration == last)

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.last_save >= self.options.save_every

    def save(self) -> None:
        if self.options.overwrite and not self.saved:
            self._set_aside()
        self.last_save, self.saved = time.monotonic(), self.session.iteration
        checkpoint_file.save(self.run / MODEL_FILE, self.session.checkpoint())
        log.debug("saved after iteration %d", self.saved)

    def _set_aside(self) -> None:
        """Move what the model before has made into a folder of its own, which is said."""
        there = [name for name in MADE if any((self.run / name).glob("*"))]
        if not there:
            return
        number = next(k for k in itertools.count(1) if not (self.run / f"before-{k}").exists())
        aside = self.run / f"before-{number}"
        aside.mkdir()
        for name in there:
            (self.run / name).rename(aside / name)
        log.info("%s: %s of the model before are in %s", self.run, ", ".join(there), aside)

    def rewind(self) -> None:
        """Cut the logs back to the session, which was rolled back, and save it if it has begun."""
        self.close()
        self._open()
        if self.session.iteration:
            self.save()

    def close(self) -> None:
        self.metrics.close()
        if self.events is not None:
            self.events.close()


def _event_writer(run: Path, session: Session) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard uses what other libraries deprecate
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "--tensorboard: needs TensorBoard; pip install 'gcn-cli[tensorboard]'"
            ) from error
        return SummaryWriter(str(run / "tensorboard"), purge_step=session.iteration + 1)
