"""Rollback of a training that diverges, and training within a time."""

import json
import logging
from pathlib import Path

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import load
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.layers import parse_layers
from gcn_cli.runs import session as sessions
from gcn_cli.runs.job import Rollback
from gcn_cli.training.trainer import CascadeTrainer
from tests.clock import Clock
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, small_image

pytestmark = pytest.mark.slow


def diverge_at(monkeypatch: pytest.MonkeyPatch, iterations: list[int], interval: int) -> None:
    """Have these iterations return a loss of NaN, each once, one after the other."""
    read, left = CascadeTrainer.metrics, list(iterations)

    def failing(self: CascadeTrainer, iteration: int, figures: list[float]) -> dict[str, float]:
        metrics = read(self, iteration, figures)
        if left and iteration == left[0]:
            left.pop(0)
            return metrics | {"loss": float("nan")}
        return metrics

    monkeypatch.setattr(CascadeTrainer, "metrics", failing)
    monkeypatch.setattr(Rollback, "INTERVAL", interval)


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_continues_from_a_snapshot_with_half_the_rates(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    diverge_at(monkeypatch, [25], interval=10)
    settings = {"output": tmp_path / "run", "iterations": 40, **SMALL_TEXTURE}
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        model = gcn.train(small_image(), **settings)
    assert model.complete
    assert "iteration 25: loss is nan; rolled back to iteration 20 with " in caplog.text
    assert "filter_rate=0.015" in caplog.text
    assert model.config.learning_rate == 3e-3
    assert [row["iteration"] for row in model.history] == list(range(1, 41))
    assert rows_of(tmp_path / "run") == model.history
    # The run keeps the requested config: the same command finds it complete.
    assert gcn.train(small_image(), **settings).complete


def test_every_rollback_goes_to_an_earlier_snapshot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    diverge_at(monkeypatch, [25] * 3, interval=10)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        model = gcn.train(small_image(), iterations=30, **SMALL_TEXTURE)
    assert model.complete
    messages = [message for message in caplog.messages if "rolled back to" in message]
    assert [message.split(" with ")[0].split("; ")[1] for message in messages] == [
        f"rolled back to iteration {n}" for n in (20, 10, 20)
    ]
    assert model.config.learning_rate == 6e-3 / 8


@pytest.mark.parametrize(
    ("iterations", "newest"),
    [([16, 16, 12, 6], 15), ([16, 16, 16, 16], 15), ([12, 12, 7, 7], 10), ([3, 3, 3, 3], 0)],
)
def test_after_the_last_rollback_the_newest_snapshot_is_saved_with_its_rows(
    iterations: list[int], newest: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its rows had been deleted when the training was rolled back further."""
    diverge_at(monkeypatch, iterations, interval=5)
    saved = f"the model of iteration {newest} is saved" if newest else "nothing is saved"
    with pytest.raises(gcn.DivergedError, match=f"after 3 rollbacks; {saved}; lower "):
        gcn.train(small_image(), output=tmp_path / "run", iterations=20, **SMALL_TEXTURE)
    rows = rows_of(tmp_path / "run")
    assert [row["iteration"] for row in rows] == list(range(1, newest + 1))
    if newest:
        checkpoint = load(tmp_path / "run" / "model.safetensors")
        assert checkpoint.iteration == newest
        assert checkpoint.history == rows


def test_the_rows_of_a_snapshot_are_not_those_of_a_later_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Iterations 6 and 7 are trained three times, with lower rates each time."""
    history = gcn.train(small_image(), iterations=20, **SMALL_TEXTURE).history
    diverge_at(monkeypatch, [11, 11, 8, 8], interval=5)
    with pytest.raises(gcn.DivergedError):
        gcn.train(small_image(), output=tmp_path / "run", iterations=20, **SMALL_TEXTURE)
    assert load(tmp_path / "run" / "model.safetensors").history == history[:10]


def test_after_rollbacks_the_history_has_one_row_an_iteration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diverge_at(monkeypatch, [16, 16, 12], interval=5)
    model = gcn.train(small_image(), iterations=20, **SMALL_TEXTURE)
    assert [row["iteration"] for row in model.history] == list(range(1, 21))


def test_the_convergence_check_counts_rows_by_their_iteration() -> None:
    """Rows of the likelihood are the same in a history that lacks its first rows."""
    config = NoiseConditionalConfig(
        layers=parse_layers("4@5,4@3/2"), crop=16, margin=2, iterations=100, batch_size=2
    )
    trainer = make_trainer(config, [torch.randn(3, 32, 32)], torch.device("cpu"), torch.float32)[1]
    (start,) = trainer.likelihood_starts
    history = [
        {"iteration": float(n), "loss": 1 / n, "energy_difference": float(n > start)}
        for n in range(1, 101)
    ]
    sentences = trainer.check_convergence(history)
    assert any(sentence.startswith("unstable") for sentence in sentences)
    assert trainer.check_convergence(history[:start]) == sentences[:1]
    # 50 rows of denoising are enough for a check; with fewer there is none.
    assert len(trainer.check_convergence(history[start - 50 :])) == 2
    assert trainer.check_convergence(history[start - 49 :]) == sentences[1:]


def test_langevin_steps_that_are_too_long_are_halved() -> None:
    model = gcn.train(small_image(), iterations=4, step_size=3.0, **SMALL_PUBLISHED)
    assert model.complete
    assert model.config.step_size == 1.5  # type: ignore[union-attr]
    sample = next(model.samples(steps=5, kind="torch"))  # with the step size of the end of training
    assert bool(torch.isfinite(sample).all())


def test_runaway_pixels_and_losses_are_divergence() -> None:
    with pytest.raises(gcn.DivergedError, match="the chains diverged"):
        gcn.train(small_image(), iterations=4, step_size=50.0, **SMALL_PUBLISHED)
    settings = {"iterations": 60, "learning_rate": 1e4, "filter_rate": 10.0, **SMALL_TEXTURE}
    with pytest.raises(gcn.DivergedError, match="loss"):
        gcn.train(small_image(), **settings)


def test_a_collapsed_chain_is_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcn_cli.training.persistent_chains import PersistentChains

    def collapsed(self: PersistentChains, values: torch.Tensor) -> torch.Tensor:
        return torch.full((4,), 0.001)

    monkeypatch.setattr(PersistentChains, "relative_deviation", collapsed)
    with pytest.raises(gcn.DivergedError, match="a chain collapsed to 0"):
        gcn.train(small_image(), iterations=20, **SMALL_TEXTURE)


def test_a_training_is_complete_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, 0.1, 0.22)
    options = {"output": tmp_path / "run", "max_time": 20.0, **SMALL_TEXTURE}
    model = gcn.train(small_image(), on_step=clock.note, **options)
    assert model.complete
    assert 17.5 < clock.now - 1000 <= 20.0
    likelihood = sum(row["likelihood"] > 0 for row in model.history)
    assert likelihood / len(model.history) == pytest.approx(0.2, abs=0.01)
    # The file has the planned length, so that the same command finds it complete.
    saved = load(tmp_path / "run" / "model.safetensors")
    assert saved.config.iterations == saved.total_iterations == len(model.history) < 1000
    assert saved.requested is not None
    assert saved.requested.iterations is None
    assert len(gcn.train(small_image(), **options).history) == len(model.history)


def test_a_training_on_a_slowing_machine_becomes_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.1, 0.22)

    def note(iteration: int, last: int, metrics: dict[str, float]) -> None:
        clock.note(iteration, last, metrics)
        if iteration == 40:
            clock.costs = (0.15, 0.33)

    model = gcn.train(small_image(), max_time=20.0, on_step=note, **SMALL_TEXTURE)
    assert model.complete
    assert clock.now - 1000 <= 20.0
    assert len(model.history) < 140


