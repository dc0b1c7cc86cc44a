"""One word for the quality of a texture model, and what limits it.

A model begins with the spectrum of the exemplar, so the scale of the quality has two ends: an
untrained model (`TextureMetrics.untrained`) and another crop of the exemplar (1). The word says how
far between them the samples are. It is never better than the worst part of the evidence: structure,
classifier, variety, copies, and the state of the training. The thresholds were chosen on labeled
samples; docs/quality.md has the table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FAR, ROUGH, FAIR, CLOSE = "far", "rough", "fair", "close"
WORDS = (FAR, ROUGH, FAIR, CLOSE)
"""From the worst to the best: noise of the right color and scale; parts of things, broken or
blurred; whole things that differ in something; like another crop."""

SMALLEST_CLOSENESS = {ROUGH: 0.15, FAIR: 0.4, CLOSE: 0.75}
LEAST_UNTRAINED = 1.05  # of an exemplar nearer to noise the quality tells little
BROKEN = 1.25  # structure
MELTED = 1.15
ALWAYS_TOLD = 0.95  # classifier
UNIFORM = 0.7  # variety
COPIED = 0.05
LARGE_THINGS = 0.6  # variety of an untrained model: crops of the exemplar differ by large things


class Untrained(NamedTuple):
    """The quality and the variety of an untrained model."""

    quality: float
    variety: float


class Limit(NamedTuple):
    """The best word that a finding allows, and the finding."""

    word: str
    reason: str


class Verdict(NamedTuple):
    """A word of WORDS; closeness, 0 as an untrained model to 1 as another crop; what limits it."""

    word: str
    closeness: float
    limits: list[str]


def judge(
    metrics: Mapping[str, float | None], untrained: Untrained, training: Sequence[Limit] = ()
) -> Verdict | None:
    """The verdict on the metrics of a sample; None if the quality could not be measured.

    training: what the state of the training allows.
    """
    quality = metrics.get("quality")
    if quality is None or not math.isfinite(quality):
        return None
    closeness = 1 - math.log(quality) / math.log(max(untrained.quality, LEAST_UNTRAINED))
    closeness = min(1.0, max(0.0, closeness))
    words = [FAR, *(word for word, least in SMALLEST_CLOSENESS.items() if closeness >= least)]
    limits = [*training, *_limits(metrics)]
    if untrained.quality < LEAST_UNTRAINED:
        reason = f"untrained models have {untrained.quality:.2f} already: little is measured"
        limits.append(Limit(FAIR, reason))
    if untrained.variety < LARGE_THINGS:
        limits.append(Limit(FAIR, "the exemplar has large things, which are not measured"))
    limits.sort(key=lambda limit: WORDS.index(limit.word))
    word = min([words[-1], *(limit.word for limit in limits)], key=WORDS.index)
    return Verdict(word, round(closeness, 3), [limit.reason for limit in limits])


def _limits(metrics: Mapping[str, float | None]) -> list[Limit]:
    """What single metrics allow; those that could not be measured are left out."""

    def value(name: str, default: float) -> float:
        measured = metrics.get(name)
        return default if measured is None or math.isnan(measured) else measured

    limits = []
    structure, variety = value("structure", 1.0), value("variety", 1.0)
    if structure > BROKEN:
        limits.append(Limit(ROUGH, f"structure {structure:.2f}: things are broken or merged"))
    elif structure > MELTED:
        limits.append(Limit(FAIR, f"structure {structure:.2f}: things are not all whole"))
    if value("classifier", 0.5) > ALWAYS_TOLD:
        limits.append(Limit(FAIR, f"classifier {value('classifier', 0.5):.2f}: always tells"))
    if variety < UNIFORM:
        limits.append(Limit(FAIR, f"variety {variety:.2f}: too uniform"))
    if value("copied", 0.0) > COPIED:
        limits.append(Limit(FAIR, f"copied {value('copied', 0.0):.2f}: parts of the exemplar"))
    return limits
