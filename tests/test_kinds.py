"""A ladder among the families: evaluations a sample takes, counted, and how learners are made."""

import dataclasses

import pytest
import torch

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import (
    OBJECT_STEPS,
    TEXTURE_STEPS,
    NoiseConditionalKind,
    TilingPlan,
    make_trainer,
)
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions
from gcn_cli.presets import PRESETS
from gcn_cli.training.trainer import CascadeTrainer, StageTrainer

TEXTURE = NoiseConditionalConfig(layers=parse_layers("4@3"), crop=16, margin=2)
OBJECTS = dataclasses.replace(TEXTURE, head=True, crop=None, margin=0, lattice=PaddingMode.ZERO)


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [
        (TEXTURE, None, TEXTURE_STEPS),
        (OBJECTS, None, OBJECT_STEPS),
        (TEXTURE, 3, 3),
        (OBJECTS, 3, 3),
    ],
)
def test_evaluations_are_as_many_as_said(
    config: NoiseConditionalConfig, asked: int | None, expected: int
) -> None:
    family = NoiseConditionalKind.build(config, (16, 16), config.layers)
    request, counted = SampleOptions(steps=asked), []
    family.sample(
        request,
        [0],
        None,
        TilingPlan((16, 16)),
        torch.float32,
        lambda *step: counted.append(step),
    )
    assert len(counted) == expected == family.steps(request)


def test_no_more_evaluations_than_asked_for() -> None:
    family = NoiseConditionalKind.build(OBJECTS, (16, 16), OBJECTS.layers)
    taken = [family.steps(SampleOptions(steps=asked, restarts=3)) for asked in range(1, 150)]
    assert all(asked - 3 <= own <= asked for asked, own in enumerate(taken, start=1))


def test_restarts_take_more_evaluations_where_none_are_given() -> None:
    objects, texture = (
        NoiseConditionalKind.build(c, (16, 16), c.layers) for c in (OBJECTS, TEXTURE)
    )
    assert objects.steps(SampleOptions(restarts=2)) == OBJECT_STEPS + 2 * 12  # of 60 levels 13
    assert texture.steps(SampleOptions(restarts=2)) == TEXTURE_STEPS + 2 * 4
    assert objects.steps(SampleOptions(steps=20, rounds=10)) == 19 * 10 + 1
    ways = SampleOptions(start="picture", level=0.4, restarts=2)
    assert texture.steps(ways) == TEXTURE_STEPS  # it begins below what is gone through again


@pytest.mark.parametrize(
    ("preset", "octaves", "shares"),
    [
        ("default", 1, [1]),
        ("quick", 1, [1]),
        ("object", 1, [1]),
        ("default", 3, [1, 1, 1]),
        ("best", 3, [200 / 280, 560 / 1120, 560 / 1120]),
    ],
)
def test_the_likelihood_of_presets_begins_at_the_rates_that_were_measured(
    preset: str, octaves: int, shares: list[float]
) -> None:
    """At the full rate but for `best`, whose course is longer."""
    side = 64 if preset == "object" else 128 * octaves
    named = PRESETS[preset]
    assert isinstance(named, NoiseConditionalConfig)
    config = dataclasses.replace(
        named, octaves=octaves, channels=1, mean_color=(0.0,), layers=TEXTURE.layers
    )
    picture = torch.randn(1, side, side, generator=torch.Generator().manual_seed(0))
    _, made = make_trainer(config, [picture], torch.device("cpu"), torch.float32)
    assert isinstance(made, StageTrainer | CascadeTrainer)
    begun = [course.turning_rate / course.refined_rate for _, course in made.side_by_side]
    assert begun == pytest.approx(shares)
