"""The quality of a run's samples, and forecasts of the time and memory that work will take."""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gcn_cli import images, strict_json
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import DEFAULT_BATCH_SIZE, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import Image
from gcn_cli.inputs import LinkedImages, to_pixels
from gcn_cli.metrics import TextureMetrics
from gcn_cli.metrics.verdict import ROUGH, Limit, judge
from gcn_cli.options import SampleOptions
from gcn_cli.runs.session import Session
from gcn_cli.runtime import peak_memory_mib
from gcn_cli.synthesis import OnEvaluation, plan_tiling, requested_size, samples, sampling_size
from gcn_cli.tile_set import TileSet
from gcn_cli.training.schedule import convergence
from gcn_cli.training_images import TrainingImages

log = logging.getLogger(__name__)

EXEMPLAR_FILE, GRADES_FILE = "exemplar.png", "quality.json"
SHORT = 0.4  # share of the images that a default training sees: shorter ones are rough
Grades = dict[str, float]
"""Metrics of a sample by name, NaN if they cannot be measured; see `metrics.DESCRIPTIONS`."""
Graded = dict[str, Any]
"""Rounded grades, None for NaN; "untrained", "verdict", "closeness" and "limits" of `judge`."""


def keep_exemplar(run: Path, training: TrainingImages) -> None:
    """Write the first training image to the run, for metrics and the report.

    Of linked maps only the first; unknown pixels in the mean color. Values between whole gray
    levels are kept with 16 bits.
    """
    texture_map, known = training.maps[0], training.known[0]
    image = training.images[0][: texture_map.channels]
    mean = torch.where(known, image, 0.0).sum(dim=(1, 2), keepdim=True) / known.sum()
    whole = bool((torch.where(known, image, 0.0) % 1 == 0).all())
    depth = images.own_bit_depth(len(image), 8 if whole else 16)
    if depth == 8 and not whole:
        log.warning(
            "%s: kept with 8 bits, and quality is measured so: 16-bit colors need libvips; "
            "pip install 'gcn-cli[deep]'",
            run / EXEMPLAR_FILE,
        )
    filled = torch.where(known, image, mean)
    images.write(filled, str(run / EXEMPLAR_FILE), depth, texture_map.icc_profile)


def has_exemplar(run: Path | None) -> bool:
    """Whether `keep_exemplar` wrote a file."""
    return run is not None and (run / EXEMPLAR_FILE).exists()


def kept_exemplar(run: Path | None) -> Image | None:
    """The image that `keep_exemplar` wrote; None if there is none."""
    if run is None or not has_exemplar(run):
        return None
    return images.read_image(str(run / EXEMPLAR_FILE))


def texture_metrics(
    checkpoint: Checkpoint, run: Path | None, exemplar: LinkedImages | None
) -> TextureMetrics:
    """Metrics against `exemplar`, shrunk as for training; None is the exemplar in the run.

    Raises InputError if the model is not a texture, or the exemplar is missing or too small.
    """
    config = checkpoint.config
    if config.crop is None:
        raise InputError("quality is measured for textures only, which are trained on crops")
    if exemplar is None:
        exemplar = kept_exemplar(run)
    if exemplar is None:
        raise InputError(
            "quality: the run keeps no exemplar to compare with; name one (--set exemplar=FILE)"
        )
    try:
        return TextureMetrics(to_pixels(exemplar, checkpoint.maps[:1], None, config.shrink))
    except ValueError as error:
        raise InputError(f"the exemplar: {error}") from error


def median(grades: Sequence[Grades]) -> Grades:
    """The median of each metric over several samples."""
    medians = torch.tensor([list(sample.values()) for sample in grades]).nanmedian(dim=0).values
    return dict(zip(grades[0], medians.tolist(), strict=True))


def rounded(grades: Grades) -> dict[str, float | None]:
    """Grades for JSON: three decimals, None in place of values that are not finite."""
    return {name: round(v, 3) if math.isfinite(v) else None for name, v in grades.items()}


def graded(checkpoint: Checkpoint, measures: TextureMetrics, sample: torch.Tensor) -> Graded:
    """The grades of a sample (C, H, W) in 0..255, and the verdict on its model."""
    metrics = measures.measure(sample[: checkpoint.maps[0].channels])
    verdict = judge(metrics, measures.untrained, training_limits(checkpoint))
    return {
        **rounded(metrics),
        "untrained": round(measures.untrained.quality, 3),
        "verdict": None if verdict is None else verdict.word,
        "closeness": None if verdict is None else verdict.closeness,
        "limits": [] if verdict is None else verdict.limits,
    }


def grade_run(
    checkpoint: Checkpoint, run: Path, dtype: torch.dtype, on_step: OnEvaluation | None = None
) -> Graded:
    """The grades of the model in a run: those that it keeps, or of a new sample, kept from then on.

    on_step(done, total) counts evaluations of the sample.
    """
    grades = saved_grades(run, checkpoint.iteration)
    if grades is None:
        (sample,) = samples(checkpoint, SampleOptions(fit=True), range(1), dtype, on_step=on_step)
        grades = graded(checkpoint, texture_metrics(checkpoint, run, None), sample)
        save_grades(run, checkpoint.iteration, grades)
    return grades


