"""gcn from Python: `train`, `load`, and the `Model` they return. The commands use only this.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught;
what goes wrong is raised from the one tree of `errors.py`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gcn_cli.presets import resolve
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs.folder import model_path
from gcn_cli.runs.model import Model
from gcn_cli.runs.observed import Alpha, observe
from gcn_cli.runs.pictures import Picture, as_list
from gcn_cli.runs.training import OnStep, Resume, Schedule, run_training
from gcn_cli.runtime import choose_device, choose_precision
from gcn_cli.values import read_file

__all__ = ["Model", "load", "train"]


def load(run: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> Model:
    """The model of a run's folder or of a model file; None is the newest under runs/.

    device: auto, cpu, cuda, cuda:1, mps; precision: auto, float32, bf16. Raises InputError.
    """
    chosen, path = choose_device(device), model_path(None if run is None else str(run))
    loaded = files.load(path, chosen)
    smooth = loaded.config.smooth_gates
    return Model(loaded, choose_precision(precision, chosen, smooth_gates=smooth), path)


def train(
    pictures: Picture | Sequence[Picture],
    *,
    linked: Sequence[Picture] = (),
    mask: Picture | None = None,
    alpha: Alpha = "auto",
    preset: str | None = None,
    config: str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: Resume = "auto",
    max_time: float | None = None,
    preview_every: int | None = None,
    save_every: float = 60.0,
    device: str = "auto",
    precision: str = "auto",
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Model:
    """Learn a model from pictures; `settings` are the fields of the config, as iterations=500.

    pictures: one or several, or a folder's path. linked: maps of one picture that are learned with
    it. mask: of one picture, white where nothing is learned. alpha: whether transparency is a
    "mask", a "channel" or dropped; "auto" decides by the pictures. config: a TOML file of
    settings. output: the run's folder, which is gone on with ("never" to `resume` refuses to,
    "must" needs it), or trained anew with `overwrite`; None keeps the model in memory.
    max_time, save_every: seconds. A ladder is made as long as max_time allows, whole and refined,
    unless `iterations` are given: then it ends where the time does. on_step(iteration, last,
    measures) is called after every iteration, and `should_stop` asked. Raises InputError,
    DivergedError.
    """
    written = read_file(str(config)) if config else {}
    asked = resolve(settings, written, preset)
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen, smooth_gates=asked.smooth_gates)
    observed = observe(
        as_list(pictures),
        linked=list(linked),
        mask=mask,
        alpha=alpha,
        channels=asked.channels,
        size=asked.size,
        shrink=asked.shrink,
        crop=asked.crop,
        multiple=asked.stride,
    )
    schedule = Schedule(
        max_time,
        planned="iterations" not in settings and "iterations" not in written,
        preview_every=preview_every,
        save_every=save_every,
        overwrite=overwrite,
        resume=resume,
    )
    training = run_training(
        observed,
        asked,
        None if output is None else Path(output),
        schedule,
        chosen,
        dtype,
        on_step=on_step,
        should_stop=should_stop,
    )
    path = None if output is None else model_path(str(output))
    return Model(training.checkpoint(), dtype, path)
