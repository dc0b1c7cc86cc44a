"""What a person or a log sees: lines on stderr, a bar on a terminal, plain lines in a log."""

import logging
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn, Self

import click
from tqdm import tqdm

from gcn_cli.launcher import speaks

LOGGER = logging.getLogger("gcn_cli")
LOG_SECONDS = 15.0  # between two lines where stderr is no terminal


class _ToStderr(logging.Handler):
    """Messages of the library, as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        if speaks():
            say(record.getMessage())


def show_messages() -> None:
    """Have what the library says appear on stderr; warnings of other libraries with -v only."""
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(_ToStderr())
    if not sys.warnoptions:  # whoever asks Python for them gets them as they are
        warnings.showwarning = _warned


def _warned(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    LOGGER.debug("%s: %s", category.__name__, " ".join(str(message).split())[:300])


def say(message: str) -> None:
    """One line for people, on stderr; stdout is for data."""
    click.echo(message, err=True)


class Progress:
    """A bar on a terminal, a line at intervals in a log; the same words in both.

    It appears with the first `update`.
    """

    def __init__(self, what: str) -> None:
        self.what, self.done, self.first = what, 0, 0
        self.started = self.last_line = time.monotonic()
        self.bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int, measures: Mapping[str, float] | None = None) -> None:
        """Now `done` of the total, with the latest measures."""
        self.done = done
        if LOGGER.level > logging.INFO or not speaks():
            return
        if self.bar is None:
            self._begin(done, total)
        assert self.bar is not None
        words = "  ".join(f"{name} {value:.4g}" for name, value in (measures or {}).items())
        if not self.bar.disable:
            self.bar.set_postfix_str(words, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= LOG_SECONDS or done == total:
            rate = (done - self.first) / max(now - self.started, 1e-9)
            left = (total - done) / max(rate, 1e-9)
            say(f"{self.what} {done}/{total}  {words}  {rate:.1f} it/s  {left:.0f} s left")
            self.last_line = now

    def _begin(self, done: int, total: int) -> None:
        size = shutil.get_terminal_size()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=self.what,
            unit="it",
            # tqdm takes a terminal that does not know its size (a container's) for one of none.
            ncols=size.columns,
            nrows=size.lines,
            disable=not sys.stderr.isatty(),
        )
        self.first = done
        self.started = self.last_line = time.monotonic()
