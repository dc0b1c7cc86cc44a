"""Learning that diverges goes back, slows down, says so; in the end it gives up in good order."""

import json
import logging
from pathlib import Path

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import load
from gcn_cli.runs import job as retreat
from gcn_cli.training.trainer import StageTrainer
from tests.small import LADDER, PAPER, picture


def diverging_at(monkeypatch: pytest.MonkeyPatch, iteration: int, times: int) -> None:
    """Have the ladder's step see a loss that is no number, the first `times` times."""
    step, left = StageTrainer.step, [times]

    def broken(self: StageTrainer, number: int) -> dict[str, float]:
        measured = step(self, number)
        if number == iteration and left[0]:
            left[0] -= 1
            return measured | {"loss": float("nan")}
        return measured

    monkeypatch.setattr(StageTrainer, "step", broken)


def test_it_goes_back_with_half_the_steps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    diverging_at(monkeypatch, 25, times=1)
    monkeypatch.setattr(retreat, "EVERY", 10)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        model = gcn.train(picture(), output=tmp_path / "run", iterations=40, **LADDER)
    assert model.complete
    assert "iteration 25: loss is nan; back to iteration 20 with --filter-rate 0.015" in caplog.text
    assert model.config.learning_rate == 3e-3
    rows = [
        json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [row["iteration"] for row in rows] == list(range(1, 41))
    assert rows == model.history
    # What was asked for still names the run: the same command finds it complete.
    assert gcn.train(picture(), output=tmp_path / "run", iterations=40, **LADDER).complete


def test_a_state_that_led_astray_is_given_up_for_one_before_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    diverging_at(monkeypatch, 25, times=3)
    monkeypatch.setattr(retreat, "EVERY", 10)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        model = gcn.train(picture(), iterations=30, **LADDER)
    assert model.complete
    went = [message.split("; ")[1] for message in caplog.messages if "back to" in message]
    assert [words.split(" with ")[0] for words in went] == [
        "back to iteration 20", "back to iteration 10", "back to iteration 20",
    ]  # fmt: skip
    assert model.config.learning_rate == 6e-3 / 8


def test_after_three_times_the_last_good_model_is_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diverging_at(monkeypatch, 25, times=99)
    monkeypatch.setattr(retreat, "EVERY", 10)
    with pytest.raises(gcn.DivergedError, match="after going back 3 times; the model of iteration"):
        gcn.train(picture(), output=tmp_path / "run", iterations=40, **LADDER)
    saved = load(tmp_path / "run" / "model.safetensors")
    assert saved.iteration in (10, 20)
    assert len(saved.history) == saved.iteration
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == saved.iteration


def test_langevin_steps_that_are_too_long_are_halved() -> None:
    model = gcn.train(picture(), iterations=4, step_size=3.0, **PAPER)
    assert model.complete
    assert model.config.step_size == 1.5  # type: ignore[union-attr]
    made = next(model.samples(steps=5))  # with the step that the training found
    assert bool(torch.isfinite(made).all())


def test_runaway_pixels_and_losses_are_divergence() -> None:
    with pytest.raises(gcn.DivergedError, match="pixels of a chain ran away"):
        gcn.train(picture(), iterations=4, step_size=50.0, **PAPER)
    with pytest.raises(gcn.DivergedError, match="the loss ran away"):
        gcn.train(picture(), iterations=60, learning_rate=1e4, filter_rate=10.0, **LADDER)


def test_a_collapsed_chain_is_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcn_cli.training.persistent_chains import PersistentChains

    def flat(self: PersistentChains) -> torch.Tensor:
        return torch.full((4,), 0.001)

    monkeypatch.setattr(PersistentChains, "spread", flat)
    with pytest.raises(gcn.DivergedError, match="a chain collapsed to 0"):
        gcn.train(picture(), iterations=20, **LADDER)
