"""Trainings planned to fit into a time, against a clock that the test turns."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import gcn_cli as gcn
from gcn_cli.checkpoint import load, save
from gcn_cli.runs import session as training
from tests.clock import Clock
from tests.small import LADDER, picture


def test_a_training_fits_into_its_time_and_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, 0.1, 0.22)
    model = gcn.train(
        picture(), output=tmp_path / "run", max_time=20.0, on_step=clock.note, **LADDER
    )
    assert model.complete
    assert 17.5 < clock.now - 1000 <= 20.0
    refined = sum(row["likelihood"] > 0 for row in model.history)
    assert refined / len(model.history) == pytest.approx(0.2, abs=0.01)
    # What was planned is what the file says, so that the same command finds it complete.
    saved = load(tmp_path / "run" / "model.safetensors")
    assert saved.config.iterations == saved.total_iterations == len(model.history) < 1000
    assert saved.asked is not None
    assert saved.asked.iterations is None
    again = gcn.train(picture(), output=tmp_path / "run", max_time=20.0, **LADDER)
    assert len(again.history) == len(model.history)
    # A file of before says what the default was then.
    older = replace(saved, asked=replace(saved.asked, iterations=1000))
    save(tmp_path / "run" / "model.safetensors", older)
    again = gcn.train(picture(), output=tmp_path / "run", max_time=20.0, **LADDER)
    assert len(again.history) == len(model.history)


def test_a_machine_that_slows_down_gets_a_shorter_course(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.1, 0.22)

    def note(iteration: int, last: int, measures: dict[str, float]) -> None:
        clock.note(iteration, last, measures)
        if iteration == 40:
            clock.costs = (0.15, 0.33)

    model = gcn.train(picture(), max_time=20.0, on_step=note, **LADDER)
    assert model.complete
    assert clock.now - 1000 <= 20.0
    assert len(model.history) < 140


def test_no_more_iterations_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.001, 0.002)
    monkeypatch.setattr(training, "periods_of", lambda _: (None, None))
    config = {**LADDER, "preset": "quick", "max_time": 3600.0, "seed": 1}
    stop = iter(range(30))
    model = gcn.train(picture(), on_step=clock.note, should_stop=lambda: next(stop) == 29, **config)
    assert model.config.iterations == 1000
    assert not model.complete


def test_given_iterations_are_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1.0, 2.0)
    model = gcn.train(picture(), max_time=20.0, iterations=300, on_step=clock.note, **LADDER)
    assert model.config.iterations == 300
    assert 20 <= len(model.history) <= 21


@pytest.mark.parametrize(
    ("preset", "images", "seconds", "said"),
    [("default", 2, 5.0, False), ("default", 12, 5.0, True), ("best", 12, 150.0, False)],
)
def test_where_many_images_leave_time_for_few_iterations_fewer_are_named(
    preset: str,
    images: int,
    seconds: float,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Few beside the default: of the 1400 of `best` some 1100 are a whole training too."""
    clock = Clock(monkeypatch, 0.1, 0.22)
    config = {**LADDER, "preset": preset, "batch_size": images, "max_time": seconds}
    stop = iter(range(30))
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        gcn.train(picture(), on_step=clock.note, should_stop=lambda: next(stop) == 29, **config)
    (words,) = (line for line in caplog.messages if "fit into the time" in line)
    assert ("--batch-size 4, not 12, leaves time for more" in words) == said
