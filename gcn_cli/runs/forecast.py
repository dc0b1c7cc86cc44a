"""What a training or a sampling will take: the speed is measured on a piece of it, not guessed."""

import time
from dataclasses import replace
from typing import Any

import torch

from gcn_cli.config import to_json
from gcn_cli.runs.canvas import planned
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.synthesis import samples
from gcn_cli.runs.training import Training
from gcn_cli.runtime import peak_memory_mib
from gcn_cli.sampling.request import Request

WARM_UP, TIMED = 2, 3  # iterations
LARGEST = 512  # pixels a side of what is timed
MIB = 2**20


def of_training(training: Training) -> dict[str, Any]:
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


def _pace(training: Training, iteration: int) -> float:
    """Seconds an iteration of the kind of number `iteration`."""
    for _ in range(WARM_UP):
        training.learner.step(iteration)
    started = time.perf_counter()
    for _ in range(TIMED):
        training.learner.step(iteration)
    return (time.perf_counter() - started) / TIMED


def of_samples(
    loaded: Checkpoint, request: Request, count: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Size, evaluations, and the seconds and MiB that `count` pictures take.

    Timed on a picture of LARGEST pixels a side or less; the rest is in proportion to its area.
    """
    family, steps = loaded.family, loaded.family.steps(request)
    height, width = request.size or loaded.image_size
    canvas = planned(family, request, family.canvas(request, loaded.image_size), dtype, "auto")
    timed = request
    if request.size is not None:
        timed = replace(request, size=(min(height, LARGEST), min(width, LARGEST)))
    once, thrice = (_timed(loaded, replace(timed, steps=n), dtype) for n in (1, 3))
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


def _timed(loaded: Checkpoint, request: Request, dtype: torch.dtype) -> float:
    started = time.perf_counter()
    next(samples(loaded, request, range(1), dtype))
    return time.perf_counter() - started
