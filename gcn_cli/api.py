"""The Python API: `train`, `forecast` and `compare`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gcn_cli import analysis
from gcn_cli.analysis import Comparison
from gcn_cli.config import Config
from gcn_cli.inputs import ImageLike, LinkedImages, open_image
from gcn_cli.interactive import progress_bar, public
from gcn_cli.model import Model, load
from gcn_cli.options import TrainOptions
from gcn_cli.presets import read_toml
from gcn_cli.runs import grades
from gcn_cli.runs.folder import MODEL_FILE
from gcn_cli.runs.job import OnStep, run_training
from gcn_cli.runs.request import complete_request
from gcn_cli.runs.session import Session
from gcn_cli.signals import interruptible
from gcn_cli.training.distributed import current_group
from gcn_cli.training.loop import Metrics
from gcn_cli.training_images import TrainingImages, load_training_images

log = logging.getLogger(__name__)

__all__ = ["compare", "forecast", "train"]


@public
def train(
    images: ImageLike | Sequence[ImageLike],
    *,
    progress: bool = False,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    **options: Any,
) -> Model:
    """Train a model on one image, several, or a folder of images.

    An interrupt (Ctrl-C, the stop button of a notebook) ends the training after the iteration: the
    model so far is saved and returned, and its `complete` is False. A second one raises
    KeyboardInterrupt.

    Args:
        images: an image, a list of images, or a folder.
        progress: whether a bar is shown.
        on_step: called as on_step(iteration, last_iteration, metrics) after every iteration.
        should_stop: called after every iteration; true saves the training and ends it early.
        options: fields of `TrainOptions`, as preset, output, max_time and device, and settings, as
            iterations and learning_rate. Without output the model stays in memory; with it,
            a training in that folder is resumed.

    Raises:
        InputError: for images, options or settings that cannot be used.
        DivergedError: if training diverges after several rollbacks.
        BusyError: if another process trains in the same folder.

    Example:
        >>> model = gcn.train("texture.jpg", output="runs/texture", progress=True)
    """
    training_images, config, chosen = _training_request(images, options)
    shown = progress and current_group().is_main
    with interruptible() as interrupt, progress_bar("train", on_step, shown=shown) as note:

        def after_step(iteration: int, last: int, metrics: Metrics) -> None:
            try:
                note(iteration, last, metrics)
            except KeyboardInterrupt:
                interrupt.interrupt()

        def stop() -> bool:
            return interrupt() or (should_stop is not None and should_stop())

        session = run_training(
            training_images, config, chosen, on_step=after_step, should_stop=stop
        )
    if interrupt() and not session.complete:
        last = session.trainer.iterations
        log.warning("interrupted after iteration %d of %d", session.iteration, last)
    path = None if chosen.output is None else Path(chosen.output) / MODEL_FILE
    checkpoint = session.checkpoint()
    checkpoint.kind.net.requires_grad_(False)
    return Model(checkpoint, session.dtype, path)


@public
def forecast(images: ImageLike | Sequence[ImageLike], **options: Any) -> dict[str, Any]:
    """Resolved config, iterations, seconds and MiB of `train` with the same arguments.

    Times a few iterations; writes nothing. Raises InputError as `train` does.

    Example:
        >>> gcn.forecast("texture.jpg", preset="quick")["expected_seconds"]
        71.5
    """
    return grades.training_forecast(Session.begin(*_training_request(images, options)))


@public
def compare(
    models: Sequence[Model | str | Path], image: LinkedImages, *, device: str = "auto"
) -> list[Comparison]:
    """Which of several noise-conditional texture models made an image, with equal priors.

    Args:
        models: models, run folders or model files.
        image: the image.
        device: device of the models that are loaded.

    Returns:
        A `Comparison` for each model.

    Raises:
        InputError: for models of other kinds.

    Example:
        >>> moss, bark = gcn.compare(["runs/moss", "runs/bark"], "photo.jpg")
        >>> moss.posterior
        0.98
    """
    loaded = [m if isinstance(m, Model) else load(m, device=device) for m in models]
    opened = open_image(image) if isinstance(image, str | Path) else image
    return analysis.compare_models([m.checkpoint for m in loaded], opened, torch.float32)


def _training_request(
    images: ImageLike | Sequence[ImageLike], keywords: dict[str, Any]
) -> tuple[TrainingImages, Config, TrainOptions]:
    """The images, the requested config and the options of a training."""
    options = TrainOptions.from_keywords(keywords)
    file = read_toml(str(options.config)) if options.config else {}
    config, options = complete_request(options, file)
    with current_group().synchronized():
        training_images = load_training_images(images, options, config)
    return training_images, config, options
