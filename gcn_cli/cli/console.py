"""What commands print: messages and progress on stderr, results on stdout."""

import logging
import platform
import shutil
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
SPEED_SECONDS = 30.0  # the speed of work is that of the last seconds
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
    with _no_bar():
        click.echo(LINE_PREFIX.get() + message, err=True)


def print_result(line: str) -> None:
    """Print a line on stdout, also while there is a progress bar on the terminal."""
    with _no_bar():
        click.echo(line)


def _no_bar() -> AbstractContextManager[None]:
    """Take the progress bar away, and draw it again below what is printed meanwhile."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        return nullcontext()
    bar: AbstractContextManager[None] = tqdm.tqdm.external_write_mode(sys.stderr)
    return bar


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


@contextmanager
def interrupted_as(state: str) -> Iterator[None]:
    """Let Ctrl-C say what is on disk then."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; {state}") from error


def is_loading(module: str) -> bool:
    """Whether a module is being imported at present."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


class Progress:
    """A progress bar on a terminal, lines at intervals elsewhere; nothing with --quiet.

    A line, and the text beside the bar, say what is done of how much, the loss and the speed of a
    training, and the time left at the speed of the last half minute.
    """

    def __init__(self, name: str, *, unit: str | None = None, stays: bool = True) -> None:
        """`unit`: of the speed, which is not shown without. `stays`: whether the bar is left."""
        self.name, self.unit, self.stays, self.done = name, unit, stays, 0
        self.started = self.last_line = time.monotonic()
        self.timed: deque[tuple[float, int]] = deque()  # the latest times, and what was done
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
        now, self.done = time.monotonic(), done
        if LOGGER.level > logging.INFO or not is_main_process():
            return
        self.timed.append((now, done))
        while now - self.timed[0][0] > SPEED_SECONDS and len(self.timed) > 2:
            self.timed.popleft()
        bar = self.bar or self._start(done, total)
        if not bar.disable:
            bar.total = total  # a time limit changes the length of a training
            bar.set_postfix_str(self._text(total, metrics or {}), refresh=False)
            bar.update(done - bar.n)
        elif now - self.last_line >= LOG_SECONDS or done == total:
            say(f"{self.name} {done}/{total}, {self._text(total, metrics or {})}")
            self.last_line = now

    def _text(self, total: int, metrics: Mapping[str, float]) -> str:
        """The loss, the speed and the time left; at the end the time taken."""
        names = ("loss", "reconstruction_error")
        parts = [f"{n.replace('_', ' ')} {metrics[n]:.3g}" for n in names if n in metrics]
        (start, first), (now, last) = self.timed[0], self.timed[-1]
        if last > first:
            each = max(now - start, 1e-9) / (last - first)
            if self.unit is not None:
                speed = f"{1 / each:.{int(each > 0.1)}f} {self.unit}s a second"
                parts.append(speed if each <= 1 else f"{each:.2g} s for each {self.unit}")
            if last < total:
                parts.append(f"{in_time(each * (total - last))} left")
        if last == total:
            parts.append(in_time(now - self.started))
        return ", ".join(parts)

    def _start(self, done: int, total: int) -> "tqdm[NoReturn]":
        from tqdm import tqdm

        size = shutil.get_terminal_size()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=self.name,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            leave=self.stays,
            # Given, because tqdm draws no bar on a terminal without a size, as in containers.
            ncols=size.columns,
            nrows=size.lines,
            disable=not sys.stderr.isatty() or bool(LINE_PREFIX.get()),
        )
        return self.bar


def in_time(seconds: float) -> str:
    """A time for a person, as "7 s", "3 min" or "2 h 5 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


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
