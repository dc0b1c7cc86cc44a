"""Where runs and samples are found."""

import logging
import os
from pathlib import Path

import pytest

from gcn_cli.errors import InputError
from gcn_cli.runs import folder


def test_the_newest_run_is_the_default_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="gcn_cli")
    with pytest.raises(InputError, match="no runs"):
        folder.model_path(None)
    for age, name in ((50, "old"), (10, "new"), (30, "middle")):
        path = tmp_path / "runs" / name / folder.MODEL
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert folder.model_path(None) == Path("runs/new") / folder.MODEL
    assert "model: runs/new" in caplog.text
    assert folder.model_path("runs/old") == Path("runs/old") / folder.MODEL
    assert folder.model_path("other.safetensors") == Path("other.safetensors")
    assert folder.run_for(["-"]) == Path("runs/stdin")
    assert folder.run_for([f"{tmp_path}/brick.wall.png"]) == Path("runs/brick.wall")


def test_sample_numbers_go_on_where_they_stopped(tmp_path: Path) -> None:
    assert folder.next_free(tmp_path, "sample") == 1
    for name in ("sample-0002.png", "sample-0007.png", "sample-mine.png", "other-0009.png"):
        (tmp_path / name).touch()
    assert folder.next_free(tmp_path, "sample") == 8
