"""What was typed, kept so that it can be handed on to other commands.

gcn train --each: one run for every picture, each in a process of its own.

So what befalls one (a damaged file, too little memory, a crash) leaves the others alone.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from gcn_cli.cli.console import say
from gcn_cli.errors import GcnError, InputError, InterruptedRunError

OF_ALL = ("sources", "output", "each", "jobs", "as_json")  # what --each itself uses


class WordsKept(click.Command):
    """A command that remembers what was typed, so that it can be given to others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["gcn.words"] = list(args)
        return super().parse_args(ctx, args)


def words_for_each(ctx: click.Context) -> list[str]:
    """The options that were typed, for a command of its own for every picture."""
    given, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["gcn.words"]))
    words: list[str] = []
    for option in ctx.command.params:
        if not isinstance(option, click.Option) or option.name not in given:
            continue
        if option.name in OF_ALL:
            continue
        value, name = given[option.name], option.opts[-1]
        if option.is_flag:
            words.append(name if value else option.secondary_opts[0])
        else:
            words += [name, str(value)]
    return words


INTERRUPTED = 75  # exit code of a training that saved and may go on


@dataclass
class Outcome:
    """What became of one picture."""

    picture: str
    run: str
    exit_code: int | None = None  # None: not begun
    seconds: float = 0.0
    message: str = ""  # the last line of one that failed


class Jobs:
    """Trainings side by side."""

    def __init__(self, words: Sequence[str], side_by_side: int) -> None:
        """`words` are the options of every training, of which `side_by_side` run at a time."""
        self.words = list(words)
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped_by: signal.Signals | None = None
        self.lock = threading.Lock()
        self.slots: queue.Queue[list[str]] = queue.Queue()
        for slot in _slots(words, side_by_side):
            self.slots.put(slot)

    def run(self, outcomes: Sequence[Outcome]) -> None:
        """Train all that are not begun when a signal comes; those that are save and end."""
        from gcn_cli.runtime import signals_to

        with signals_to(self._hand_on), ThreadPoolExecutor(self.slots.qsize()) as pool:
            waiting = [pool.submit(self._train, one) for one in outcomes]
            for one in waiting:
                one.result()

    def _train(self, outcome: Outcome) -> None:
        slot = self.slots.get()
        try:
            if self.stopped_by is None:
                self._watched(outcome, slot)
        finally:
            self.slots.put(slot)

    def _watched(self, outcome: Outcome, slot: Sequence[str]) -> None:
        """One training from its start to its end; what it says is said, under its name."""
        begun, name = time.monotonic(), Path(outcome.run).name
        command = [sys.executable, "-m", "gcn_cli", "train", *self.words, *slot]
        command += ["-o", outcome.run, "--", outcome.picture]
        # In a group of its own: a terminal's Ctrl-C comes once, from here.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )
        with self.lock:
            self.running.add(process)
        if self.stopped_by is not None:
            process.send_signal(self.stopped_by)
        assert process.stderr is not None
        last = ""
        with process.stderr as lines:
            for line in lines:
                last = line.strip() or last
                say(f"{name}: {line.rstrip()}")
        outcome.exit_code = process.wait()
        with self.lock:
            self.running.discard(process)
        outcome.seconds = round(time.monotonic() - begun, 1)
        if outcome.exit_code:
            outcome.message = last.removeprefix("gcn: error: ")

    def _hand_on(self, number: int, _frame: object) -> None:
        """Hand a signal on to the trainings."""
        self.stopped_by = signal.Signals(number)
        for process in list(self.running):
            process.send_signal(number)


def _slots(words: Sequence[str], side_by_side: int) -> list[list[str]]:
    """What each of the trainings side by side has of the machine, as options."""
    slots: list[list[str]] = [[] for _ in range(side_by_side)]
    if side_by_side == 1:
        return slots
    import torch

    if "--threads" not in words:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        for slot in slots:
            slot += ["--threads", str(max(1, (cores or 1) // side_by_side))]
    gpus = torch.cuda.device_count()
    if gpus > 1 and "--device" not in words:
        for number, slot in enumerate(slots):
            slot += ["--device", f"cuda:{number % gpus}"]
    return slots


def planned(pictures: Sequence[str], output: str | None) -> list[Outcome]:
    """A run for every picture, named after it. Raises InputError where two share a name."""
    root = Path(output or "runs")
    names = [Path(picture).stem for picture in pictures]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--each: two pictures named {twice}; rename one")
    if root.exists() and not root.is_dir():
        raise InputError(f"--output {root}: is no folder; with --each the runs go into it")
    return [Outcome(p, str(root / n)) for p, n in zip(pictures, names, strict=True)]


def report(outcomes: Sequence[Outcome], stopped_by: signal.Signals | None) -> None:
    """The table, then the error that all of it amounts to, if any."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("picture", "run", "result", "seconds")
    for one in outcomes:
        row = (one.picture, one.run, _result(one), f"{one.seconds:.0f}")
        table.add_row(*(Text(cell) for cell in row))  # a name may look like markup
    Console(stderr=True, highlight=False).print(table)
    left = sum(one.exit_code in (None, INTERRUPTED, -signal.SIGTERM) for one in outcomes)
    if stopped_by is signal.SIGINT:
        raise KeyboardInterrupt
    if stopped_by is not None and left:
        raise InterruptedRunError(
            f"{stopped_by.name}: {left} of {len(outcomes)} pictures left; saved, the same command "
            "goes on"
        )
    failed = sum(bool(one.exit_code) for one in outcomes)
    if failed:
        raise GcnError(f"{failed} of {len(outcomes)} pictures failed; the table says why")


def _result(one: Outcome) -> str:
    if one.exit_code is None:
        return "not begun"
    return "done" if one.exit_code == 0 else f"exit code {one.exit_code}: {one.message}"


def as_data(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """The outcomes as plain values."""
    return [asdict(one) for one in outcomes]
