"""gcn from Python: `train`, `load`, and the `Model` they return. The commands use only this.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught;
what goes wrong is raised from the one tree of `errors.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gcn_cli.presets import resolve
from gcn_cli.ranks import current
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs import comparison, forecast
from gcn_cli.runs.comparison import Verdict
from gcn_cli.runs.folder import model_path
from gcn_cli.runs.job import OnStep, run_training
from gcn_cli.runs.model import Model
from gcn_cli.runs.observed import Alpha, observe
from gcn_cli.runs.pictures import Linked, Picture, as_list, open_once
from gcn_cli.runs.starting import Extension, Resume, Schedule, Work, begin
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
    the run's folder. on_step(iteration, last, measures) is called after every iteration, and
    `should_stop` asked. Raises InputError, DivergedError.
    """
    work = _understood(
        pictures,
        linked=linked,
        mask=mask,
        alpha=alpha,
        preset=preset,
        config=config,
        output=output,
        overwrite=overwrite,
        resume=resume,
        extend=extend,
        extend_time=extend_time,
        device=device,
        precision=precision,
        **settings,
    )
    schedule = replace(
        work.schedule,
        max_time=max_time if extend_time is None else extend_time,
        preview_every=preview_every,
        save_every=save_every,
        tensorboard=tensorboard,
    )
    work = replace(work, schedule=schedule)
    training = run_training(work, on_step=on_step, should_stop=should_stop)
    path = None if output is None else model_path(str(output))
    return Model(training.checkpoint(), work.dtype, path)


def expect(pictures: Picture | Sequence[Picture], **words: Any) -> dict[str, Any]:
    """What `train` with the same words would do: settled config, iterations, seconds, MiB.

    `words` are those of `train` but for what it is watched and stopped with. Some iterations are
    made and timed; nothing is written. Raises InputError as `train` does.
    """
    return forecast.of_training(begin(_understood(pictures, **words)))


def compare(
    models: Sequence[Model | str | Path], picture: Linked, *, device: str = "auto"
) -> list[Verdict]:
    """Which of several ladders of textures made a picture: a `Verdict` for each, in their order.

    All are taken for as likely before. Raises InputError for other kinds of models.
    """
    loaded = [one if isinstance(one, Model) else load(one, device=device) for one in models]
    shown = open_once(picture) if isinstance(picture, str | Path) else picture
    return comparison.compare([one.checkpoint for one in loaded], shown, torch.float32)


def _understood(
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
) -> Work:
    """What the words of `train` ask for, pictures read."""
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
    extension = None
    if extend is not None or extend_time is not None:
        extension = Extension(extend, extend_time)
    fixed = "iterations" in {**settings, **written} or extension is not None
    return Work(
        observed,
        asked,
        None if output is None else Path(output),
        Schedule(
            planned=extend_time is not None or not fixed,
            overwrite=overwrite,
            resume=resume,
            extension=extension,
        ),
        chosen,
        choose_precision(precision, chosen, smooth_gates=asked.smooth_gates),
        ranks,
    )
