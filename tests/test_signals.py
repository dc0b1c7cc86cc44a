"""Signals, and the standard streams, in the life of a command."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from gcn_cli.errors import SignalExit
from gcn_cli.signals import EXIT_SIGNALS, STOP_SIGNALS, StopRequest, exit_on_signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def python(script: str, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run a script that needs no torch."""
    return subprocess.run([sys.executable, "-c", script], check=False, timeout=60, **streams)


def test_a_time_limit_and_every_stop_signal_ask_to_stop() -> None:
    assert not StopRequest(None)()
    assert not StopRequest(1000)()
    assert StopRequest(1e-9)()
    names = {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"}
    assert {number.name for number in STOP_SIGNALS} == names
    for number in STOP_SIGNALS:
        before, stop = signal.getsignal(number), StopRequest()
        with stop.listening():
            send(number)
            assert stop()
            assert [stop.signal] == [number]
        assert signal.getsignal(number) is before


def test_a_hangup_stays_ignored_under_nohup() -> None:
    before, stop = signal.signal(signal.SIGHUP, signal.SIG_IGN), StopRequest()
    try:
        with stop.listening(), exit_on_signals("nothing"):
            send(signal.SIGHUP)
        assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_a_process_and_its_group_is_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, stop = time.monotonic(), StopRequest()
    with stop.listening():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            send(number)
        monkeypatch.setattr(time, "monotonic", lambda: now + 60)
        send(signal.SIGXCPU)  # repeated every second by the system
        assert stop.signal is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_later_signal_ends_the_process_at_once() -> None:
    script = (
        "import os, signal; from gcn_cli import signals; signals.SAME_REQUEST_SECONDS = 0\n"
        "with signals.StopRequest().listening():\n"
        "    for n in (signal.SIGTERM, signal.SIGUSR2): os.kill(os.getpid(), n)"
    )
    assert python(script).returncode == -signal.SIGUSR2


def test_no_handler_of_exceptions_hides_a_signal() -> None:
    def work(number: signal.Signals) -> None:
        try:
            send(number)
        except Exception:
            pytest.fail("caught")

    for number in EXIT_SIGNALS:
        with pytest.raises(SignalExit) as caught, exit_on_signals("all is saved"):
            work(number)
        assert caught.value.code == 75
        assert caught.value.message == f"{number.name}: all is saved"


def test_a_signal_ends_a_command_that_still_loads() -> None:
    script = (
        "import os, signal; from gcn_cli.signals import exit_while_loading; exit_while_loading()\n"
        "try: os.kill(os.getpid(), signal.SIGUSR2)\n"
        "except BaseException: pass\n"
        "os._exit(1)"
    )
    done = python(script, stderr=subprocess.PIPE)
    assert done.returncode == 75
    assert done.stderr == b"gcn: error: SIGUSR2: stopped; run the same command again\n"


def test_a_process_is_set_up_and_a_signal_after_its_work_changes_nothing() -> None:
    script = (
        "import os, signal, gcn_cli.__main__ as process, gcn_cli.cli.app as app\n"
        "app.main = lambda: print(os.environ['GOMP_SPINCOUNT'], os.environ.get('KMP_BLOCKTIME'))\n"
        "process.main(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    chosen = {**os.environ, "GOMP_SPINCOUNT": "7"}  # the user's own stays
    chosen.pop("OMP_WAIT_POLICY", None)
    for policy, waiting in (({}, b"7 1\n"), ({"OMP_WAIT_POLICY": "active"}, b"7 None\n")):
        done = python(script, stdout=subprocess.PIPE, env=chosen | policy)
        assert (done.returncode, done.stdout) == (0, waiting)


STREAMS = """
import os, sys
from gcn_cli.__main__ import prepare_streams
prepare_streams()
assert os.open(os.devnull, os.O_RDONLY) > 2, "a file gets the number of a stream"
print("x" * 9999, file=sys.stderr)
print(sys.stderr.isatty(), sys.stdin.read(), file=sys.stderr, flush=True)
print("done")
"""


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- >&- <&-", "2> >(true)"])
def test_work_goes_on_without_a_log(redirection: str) -> None:
    command = ["bash", "-c", f'"$0" -c "$1" </dev/null {redirection}', sys.executable, STREAMS]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"" if ">&- <" in redirection else b"done\n")


def test_a_reader_of_the_results_may_leave() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gcn_cli", "inspect", "--preset", "quick"]
    done = subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=60)
    os.close(writer)
    assert done.returncode == 0
