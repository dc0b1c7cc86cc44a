"""Signals that ask a command to end: noted in a training, else the command exits with code 75.

No torch is needed: the first handlers are set before it is loaded.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from gcn_cli.errors import InterruptedRunError, SignalExit

Handler = Callable[[int, object], None]

STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)  # Windows has two of them
]
EXIT_SIGNALS = [number for number in STOP_SIGNALS if number != signal.SIGINT]
"""Those that end a command with exit code 75; Ctrl-C has a code of its own."""

SAME_REQUEST_SECONDS = 1.0
"""Signals that follow the first one within this time repeat it: `timeout`, shells and torchrun
send a signal to a process and to its group."""


@contextmanager
def handle_signals(
    handler: Handler, signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> Iterator[None]:
    """Handle signals by `handler`, then restore the handlers of before.

    SIGHUP stays ignored if it is, as under nohup.
    """
    before = {number: signal.signal(number, handler) for number in _heeded(signals)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def exit_on_signals(state: str) -> AbstractContextManager[None]:
    """Raise SignalExit on all stop signals but SIGINT; `state` says what is on disk then."""

    def leave(number: int, _frame: object) -> None:
        raise SignalExit(f"{signal.Signals(number).name}: {state}")

    return handle_signals(leave, EXIT_SIGNALS)


def exit_while_loading() -> None:
    """End the process with exit code 75 on a stop signal, until other handlers are set.

    Nothing is on disk yet. No exception is raised, since modules that are being loaded may catch it
    or print it.
    """
    for number in _heeded(EXIT_SIGNALS):
        signal.signal(number, _leave_at_once)


def ignore_signals() -> None:
    """Ignore stop signals from now on: the work is done, its exit code is known."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave_at_once(number: int, _frame: object) -> None:
    message = f"gcn: error: {signal.Signals(number).name}: stopped; run the same command again\n"
    try:
        os.write(2, message.encode())
    finally:
        os._exit(InterruptedRunError.exit_code)


def _heeded(signals: Sequence[signal.Signals]) -> list[signal.Signals]:
    """These signals, without SIGHUP where it is ignored, as under nohup."""
    return [
        number
        for number in signals
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    ]


@contextmanager
def interruptible() -> Iterator["StopRequest"]:
    """A stop request that SIGINT (Ctrl-C, the stop button of a notebook) makes.

    A second SIGINT raises KeyboardInterrupt, as the first one does outside the main thread, and
    where the program has a handler of its own.
    """
    stop = StopRequest()
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with stop.listening([signal.SIGINT]):
            yield stop
    else:
        yield stop


class StopRequest:
    """Tells a training to stop after the current iteration: at a time limit or on a signal."""

    def __init__(self, seconds: float | None = None) -> None:
        self.started = time.monotonic()
        self.seconds = seconds
        self.signal: signal.Signals | None = None
        self._received = 0.0

    @property
    def timed_out(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.started >= self.seconds

    def __call__(self) -> bool:
        return self.signal is not None or self.timed_out

    def listening(
        self, signals: Sequence[signal.Signals] = STOP_SIGNALS
    ) -> AbstractContextManager[None]:
        """Catch stop signals, also ignored ones (as in a shell's background) other than SIGHUP.

        A later signal ends the process at once, unless it comes within a second of the first.
        """
        return handle_signals(self._note, signals)

    def interrupt(self) -> None:
        """Request the stop as SIGINT does."""
        self._note(signal.SIGINT, None)

    def _note(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._received = signal.Signals(number), now
            return
        # Over its limit of processor time, a process gets SIGXCPU every second.
        if now - self._received < SAME_REQUEST_SECONDS or number == getattr(signal, "SIGXCPU", 0):
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # As if it were not caught: the last checkpoint is whole.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
