"""A session finds the pattern of its images once; chains and samples follow the same."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.detection import find_pattern
from gcn_cli.images import TextureMap
from gcn_cli.models.layers import parse_layers
from gcn_cli.pattern import Pattern
from gcn_cli.runs import session as session_module
from gcn_cli.runs.session import Session
from gcn_cli.training.trainer import CascadeTrainer
from gcn_cli.training_images import TrainingImages

CONFIG = NoiseConditionalConfig(
    layers=parse_layers("4@5,4@3/2"), crop=16, margin=2, iterations=20, batch_size=2
)


def make_session(*, scratched: bool = False, regular: bool = True, **settings: Any) -> Session:
    """Of dark joints every 16 pixels, with noise; scratched: with unknown pixels all over."""
    config = replace(CONFIG, **settings)
    dark = torch.arange(64) % 16 < 3
    lines = torch.where((dark[:, None] | dark) & regular, 60.0, 160.0)
    generator = torch.Generator().manual_seed(0)
    image = (lines + 15 * torch.randn(3, 64, 64, generator=generator)).clamp(0, 255)
    known = torch.rand(64, 64, generator=generator) >= (0.05 if scratched else 0.0)
    images = TrainingImages([image.masked_fill(~known, torch.nan)], [known], (TextureMap(),))
    return Session(images, config, config, torch.device("cpu"), torch.float32)


def chain_pattern(session: Session) -> Pattern | None:
    assert isinstance(session.trainer, CascadeTrainer)
    likelihood = session.trainer.stages[0].likelihood
    assert likelihood is not None
    return likelihood.chains.pattern


def same(first: Pattern | None, second: Pattern | None) -> bool:
    assert first is not None
    assert second is not None
    return all(map(torch.equal, vars(first).values(), vars(second).values()))


def test_the_pattern_is_that_of_the_images_and_not_of_filled_holes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        session = make_session(scratched=True)
    data = session.trainer.data
    assert data.holes
    assert session.pattern is not None
    assert same(chain_pattern(session), session.pattern)
    assert session.checkpoint().pattern is session.pattern
    assert data.phases is not None
    phases = data.draw().phases
    assert phases is not None
    assert phases.shape == (2, 2, 8, 8)
    (said,) = (line for line in caplog.messages if line.startswith("regular pattern:"))
    assert "repeats every (16.0, 0.0) and (0.0, 16.0) pixels" in said
    assert "--pattern off" in said


def test_the_pattern_is_found_once_and_not_again_after_a_rollback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return find_pattern(*arguments)

    monkeypatch.setattr(session_module, "find_pattern", counted)
    session = make_session()
    snapshot, phases = session.snapshot(), session.trainer.data.phases
    assert snapshot is not None
    session.restore(snapshot, session.kind.config)
    assert len(calls) == 1
    assert same(chain_pattern(session), session.pattern)
    again = session.trainer.data.phases
    assert phases is not None
    assert again is not None
    rows = torch.arange(8)
    assert torch.equal(again[0](rows, rows), phases[0](rows, rows))


def test_a_pattern_that_is_off_or_given() -> None:
    off = make_session(pattern="off")
    assert off.pattern is None
    assert off.trainer.data.phases is None
    assert chain_pattern(off) is None
    given = make_session(pattern="0,16")
    assert given.pattern is not None
    assert given.pattern.vectors() == [pytest.approx((16, 0), abs=0.3)]
    assert make_session(regular=False).pattern is None
