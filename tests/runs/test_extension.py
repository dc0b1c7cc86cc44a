"""Finished runs that learn more: --extend, as from Python."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import load
from tests.clock import Clock
from tests.small import LADDER, PAPER, picture


def trained(run: Path, settings: dict[str, Any], **more: Any) -> gcn.Model:
    return gcn.train(picture(), output=run, **settings, **more)


def test_a_ladder_gets_another_course_with_its_likelihood(tmp_path: Path) -> None:
    asked = {"iterations": 20, **LADDER}
    trained(tmp_path / "run", asked)
    model = trained(tmp_path / "run", asked, extend=10)
    assert model.complete
    assert [row["likelihood"] > 0 for row in model.history] == [
        *[False] * 16, *[True] * 4, *[False] * 8, *[True] * 2,
    ]  # fmt: skip
    # Without --extend the same command finds it complete, of another length than asked.
    assert len(trained(tmp_path / "run", asked).history) == 30
    assert len(trained(tmp_path / "run", asked, extend=5).history) == 35


@pytest.mark.parametrize("settings", [LADDER, PAPER])
def test_an_interrupted_extension_ends_as_the_whole_one(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    asked = {"iterations": 6, **settings}
    for name in ("whole", "cut"):
        trained(tmp_path / name, asked)
    trained(tmp_path / "whole", asked, extend=8)
    cut = trained(tmp_path / "cut", asked, extend=8, should_stop=lambda: True)
    assert len(cut.history) == 7
    assert not cut.complete
    trained(tmp_path / "cut", asked, extend=8)  # goes on, and adds nothing
    one, other = (load(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.iteration == other.iteration == 14
    for name, tensor in one.learner_state.items():
        assert torch.equal(tensor, other.learner_state[name]), name


def test_what_is_not_finished_is_not_extended(tmp_path: Path) -> None:
    asked = {"iterations": 6, **LADDER}
    with pytest.raises(gcn.InputError, match="holds no model to go on with"):
        trained(tmp_path / "run", asked, extend=3)
    trained(tmp_path / "run", asked, should_stop=lambda: True)
    with pytest.raises(gcn.InputError, match="is not finished, iteration 1 of 6"):
        trained(tmp_path / "run", asked, extend=3)


def test_a_time_becomes_iterations_by_the_speed_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = Clock(monkeypatch, 0.1, 0.22), {"iterations": 20, **LADDER}
    trained(tmp_path / "run", asked, on_step=clock.note)
    before = clock.now
    model = trained(tmp_path / "run", asked, on_step=clock.note, extend_time=10.0)
    assert model.complete
    assert 8.5 < clock.now - before <= 10.0
    refined = sum(row["likelihood"] > 0 for row in model.history[20:])
    assert refined / (len(model.history) - 20) == pytest.approx(0.2, abs=0.02)
