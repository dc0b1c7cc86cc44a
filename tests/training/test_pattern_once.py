"""The pattern of a training is found once: chains and samples follow the same."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gcn_cli import pattern as patterns
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.images import TextureMap
from gcn_cli.inputs import TrainingImages
from gcn_cli.kinds import make_trainer
from gcn_cli.models.layers import parse_layers
from gcn_cli.pattern import Pattern, find_pattern
from gcn_cli.runs import session as training
from gcn_cli.runs.session import Session

CPU = torch.device("cpu")


def config(octaves: int = 1) -> NoiseConditionalConfig:
    layers = "4@5,4@3/2" if octaves == 1 else "4@3"
    return NoiseConditionalConfig(
        layers=parse_layers(layers), crop=16, margin=2, iterations=20, batch_size=2, octaves=octaves
    )


def grid(*, scattered: bool) -> Tensor:
    """Joints every 16 pixels over grain, (3, 96, 96); scattered: holes all over it."""
    dark = torch.arange(96) % 16 < 3
    lines = torch.where(dark[:, None] | dark, 60.0, 160.0)
    generator = torch.Generator().manual_seed(0)
    picture = (lines + 15 * torch.randn(3, 96, 96, generator=generator)).clamp(0, 255)
    if scattered:
        hidden = torch.rand(96, 96, generator=generator) < 0.05
        picture = picture.masked_fill(hidden, torch.nan)
    return picture


def trained(*, scattered: bool, octaves: int = 1) -> Any:
    observed = TrainingImages([grid(scattered=scattered)], (TextureMap(),))
    return Session(config(octaves), config(octaves), observed, "x", CPU, torch.float32)


def test_of_filled_holes_chains_follow_what_samples_follow() -> None:
    """It differed: chains had that of the filled picture."""
    session = trained(scattered=True)
    assert session.learner.observed.holes
    assert session.pattern is not None
    assert session.learner.refinement.chains.pattern is session.pattern
    assert session.checkpoint().pattern is session.pattern
    filling = find_pattern(session.learner.observed.pictures)
    assert filling is None or not torch.equal(filling.cell, session.pattern.cell)


def test_it_is_looked_for_once_and_not_again_after_going_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    original = patterns._pattern

    def counted(picture: Tensor) -> Pattern | None:
        looked.append(1)
        return original(picture)

    monkeypatch.setattr(patterns, "_pattern", counted)
    session = trained(scattered=False)
    assert len(looked) == 1
    state = {name: tensor.clone() for name, tensor in session.learner.state().items()}
    session.go_back(0, state, (), session.family.config)
    assert len(looked) == 1
    assert session.learner.refinement.chains.pattern is session.pattern is not None


def test_without_holes_it_is_that_of_the_pictures_to_the_bit() -> None:
    session = trained(scattered=False)
    pattern = find_pattern(session.learner.observed.pictures)
    assert pattern is not None
    ours = session.learner.refinement.chains.pattern
    assert ours.periods == pattern.periods
    assert torch.equal(ours.cell, pattern.cell)
    assert torch.equal(ours.spread, pattern.spread)


@pytest.mark.parametrize("patterned", [False, True])
def test_several_ladders_are_told_of_it(patterned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is one that looking at the pictures would not find, or would."""

    def choice(pictures: Sequence[Tensor]) -> Pattern | None:
        return find_pattern(pictures) if patterned else None

    monkeypatch.setattr(training, "find_pattern", choice)
    assert trained(scattered=False, octaves=2).learner.patterned == patterned


def test_a_learner_of_its_own_has_the_pattern_it_is_given() -> None:
    picture = grid(scattered=False) / 64
    grid_pattern = find_pattern([picture])
    assert grid_pattern is not None
    for given in (grid_pattern, None):
        learner: Any = make_trainer(config(), [picture], CPU, torch.float32, pattern=given)[1]
        assert learner.refinement.chains.pattern is given
