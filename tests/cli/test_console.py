"""Progress in a log, and where runs and samples are found."""

import os
from pathlib import Path

import pytest

from gcn_cli.cli import console, runs
from gcn_cli.cli.console import Progress
from gcn_cli.errors import InputError


def test_a_log_gets_lines_at_intervals_and_the_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("train", 10, done=4) as progress:
        progress.update(5, "loss 1")
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
        progress.update(6, "loss 0.5")
        progress.update(10, "loss 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["train 6/10", "loss 0.5"],
        ["train 10/10", "loss 0.1"],
    ]
    assert all("it/s" in line and "s left" in line for line in lines)


def test_the_newest_run_is_the_default_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no runs"):
        runs.model_path(None)
    for age, name in ((50, "old"), (10, "new"), (30, "middle")):
        path = tmp_path / "runs" / name / runs.MODEL
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert runs.model_path(None) == Path("runs/new") / runs.MODEL
    assert capsys.readouterr().err == "model: runs/new\n"
    assert runs.model_path("runs/old") == Path("runs/old") / runs.MODEL
    assert runs.model_path("other.safetensors") == Path("other.safetensors")
    assert runs.run_for(["-"]) == Path("runs/stdin")
    assert runs.run_for([f"{tmp_path}/brick.wall.png"]) == Path("runs/brick.wall")


def test_sample_numbers_go_on_where_they_stopped(tmp_path: Path) -> None:
    assert runs.next_free(tmp_path, "sample") == 1
    for name in ("sample-0002.png", "sample-0007.png", "sample-mine.png", "other-0009.png"):
        (tmp_path / name).touch()
    assert runs.next_free(tmp_path, "sample") == 8
