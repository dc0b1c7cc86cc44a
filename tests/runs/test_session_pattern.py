"""A session finds the pattern of its images once; chains and samples follow the same."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.images import TextureMap
from gcn_cli.inputs import TrainingImages
from gcn_cli.models.layers import parse_layers
from gcn_cli.pattern import Pattern, find_pattern
from gcn_cli.runs import session as session_module
from gcn_cli.runs.session import Session
from gcn_cli.training.trainer import CascadeTrainer

CONFIG = NoiseConditionalConfig(
    layers=parse_layers("4@5,4@3/2"), crop=16, margin=2, iterations=20, batch_size=2
)


def make_session(*, scratched: bool) -> Session:
    """Of dark joints every 16 pixels, with noise; scratched: with unknown pixels all over."""
    dark = torch.arange(96) % 16 < 3
    lines = torch.where(dark[:, None] | dark, 60.0, 160.0)
    generator = torch.Generator().manual_seed(0)
    image = (lines + 15 * torch.randn(3, 96, 96, generator=generator)).clamp(0, 255)
    known = torch.rand(96, 96, generator=generator) >= (0.05 if scratched else 0.0)
    images = TrainingImages([image.masked_fill(~known, torch.nan)], [known], (TextureMap(),))
    return Session(images, CONFIG, CONFIG, torch.device("cpu"), torch.float32)


def chain_pattern(session: Session) -> Pattern | None:
    assert isinstance(session.trainer, CascadeTrainer)
    likelihood = session.trainer.stages[0].likelihood
    assert likelihood is not None
    return likelihood.chains.pattern


def test_the_pattern_is_that_of_the_images_and_not_of_filled_holes() -> None:
    session = make_session(scratched=True)
    assert session.trainer.data.holes
    assert session.pattern is not None
    assert chain_pattern(session) is session.pattern
    assert session.checkpoint().pattern is session.pattern
    of_filled = find_pattern(session.trainer.data.images)
    assert of_filled is None or not torch.equal(of_filled.cell, session.pattern.cell)


def test_the_pattern_is_found_once_and_not_again_after_a_rollback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(images: Sequence[Tensor], known: Sequence[Tensor]) -> Pattern | None:
        calls.append(1)
        return find_pattern(images, known)

    monkeypatch.setattr(session_module, "find_pattern", counted)
    session = make_session(scratched=False)
    snapshot = session.snapshot()
    assert snapshot is not None
    session.restore(snapshot, session.kind.config)
    assert len(calls) == 1
    assert chain_pattern(session) is session.pattern is not None


def test_without_holes_the_pattern_is_that_of_the_training_data_to_the_bit() -> None:
    session = make_session(scratched=False)
    expected, found = find_pattern(session.trainer.data.images), chain_pattern(session)
    assert expected is not None
    assert found is not None
    assert found.periods == expected.periods
    assert torch.equal(found.cell, expected.cell)
    assert torch.equal(found.variance, expected.variance)
