"""Progress in a log, and what the library says."""

import importlib
import io
import os
import re
import signal
import sys
import time
from pathlib import Path

import click
import pytest

from gcn_cli.cli import app, console
from gcn_cli.cli.console import Progress, is_loading, notice
from gcn_cli.cli.each import Outcome


def test_a_log_gets_lines_at_intervals_and_the_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("train", unit="iteration") as progress:
        progress.update(5, 10, {"loss": 1.0})
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
        progress.update(6, 10, {"loss": 0.5})
        progress.update(10, 10, {"loss": 0.1})
    assert progress.done == 10
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+ iterations.*", "", line) for line in lines] == [
        "train 6/10, loss 0.5, ",
        "train 10/10, loss 0.1, ",
    ]
    assert re.fullmatch(r".* \d+ iterations a second, 0 s left", lines[0])
    assert re.fullmatch(r".* \d+ iterations a second, 0 s", lines[1])


def test_speed_and_time_left_are_those_of_the_last_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Progress("training", unit="iteration") as progress:
        for done, seconds in ((1, 0.0), (101, 10.0), (111, 40.0), (112, 43.0), (212, 300.0)):
            now = 1000 + seconds
            progress.update(done, 212, {"reconstruction_error": 0.25, "stage": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "training 111/212, reconstruction error 0.25, 3 s for each iteration, 5 min left",
        "training 212/212, reconstruction error 0.25, 2.6 s for each iteration, 5 min",
    ]
    assert [console.in_time(s) for s in (7.4, 99, 200, 7500)] == [
        "7 s",
        "99 s",
        "3 min",
        "2 h 5 min",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_take_no_bar_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed while there is a bar stands alone; the bar is left once, with its text."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with Progress("sampling") as progress:
        progress.update(1, 4)
        console.print_result("a.png")
        console.say("seed 3")
        progress.update(4, 4)
    with Progress("measuring quality", stays=False) as progress:
        progress.update(1, 2)
    screen = [line.rpartition("\r")[2].rstrip() for line in terminal.getvalue().split("\n")]
    assert screen[:2] == ["a.png", "seed 3"]
    assert re.fullmatch(r"sampling 100%\|[█#]+\| 4/4, 0 s", screen[2])
    assert screen[3:] == [""]


@pytest.mark.parametrize("message", ["", "stopped after iteration 3; saved"])
def test_ctrl_c_says_what_is_saved(message: str) -> None:
    abort = click.Abort()
    abort.__cause__ = KeyboardInterrupt(message) if message else KeyboardInterrupt()
    for error in (abort, abort.__cause__):
        assert app.describe(error) == (message or "interrupted", 130)
    with (
        pytest.raises(KeyboardInterrupt, match="stopped; finished"),
        console.interrupted_as("finished"),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left"), "standard output or a temporary file: No space left; "),
        (OSError(28, "No space left", "a.png"), "a.png: No space left; "),
        (ConnectionError(111, "Connection refused"), "Connection refused; "),
    ],
)
def test_an_error_of_the_system_says_where(error: OSError, message: str) -> None:
    assert app.describe(error) == (message + "files saved before are complete", 1)


def test_work_of_more_than_three_seconds_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.LOGGER, "propagate", True)
    with caplog.at_level("INFO", logger="gcn_cli"):
        with notice("quick ..."):
            pass
        monkeypatch.setattr(console, "NOTICE_SECONDS", 0.01)
        with notice("not wanted ...", lambda: False), notice("slow ..."):
            time.sleep(0.2)
    assert caplog.messages == ["slow ..."]


def test_a_module_in_the_middle_of_its_import_is_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from gcn_cli.cli.console import is_loading\nseen = is_loading(__name__)\n"
    (tmp_path / "half_loaded.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("half_loaded")
    assert module.seen
    assert not is_loading("half_loaded")
    assert not is_loading("no_such_module")


def test_an_error_is_one_line_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    app._print_error("a\nb\x1b[31m.png: no such file")
    assert capsys.readouterr().err == "gcn: error: a\\nb\\x1b[31m.png: no such file\n"


@pytest.mark.parametrize(
    ("encoding", "printed"), [("utf-8", b"caf\xe9-\xc3\xa9\n"), ("latin-1", b"caf\\udce9-\xe9\n")]
)
def test_stdout_takes_every_path(
    encoding: str, printed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding, "strict"))
    app.print_any_path()
    click.echo(os.fsdecode(b"caf\xe9-\xc3\xa9"))
    assert data.getvalue() == printed


def test_the_same_command_resumes_what_a_signal_ended() -> None:
    codes = {None: True, 75: True, 0: False, 1: False, -signal.SIGKILL: False}
    codes |= {-signal.SIGHUP: True, -signal.SIGQUIT: True, -signal.SIGXCPU: True}
    assert {code: Outcome("a.png", "runs/a", code).unfinished for code in codes} == codes
