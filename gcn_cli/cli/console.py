"""What commands print: messages and progress on stderr, results on stdout."""

import logging
import platform
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import click

from gcn_cli import __version__ as VERSION
from gcn_cli import strict_json
from gcn_cli.torchrun import is_main_process, torchrun_ranks

if TYPE_CHECKING:
    from tqdm import tqdm

LOGGER = logging.getLogger("gcn_cli")
LOG_SECONDS = 15.0  # between two lines of progress where stderr is not a terminal
NOTICE_SECONDS = 3.0  # of silence before a line says what is being done


LINE_PREFIX: ContextVar[str] = ContextVar("prefix", default="")
"""Before each line of a thread that is one of several trainings: which one it is."""


class _StderrHandler(logging.Handler):
    """Prints messages of the library on stderr, in the main process only."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_main_process():
            say(record.getMessage())


def show_messages() -> None:
    """Print messages of the library on stderr; warnings of other libraries only with -v."""
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(_StderrHandler())
    if not sys.warnoptions:  # python -W keeps its meaning
        warnings.showwarning = _log_warning


def _log_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    LOGGER.debug("%s: %s", category.__name__, " ".join(str(message).split())[:300])


def say(message: str) -> None:
    """Print a line on stderr, after the prefix of this thread; stdout is for results."""
    click.echo(LINE_PREFIX.get() + message, err=True)


@contextmanager
def notice(text: str, wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Print a line if the work inside takes longer than NOTICE_SECONDS, and is `wanted` then."""

    def say_it() -> None:
        if wanted():
            LOGGER.info(text)

    timer = threading.Timer(NOTICE_SECONDS, copy_context().run, (say_it,))  # with its prefix
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_loading(module: str) -> bool:
    """Whether a module is being imported at present."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


class Progress:
    """A progress bar on a terminal, lines at intervals elsewhere; nothing with --quiet."""

    def __init__(self, name: str) -> None:
        self.name, self.done, self.first = name, 0, 0
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

    def update(self, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show that `done` steps of `total` are done, with the latest metrics."""
        self.done = done
        if LOGGER.level > logging.INFO or not is_main_process():
            return
        bar = self.bar or self._start(done, total)
        text = "  ".join(f"{name} {value:.4g}" for name, value in (metrics or {}).items())
        if not bar.disable:
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= LOG_SECONDS or done == total:
            rate = (done - self.first) / max(now - self.started, 1e-9)
            left = (total - done) / max(rate, 1e-9)
            say(f"{self.name} {done}/{total}  {text}  {rate:.1f} it/s  {left:.0f} s left")
            self.last_line = now

    def _start(self, done: int, total: int) -> "tqdm[NoReturn]":
        from tqdm import tqdm

        size = shutil.get_terminal_size()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=self.name,
            unit="it",
            # Given, because tqdm draws no bar on a terminal without a size, as in containers.
            ncols=size.columns,
            nrows=size.lines,
            disable=not sys.stderr.isatty() or bool(LINE_PREFIX.get()),
        )
        self.first = done
        self.started = self.last_line = time.monotonic()
        return self.bar


class JsonResult:
    """The JSON object that --json prints at the end of a command.

    docs/guarantees.md lists the keys; a test compares it with what is printed.
    """

    def __init__(self, command: str) -> None:
        self.command, self.started = command, time.monotonic()

    def show(self, **values: Any) -> None:
        """Print the object: the keys of all commands, then `values`.

        Numbers that are not finite are null; the key not_finite tells what they were.
        """
        from importlib.metadata import version

        common: dict[str, Any] = {
            "command": self.command,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": {
                "gcn": VERSION,
                "torch": version("torch"),
                "python": platform.python_version(),
            },
        }
        ranks = torchrun_ranks()
        if ranks is not None:
            common["process"] = ranks[0]
        replaced: dict[str, str] = {}
        plain = strict_json.finite(common | values, replaced)
        if replaced:
            plain["not_finite"] = replaced
        click.echo(strict_json.dumps(plain, indent=1))


def as_lines(values: Mapping[str, Any]) -> str:
    """Plain values as lines "name: value", nested ones indented."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {line}" for line in as_lines(value).splitlines())]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def hardware_facts(device: Any, dtype: Any) -> dict[str, Any]:
    """Device, number format, threads and peak memory (MiB or None) of a command that computes."""
    import torch

    from gcn_cli.runtime import device_name, peak_memory_mib

    peak = peak_memory_mib(device)
    return {
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": None if peak is None else round(peak, 1),
    }