def training_limits(checkpoint: Checkpoint) -> list[Limit]:
    """What the state of a training allows: cut short, too short, or gone wrong."""
    config, done, total = checkpoint.config, checkpoint.iteration, checkpoint.total_iterations
    usual = config.default_iterations
    seen = total * (config.batch_size or DEFAULT_BATCH_SIZE) / (usual * DEFAULT_BATCH_SIZE)
    limits = []
    if done < total:
        limits.append(Limit(ROUGH, f"the training is at iteration {done} of {total}"))
    elif seen < SHORT:
        limits.append(Limit(ROUGH, f"a training of {total} iterations is short; {usual} are usual"))
    if (state := training_state(checkpoint)) in ("stalled", "unstable"):
        limits.append(Limit(ROUGH, f"the training was {state}"))
    return limits


def training_state(checkpoint: Checkpoint) -> str | None:
    """The state of `convergence` of the denoising losses; None if they show nothing."""
    losses = [row["loss"] for row in checkpoint.history if not row.get("likelihood")]
    found = convergence(losses)
    return None if found is None else found.state


def save_grades(run: Path, iteration: int, grades: Graded) -> None:
    """Write the grades of the model after an iteration."""
    values = {"iteration": iteration, **grades}
    images.write_bytes(run / GRADES_FILE, strict_json.dumps(values, indent=1).encode())


def saved_grades(run: Path | None, iteration: int) -> Graded | None:
    """The grades that `save_grades` wrote; None if there are none of this iteration.

    Those of earlier versions, which have no verdict, do not count.
    """
    if run is None or not (run / GRADES_FILE).exists():
        return None
    try:
        values = json.loads((run / GRADES_FILE).read_text(encoding="utf-8"))
        valid = values.pop("iteration") == iteration and {"verdict", "limits"} <= values.keys()
        return dict(values) if valid else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def in_words(grades: Graded, run: Path | None = None) -> str:
    """Grades as lines for a person: the verdict, what limits it, and what is not seen."""
    if grades["verdict"] is None:
        return "quality: could not be measured"
    lines = [
        f"quality: {grades['verdict']}; {grades['quality']:.2f} is "
        f"{100 * grades['closeness']:.0f}% of the way from an untrained model "
        f"({grades['untrained']:.2f}) to another crop of the exemplar (1.00)"
    ]
    if grades["limits"]:
        lines.append("limited by: " + "; ".join(grades["limits"]))
    place = "samples"
    if run is not None:
        place = str(run / ("samples" if (run / "samples").exists() else "previews"))
    lines.append(f"this is fine texture only: look at {place} for whole things")
    return "\n".join(lines)


TIMED_STEPS = 3  # of each phase of a training
LARGEST_TIMED = 512  # pixels a side of what is timed


def training_forecast(session: Session) -> dict[str, Any]:
    """Resolved config, iterations, and the seconds and MiB that the rest of a training takes.

    Times a few iterations of each phase; the session cannot be used afterwards. Published models
    that grow layer by layer are timed with all layers, an upper bound. Memory is None if the system
    does not tell it.
    """
    trainer, done = session.trainer, session.iteration
    last, start, seconds = trainer.iterations, done, 0.0
    for end in [*trainer.likelihood_starts, last]:
        if start < end:

            def steps(count: int, last: int = end) -> None:
                figures = [trainer.step(last) for _ in range(count)]
                figures[-1].tolist()  # waits for the device

            steps(2)  # libraries choose their kernels
            seconds += (end - start) * _seconds(partial(steps, TIMED_STEPS)) / TIMED_STEPS
            start = end
    peak = peak_memory_mib(session.device)
    return {
        "config": to_json(session.kind.config),
        "iterations": last,
        "iterations_done": done,
        "expected_seconds": round(seconds, 1),
        "expected_memory_mib": None if peak is None else round(peak, 1),
    }


def _seconds(work: Callable[[], object]) -> float:
    """Time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sampling_forecast(
    checkpoint: Checkpoint, options: SampleOptions, count: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Size, evaluations, and the seconds and MiB that `count` samples take.

    Times a sample of at most LARGEST_TIMED pixels a side; seconds are proportional to the area.
    """
    kind, evaluations = checkpoint.kind, checkpoint.kind.evaluations(options)
    height, width = requested_size(checkpoint, options)
    samples_in_all, tiles = float(count), TileSet.of(options)
    if tiles is not None:
        share = tiles.evaluations(kind, options, range(count)) / evaluations
        samples_in_all = share * (1 + 2 * tiles.margin / height) * (1 + 2 * tiles.margin / width)
        options = replace(options, variants=None, border=None, edges=None)
    size = sampling_size(checkpoint, options, (height, width))
    plan = plan_tiling(kind, options, size, dtype, options.tile)
    timed = options
    if options.size is not None:
        timed = replace(options, size=(min(width, LARGEST_TIMED), min(height, LARGEST_TIMED)))

    def sample(steps: int) -> None:
        next(samples(checkpoint, replace(timed, steps=steps), range(1), dtype))

    once, thrice = (_seconds(partial(sample, steps)) for steps in (1, 3))
    area = height * width / (timed.size[0] * timed.size[1] if timed.size else height * width)
    seconds = once + (evaluations - 1) * max(0.0, thrice - once) / 2
    block_size = plan.size if plan.block is None else (plan.block, plan.block)
    memory = kind.state_bytes(plan.size) + kind.evaluation_bytes(block_size, dtype)
    return {
        "width": width,
        "height": height,
        "evaluations": evaluations,
        "blocks": plan.blocks,
        "expected_seconds": round(samples_in_all * area * seconds, 1),
        "expected_memory_mib": round(memory / 2**20, 1),
    }
