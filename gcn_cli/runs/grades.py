"""How good a model's samples are, by the measures of `quality`: what a training ends with.

What a training or a sampling will take: the speed is measured on a piece of it, not guessed.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import to_json
from gcn_cli.errors import InputError
from gcn_cli.inputs import LinkedImages, to_pixels
from gcn_cli.metrics import TextureMetrics
from gcn_cli.options import SampleOptions
from gcn_cli.runs.session import Session
from gcn_cli.runtime import peak_memory_mib
from gcn_cli.synthesis import samples, tiling_plan

EXEMPLAR_FILE, GRADES_FILE = "exemplar.png", "quality.json"
ROUGH = 1.2  # a quality from which samples are not what they should be
Grades = dict[str, float]


def keep_exemplar(run: Path, pictures: Sequence[Tensor], channels: int) -> None:
    """Keep what a texture was learned from in its run, for measures and the report.

    The first `channels` of the first of several pictures (C, H, W), holes in their mean color.
    """
    picture = pictures[0][:channels]
    mean = picture.nanmean(dim=(1, 2), keepdim=True)
    images.write(torch.where(picture.isnan(), mean, picture), str(run / EXEMPLAR_FILE))


def kept_exemplar(run: Path | None) -> str | None:
    """The file of the exemplar that a run keeps; None where it keeps none."""
    kept = None if run is None else run / EXEMPLAR_FILE
    return None if kept is None or not kept.exists() else str(kept)


def yardstick(
    loaded: Checkpoint, run: Path | None, exemplar: LinkedImages | None
) -> TextureMetrics:
    """The exemplar to measure by: that of the run, or the one given, shrunk as for training.

    Raises InputError where there is none, or it is too small.
    """
    if loaded.config.crop is None:
        raise InputError("measures of quality are for textures, learned from crops")
    if exemplar is None:
        exemplar = kept_exemplar(run)
    if exemplar is None:
        raise InputError("the run keeps no exemplar to measure by; give it (--exemplar)")
    try:
        return TextureMetrics(to_pixels(exemplar, loaded.maps[:1], None, loaded.config.shrink))
    except ValueError as error:
        raise InputError(f"--exemplar: {error}") from error


def median(grades: Sequence[Grades]) -> Grades:
    """Of several samples, measure by measure."""
    return {
        name: float(torch.tensor([one[name] for one in grades]).nanmedian()) for name in grades[0]
    }


def rounded(grades: Grades) -> dict[str, float | None]:
    """For JSON: three places, None for what could not be measured."""
    return {name: None if math.isnan(v) else round(v, 3) for name, v in grades.items()}


def save_grades(run: Path, iteration: int, grades: Grades) -> None:
    """Write what the model of an iteration was graded."""
    said = {"iteration": iteration, **rounded(grades)}
    images.write_bytes(run / GRADES_FILE, json.dumps(said, indent=1).encode())


def saved_grades(run: Path | None, iteration: int) -> dict[str, float | None] | None:
    """What `save_grades` wrote of this iteration; None where it is of another, or there is none."""
    path = None if run is None else run / GRADES_FILE
    if path is None or not path.exists():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(value, float | int | None) for value in said.values())
        return said if said.pop("iteration") == iteration and whole else None
    except (ValueError, KeyError, AttributeError):
        return None


def in_words(grades: dict[str, float | None]) -> str:
    """The grades as a sentence for a person."""
    quality, told = grades.get("quality"), grades.get("told")
    if quality is None:
        return "quality: could not be measured"
    word = "like another part of the exemplar" if quality < 1.1 else "near the exemplar"
    if quality >= ROUGH:
        word = "rough" if quality < 1.5 else "far from the exemplar"
    parts = [f"quality {quality:.2f}: {word} (1 is like another part of it)"]
    for name, rule in (("structure", 1.25), ("variety", None), ("copied", 0.02)):
        value = grades.get(name)
        if value is not None:
            sign = " (high)" if rule is not None and value > rule else ""
            parts.append(f"{name} {value:.2f}{sign}")
    if told is not None:
        parts.append(f"told from it {told:.2f}")
    return ", ".join(parts)


WARM_UP, TIMED = 2, 3  # iterations
LARGEST_TIMED = 512  # pixels a side of what is timed
MIB = 2**20


def training_forecast(training: Session) -> dict[str, Any]:
    """Settled config, iterations, and the seconds and MiB that the rest of a training takes.

    Some iterations are made, of every kind that it has; the training is of no use after.
    A published course of stages is timed with all of its layers: it takes less than that.
    The memory is None where it cannot be told.
    """
    learner, done = training.learner, training.iteration
    last, before, seconds = learner.iterations, done, 0.0
    for until in [*learner.turns, last]:
        if before < until:
            seconds += (until - before) * _pace(training, until)
            before = until
    peak = peak_memory_mib(training.device)
    return {
        "config": to_json(training.family.config),
        "iterations": last,
        "iterations_done": done,
        "expected_seconds": round(seconds, 1),
        "expected_memory_mib": None if peak is None else round(peak, 1),
    }


def _pace(training: Session, iteration: int) -> float:
    """Seconds an iteration of the kind of number `iteration`."""
    for _ in range(WARM_UP):
        training.learner.step(iteration)
    started = time.perf_counter()
    for _ in range(TIMED):
        training.learner.step(iteration)
    return (time.perf_counter() - started) / TIMED


def sampling_forecast(
    loaded: Checkpoint, request: SampleOptions, count: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Size, evaluations, and the seconds and MiB that `count` pictures take.

    Timed on a picture of LARGEST pixels a side or less; the rest is in proportion to its area.
    """
    family, steps = loaded.family, loaded.family.steps(request)
    height, width = request.size or loaded.image_size
    canvas = tiling_plan(family, request, family.canvas(request, loaded.image_size), dtype, "auto")
    timed = request
    if request.size is not None:
        timed = replace(request, size=(min(height, LARGEST_TIMED), min(width, LARGEST_TIMED)))
    once, thrice = (_seconds_of_sample(loaded, replace(timed, steps=n), dtype) for n in (1, 3))
    area = height * width / (timed.size[0] * timed.size[1] if timed.size else height * width)
    seconds = once + (steps - 1) * max(0.0, thrice - once) / 2
    inner = canvas.size if canvas.block is None else (canvas.block, canvas.block)
    memory = family.state_bytes(canvas.size) + family.evaluation_bytes(inner, dtype)
    return {
        "width": width,
        "height": height,
        "evaluations": steps,
        "blocks": canvas.blocks,
        "expected_seconds": round(count * area * seconds, 1),
        "expected_memory_mib": round(memory / MIB, 1),
    }


def _seconds_of_sample(loaded: Checkpoint, request: SampleOptions, dtype: torch.dtype) -> float:
    started = time.perf_counter()
    next(samples(loaded, request, range(1), dtype))
    return time.perf_counter() - started
