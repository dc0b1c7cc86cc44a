"""How good a model's samples are, by the measures of `quality`: what a training ends with."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.quality import Yardstick
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.pictures import Linked, to_pixels

EXEMPLAR, GRADES = "exemplar.png", "quality.json"
ROUGH = 1.2  # a quality from which samples are not what they should be
Grades = dict[str, float]


def keep_exemplar(run: Path, pictures: Sequence[Tensor], channels: int) -> None:
    """Keep what a texture was learned from in its run, for measures and the report.

    The first `channels` of the first of several pictures (C, H, W), holes in their mean colour.
    """
    picture = pictures[0][:channels]
    mean = picture.nanmean(dim=(1, 2), keepdim=True)
    images.write(torch.where(picture.isnan(), mean, picture), str(run / EXEMPLAR))


def kept_exemplar(run: Path | None) -> str | None:
    """The file of the exemplar that a run keeps; None where it keeps none."""
    kept = None if run is None else run / EXEMPLAR
    return None if kept is None or not kept.exists() else str(kept)


def yardstick(loaded: Checkpoint, run: Path | None, exemplar: Linked | None) -> Yardstick:
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
        return Yardstick(to_pixels(exemplar, loaded.maps[:1], None, loaded.config.shrink))
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
    images.write_bytes(run / GRADES, json.dumps(said, indent=1).encode())


def saved_grades(run: Path | None, iteration: int) -> dict[str, float | None] | None:
    """What `save_grades` wrote of this iteration; None where it is of another, or there is none."""
    path = None if run is None else run / GRADES
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
