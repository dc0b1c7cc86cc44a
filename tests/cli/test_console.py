"""Progress in a log, and what the library says."""

import pytest

from gcn_cli.cli import app, console
from gcn_cli.cli.console import Progress


def test_a_log_gets_lines_at_intervals_and_the_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("train") as progress:
        progress.update(5, 10, {"loss": 1.0})
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
        progress.update(6, 10, {"loss": 0.5})
        progress.update(10, 10, {"loss": 0.1})
    assert progress.done == 10
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["train 6/10", "loss 0.5"],
        ["train 10/10", "loss 0.1"],
    ]
    assert all("it/s" in line and "s left" in line for line in lines)


def test_an_error_is_one_line_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    app._print_error("a\nb\x1b[31m.png: no such file")
    assert capsys.readouterr().err == "gcn: error: a\\nb\\x1b[31m.png: no such file\n"
