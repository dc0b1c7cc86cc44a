"""After any number of rollbacks the history has one row for every iteration, in order."""

import json
from pathlib import Path

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import load
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.layers import parse_layers
from gcn_cli.runs import job as retreat
from gcn_cli.training.trainer import StageTrainer
from tests.small import LADDER, picture


def diverging_at(monkeypatch: pytest.MonkeyPatch, iterations: list[int]) -> None:
    """Have the ladder's step see no number at these iterations, each once, one after the other."""
    step, left = StageTrainer.step, list(iterations)

    def failing(self: StageTrainer, number: int) -> dict[str, float]:
        measures = step(self, number)
        if left and number == left[0]:
            left.pop(0)
            return measures | {"loss": float("nan")}
        return measures

    monkeypatch.setattr(StageTrainer, "step", failing)
    monkeypatch.setattr(retreat, "EVERY", 5)


@pytest.mark.parametrize(
    ("iterations", "newest"),
    [([16, 16, 12, 6], 15), ([16, 16, 16, 16], 15), ([12, 12, 7, 7], 10), ([3, 3, 3, 3], 0)],
)
def test_the_newest_good_state_has_the_rows_of_its_own_way(
    iterations: list[int], newest: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rows were deleted when the training went back to a state before it."""
    diverging_at(monkeypatch, iterations)
    with pytest.raises(gcn.DivergedError, match="after going back 3 times"):
        gcn.train(picture(), output=tmp_path / "run", iterations=20, **LADDER)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["iteration"] for row in rows] == list(range(1, newest + 1))
    if newest:
        saved = load(tmp_path / "run" / "model.safetensors")
        assert saved.iteration == newest
        assert saved.history == rows


def test_rows_are_those_of_the_state_and_not_of_a_later_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Iterations 6 and 7 were learned three times, with ever shorter steps."""
    first_rows = gcn.train(picture(), iterations=20, should_stop=lambda: False, **LADDER).history
    diverging_at(monkeypatch, [11, 11, 8, 8])
    with pytest.raises(gcn.DivergedError):
        gcn.train(picture(), output=tmp_path / "run", iterations=20, **LADDER)
    assert load(tmp_path / "run" / "model.safetensors").history == first_rows[:10]


def test_what_is_learned_after_going_back_has_one_row_an_iteration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diverging_at(monkeypatch, [16, 16, 12])
    model = gcn.train(picture(), iterations=20, **LADDER)
    assert [row["iteration"] for row in model.history] == list(range(1, 21))


def test_verdicts_count_rows_by_their_iteration() -> None:
    """Of a history that lacks its first rows the same rows are the likelihood's."""
    config = NoiseConditionalConfig(
        layers=parse_layers("4@5,4@3/2"), crop=16, margin=2, iterations=100, batch_size=2
    )
    learner = make_trainer(config, [torch.randn(3, 32, 32)], torch.device("cpu"), torch.float32)[1]
    (turn,) = learner.turns
    history = [
        {"iteration": float(n), "loss": 1 / n, "gap": 1.0 if n > turn else 0.0}
        for n in range(1, 101)
    ]
    sentences = learner.verdicts(history)
    assert any("samples stay apart" in sentence for sentence in sentences)
    assert learner.verdicts(history[:turn]) == sentences[:1]
    # 50 of the denoising's rows are enough for a verdict; with one less there is none.
    assert len(learner.verdicts(history[turn - 50 :])) == 2
    assert learner.verdicts(history[turn - 49 :]) == sentences[1:]
