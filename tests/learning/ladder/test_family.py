"""A ladder among the families: how many evaluations a sample takes, counted."""

import dataclasses

import pytest
import torch

from gcn_cli.config import LadderConfig
from gcn_cli.learning.ladder.family import OBJECT_STEPS, STEPS, LadderFamily
from gcn_cli.model.spec import Lattice, parse_layers
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.request import Request

TEXTURE = LadderConfig(layers=parse_layers("4@3"), crop=16, margin=2)
OBJECTS = dataclasses.replace(TEXTURE, head=True, crop=None, margin=0, lattice=Lattice.ZERO)


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [(TEXTURE, None, STEPS), (OBJECTS, None, OBJECT_STEPS), (TEXTURE, 3, 3), (OBJECTS, 3, 3)],
)
def test_evaluations_are_as_many_as_said(
    config: LadderConfig, asked: int | None, expected: int
) -> None:
    family = LadderFamily.build(config, (16, 16), config.layers)
    request, counted = Request(steps=asked), []
    family.sample(
        request,
        [0],
        None,
        Canvas((16, 16)),
        torch.float32,
        lambda *step: counted.append(step),
    )
    assert len(counted) == expected == family.steps(request)


def test_objects_take_more_than_textures() -> None:
    assert OBJECT_STEPS > STEPS
