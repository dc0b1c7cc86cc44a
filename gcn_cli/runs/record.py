"""The files of runs: what a training writes to its folder, and a list of the runs in a folder.

A training writes the model file, metrics.jsonl, previews, and TensorBoard.
"""

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
from gcn_cli.runs.grades import GRADES_FILE, keep_exemplar, saved_grades
from gcn_cli.runs.session import Session

log = logging.getLogger(__name__)

PREVIEWS, METRICS = "previews", "metrics.jsonl"
MADE = ("samples", "reconstructions", "repairs")  # folders of images that a model has made


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs in a folder, the newest first, as plain values; a model file is not read whole.

    Of each: run, sources, preset, written (local time), width, height, iteration, iterations, and
    quality and verdict, None if they were not measured. Of a run that cannot be read: run, written
    and message.
    """
    paths = folder.glob(f"*/{MODEL_FILE}")
    dated = sorted(((path.stat().st_mtime, path) for path in paths), reverse=True)
    return [
        {
            "run": str(path.parent),
            "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(date)),
            **_run_facts(path),
        }
        for date, path in dated
    ]


def _run_facts(path: Path) -> dict[str, Any]:
    try:
        about = checkpoint_file.read_description(path)
        iteration, (height, width) = about["iteration"], about["image_size"]
        grades = saved_grades(path.parent, iteration) or {}
        return {
            "sources": [source["name"] for source in about.get("sources", ())],
            "preset": about.get("asked", {}).get("preset"),
            "width": width,
            "height": height,
            "iteration": iteration,
            "iterations": about["total_iterations"],
            "quality": grades.get("quality"),
            "verdict": grades.get("verdict"),
        }
    except (InputError, KeyError, TypeError, ValueError) as error:
        return {"message": str(error).removeprefix(f"{path}: ")}


def is_trained_on(run: Path, image: str) -> bool | None:
    """Whether a run has a finished model of an image file; None if it has none that is finished."""
    if not (run / MODEL_FILE).exists():
        return None
    about = checkpoint_file.read_description(run / MODEL_FILE)
    sources = about.get("sources", [])[:1]  # linked maps follow
    if sources and sources[0] != images.SourceFile.of(image)._asdict():
        return False
    return True if sources and about["iteration"] >= about["total_iterations"] else None


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
