"""The state of a training limits what is said of its samples; grades are measured once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.metrics.verdict import ROUGH, WORDS
from gcn_cli.runs import grades
from gcn_cli.runs.grades import grade_run, in_words, training_limits
from tests.small import SMALL_TEXTURE, smooth_image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> gcn.Model:
    run = tmp_path_factory.mktemp("grades") / "run"
    return gcn.train(128 + 30 * smooth_image(96), output=run, iterations=2, **SMALL_TEXTURE)


def reasons(checkpoint: Checkpoint) -> list[str]:
    limits = training_limits(checkpoint)
    assert all(limit.word == ROUGH for limit in limits)
    return [limit.reason for limit in limits]


def history(losses: list[float]) -> list[dict[str, float]]:
    return [{"iteration": 1.0 + k, "loss": v, "likelihood": 0.0} for k, v in enumerate(losses)]


def test_the_state_of_the_training_limits_the_verdict(model: gcn.Model) -> None:
    short = model.checkpoint
    assert reasons(short) == ["a training of 2 iterations is short; 1000 are usual"]
    cut = replace(short, iteration=120, total_iterations=1000)
    assert reasons(cut) == ["the training is at iteration 120 of 1000"]
    whole = replace(short, iteration=1000, total_iterations=1000)
    assert reasons(whole) == []
    losses = [1 - 0.001 * k for k in range(100)]
    assert reasons(replace(whole, history=history(losses))) == []
    spiked = history([*losses, 50.0])
    assert reasons(replace(whole, history=spiked)) == ["the training was unstable"]
    flat = history([0.5] * 100)
    assert reasons(replace(whole, history=flat)) == ["the training was stalled"]


def test_a_run_is_graded_once_and_three_iterations_are_not_praised(
    model: gcn.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.run is not None
    steps: list[tuple[int, int]] = []
    first = grade_run(model.checkpoint, model.run, model.dtype, lambda *at: steps.append(at))
    assert steps[-1] == (25, 25)
    assert WORDS.index(first["verdict"]) <= WORDS.index(ROUGH)
    assert first["untrained"] > 1
    monkeypatch.setattr(grades, "samples", None)  # not sampled again
    assert grade_run(model.checkpoint, model.run, torch.float32) == first


def test_the_words_say_what_limits_and_what_is_not_seen(tmp_path: Path) -> None:
    graded: dict[str, Any] = {
        "quality": 1.08,
        "untrained": 1.13,
        "closeness": 0.37,
        "verdict": "rough",
        "limits": ["variety 0.50: too uniform"],
    }
    lines = in_words(graded, tmp_path).splitlines()
    assert lines == [
        "quality: rough; 1.08 is 37% of the way from an untrained model (1.13) to another crop of "
        "the exemplar (1.00)",
        "limited by: variety 0.50: too uniform",
        f"this is fine texture only: look at {tmp_path / 'previews'} for whole things",
    ]
    (tmp_path / "samples").mkdir()
    assert f"look at {tmp_path / 'samples'} " in in_words(graded, tmp_path)
    good = in_words({**graded, "limits": []})
    assert "limited by" not in good
    assert "could not be measured" in in_words({**graded, "verdict": None})
