"""gcn from Python: `train`, `load`, and the `Model` they return. The commands use only this.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught;
what goes wrong is raised from the one tree of `errors.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gcn_cli.config import Config
from gcn_cli.presets import resolve
from gcn_cli.ranks import Ranks, current
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs import comparison, forecast
from gcn_cli.runs.comparison import Verdict
from gcn_cli.runs.folder import model_path
from gcn_cli.runs.job import OnStep, run_training
from gcn_cli.runs.model import Model
from gcn_cli.runs.observed import Alpha, Observed, observe
from gcn_cli.runs.pictures import Linked, Picture, as_list, open_once
from gcn_cli.runs.starting import Extension, Resume, Schedule, begin
from gcn_cli.runtime import choose_device, choose_precision
from gcn_cli.values import read_file

__all__ = ["Model", "compare", "load", "train"]


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
    extend: int | None = None,
    extend_time: float | None = None,
    max_time: float | None = None,
    preview_every: int | None = None,
    save_every: float = 60.0,
    tensorboard: bool = False,
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
    "must" needs it), or trained anew with `overwrite`; None keeps the model in memory. extend: so
    many iterations more of a finished run, extend_time: as many as take so many seconds.
    max_time, save_every: seconds. A ladder is made as long as max_time allows, whole and refined,
    unless `iterations` are given: then it ends where the time does. tensorboard: event files in
    the run's folder. on_step(iteration, last,
    measures) is called after every iteration, and `should_stop` asked. Raises InputError,
    DivergedError.
    """
    schedule = Schedule(
        max_time if extend_time is None else extend_time,
        preview_every=preview_every,
        save_every=save_every,
        overwrite=overwrite,
        resume=resume,
        extension=_extension(extend, extend_time),
        tensorboard=tensorboard,
    )
    work = _prepared(
        pictures, linked, mask, alpha, preset, config, output, device, precision, settings
    )
    planned = extend_time is not None or not (work.fixed or schedule.extension)
    training = run_training(
        work.observed,
        work.asked,
        work.run,
        replace(schedule, planned=planned),
        work.device,
        work.dtype,
        ranks=work.ranks,
        on_step=on_step,
        should_stop=should_stop,
    )
    path = None if output is None else model_path(str(output))
    return Model(training.checkpoint(), work.dtype, path)


def expect(
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
    extend: int | None = None,
    extend_time: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """What `train` with the same words would do: settled config, iterations, seconds, MiB.

    Some iterations are made and timed; nothing is written. Raises InputError as `train` does.
    """
    work = _prepared(
        pictures, linked, mask, alpha, preset, config, output, device, precision, settings
    )
    schedule = Schedule(
        overwrite=overwrite, resume=resume, extension=_extension(extend, extend_time)
    )
    begun = begin(work.observed, work.asked, work.run, schedule, work.device, work.dtype)
    return forecast.of_training(begun)


def compare(
    models: Sequence[Model | str | Path], picture: Linked, *, device: str = "auto"
) -> list[Verdict]:
    """Which of several ladders of textures made a picture: a `Verdict` for each, in their order.

    All are taken for as likely before. Raises InputError for other kinds of models.
    """
    loaded = [one if isinstance(one, Model) else load(one, device=device) for one in models]
    shown = open_once(picture) if isinstance(picture, str | Path) else picture
    return comparison.compare([one.checkpoint for one in loaded], shown, torch.float32)


@dataclass(frozen=True)
class _Work:
    """What a training is made of, once its words are understood."""

    observed: Observed
    asked: Config
    fixed: bool  # whether the number of iterations was given
    run: Path | None
    device: torch.device
    dtype: torch.dtype
    ranks: Ranks


def _prepared(
    pictures: Picture | Sequence[Picture],
    linked: Sequence[Picture],
    mask: Picture | None,
    alpha: Alpha,
    preset: str | None,
    config: str | Path | None,
    output: str | Path | None,
    device: str,
    precision: str,
    settings: dict[str, Any],
) -> _Work:
    written = read_file(str(config)) if config else {}
    asked = resolve(settings, written, preset)
    chosen, ranks = choose_device(device), current()
    with ranks.together():
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
    return _Work(
        observed,
        asked,
        "iterations" in {**settings, **written},
        None if output is None else Path(output),
        chosen,
        choose_precision(precision, chosen, smooth_gates=asked.smooth_gates),
        ranks,
    )


def _extension(iterations: int | None, seconds: float | None) -> Extension | None:
    return None if iterations is None and seconds is None else Extension(iterations, seconds)