def test_a_training_is_never_longer_than_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.001, 0.002)
    monkeypatch.setattr(sessions, "find_pattern", lambda *_: None)
    options = {**SMALL_TEXTURE, "preset": "quick", "max_time": 3600.0, "seed": 1}
    stop = iter(range(30))
    model = gcn.train(
        small_image(), on_step=clock.note, should_stop=lambda: next(stop) == 29, **options
    )
    assert model.config.iterations == 1000
    assert not model.complete


def test_explicit_iterations_are_kept_and_stopped_at_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text("iterations = 300\n")
    for settings in ({"iterations": 300}, {"config": tmp_path / "settings.toml"}):
        clock = Clock(monkeypatch, 1.0, 2.0)
        options = {"max_time": 20.0, **settings, **SMALL_TEXTURE}
        model = gcn.train(small_image(), on_step=clock.note, **options)
        assert model.config.iterations == 300
        assert 20 <= len(model.history) <= 21


@pytest.mark.parametrize(
    ("preset", "batch_size", "seconds", "expected"),
    [("default", 2, 5.0, False), ("default", 12, 5.0, True), ("best", 12, 150.0, False)],
)
def test_a_smaller_batch_is_advised_if_few_iterations_fit(
    preset: str,
    batch_size: int,
    seconds: float,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Few means fewer than the default: about 1100 of the 1400 of `best` are enough."""
    clock = Clock(monkeypatch, 0.1, 0.22)
    options = {**SMALL_TEXTURE, "preset": preset, "batch_size": batch_size, "max_time": seconds}
    stop = iter(range(30))
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        gcn.train(
            small_image(), on_step=clock.note, should_stop=lambda: next(stop) == 29, **options
        )
    (message,) = (line for line in caplog.messages if line.startswith("--max-time: about"))
    assert ("; --batch-size 4 leaves time for more" in message) == expected
