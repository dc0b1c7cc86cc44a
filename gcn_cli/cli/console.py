"""What a person or a log sees: lines on stderr, a bar on a terminal, plain lines in a log."""

import shutil
import sys
import time
from types import TracebackType
from typing import Self

import click
from tqdm import tqdm

LOG_SECONDS = 15.0  # between two lines where stderr is no terminal


def say(message: str) -> None:
    """One line for people, on stderr; stdout is for data."""
    click.echo(message, err=True)


class Progress:
    """A bar on a terminal, a line at intervals in a log; the same words in both."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.first = what, total, done
        self.on_terminal = sys.stderr.isatty()
        size = shutil.get_terminal_size()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit="it",
            # tqdm takes a terminal that does not know its size (a container's) for one of none.
            ncols=size.columns,
            nrows=size.lines,
            disable=not self.on_terminal,
        )
        self.started = self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def update(self, done: int, words: str) -> None:
        """Now `done` of the total, with the latest measures as `words`."""
        if self.on_terminal:
            self.bar.set_postfix_str(words, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= LOG_SECONDS or done == self.total:
            rate = (done - self.first) / max(now - self.started, 1e-9)
            left = (self.total - done) / max(rate, 1e-9)
            say(f"{self.what} {done}/{self.total}  {words}  {rate:.1f} it/s  {left:.0f} s left")
            self.last_line = now
