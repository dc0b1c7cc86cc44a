"""What a person or a log sees: lines on stderr, a bar on a terminal, plain lines in a log.

What a command leaves on stdout for machines: with --json one object, the same keys for all.
"""

import json
import logging
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

import click
from tqdm import tqdm

from gcn_cli import __version__ as VERSION
from gcn_cli.torchrun import is_main_process, torchrun_ranks

LOGGER = logging.getLogger("gcn_cli")
LOG_SECONDS = 15.0  # between two lines where stderr is no terminal


class _ToStderr(logging.Handler):
    """Messages of the library, as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_main_process():
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
        if LOGGER.level > logging.INFO or not is_main_process():
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


class JsonResult:
    """The one object that --json prints at the end of a command.

    docs/batch.md lists the keys; a test holds it to what is printed.
    """

    def __init__(self, command: str) -> None:
        self.command, self.started = command, time.monotonic()

    def show(self, **own: Any) -> None:
        """Print what all commands say, and what is this one's `own`."""
        started = torchrun_ranks()
        said: dict[str, Any] = {
            "command": self.command,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": _versions(),
        }
        if started is not None:
            said["process"] = started[0]
        click.echo(json.dumps(said | own, indent=1))


def as_lines(values: dict[str, Any]) -> str:
    """Plain values for a person: a name and a value a line, those inside others set in."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {line}" for line in as_lines(value).splitlines())]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def machine(device: Any, dtype: Any) -> dict[str, Any]:
    """Device, number format, threads and memory (MiB or None) of a command that computes."""
    import torch

    from gcn_cli.runtime import device_name, peak_memory_mib

    peak = peak_memory_mib(device)
    return {
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": None if peak is None else round(peak, 1),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"gcn": VERSION, "torch": version("torch"), "python": platform.python_version()}
