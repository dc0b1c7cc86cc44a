"""gcn train --each: a training for every image, each in a process of its own.

So what happens to one (a damaged file, too little memory, a crash) does not stop the others.
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

from gcn_cli.cli.console import JsonResult, say
from gcn_cli.errors import GcnError, InputError, InterruptedRunError
from gcn_cli.signals import STOP_SIGNALS, handle_signals

FORWARDED = [*STOP_SIGNALS, *([signal.SIGQUIT] if hasattr(signal, "SIGQUIT") else [])]
OWN_PARAMETERS = ("sources", "output", "each", "jobs", "as_json")  # not for the single trainings


@dataclass
class Outcome:
    """The result of one training."""

    image: str
    run: str
    exit_code: int | None = None  # None: not started
    seconds: float = 0.0
    message: str = ""  # last line of a failed training

    @property
    def unfinished(self) -> bool:
        """Whether the same command starts or resumes it."""
        stopped = [-number for number in FORWARDED]  # before the training could save
        return self.exit_code in (None, InterruptedRunError.exit_code, *stopped)

    @property
    def text(self) -> str:
        """The result, for a person."""
        if self.exit_code is None:
            return "not started"
        result = f"exit code {self.exit_code}: {self.message}" if self.exit_code else "done"
        return f"{result} ({self.seconds:.0f} s)"


def train_each(
    ctx: click.Context, sources: tuple[str, ...], output: str | None, jobs: int, *, as_json: bool
) -> None:
    """Train a model on every image of the sources, `jobs` at a time; print the runs.

    Raises InputError for images of the same name, GcnError if a training failed,
    InterruptedRunError or KeyboardInterrupt after a signal.
    """
    from gcn_cli.images import expand_sources
    from gcn_cli.runs.folder import run_name

    result = JsonResult("train")
    images = expand_sources(sources)
    if "-" in images:
        raise click.UsageError("--each: takes files and folders, not stdin")
    root, names = Path(output or "runs"), [run_name(image) for image in images]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--each: two images named {name}; rename one")
    if os.path.exists(root) and not root.is_dir():
        raise InputError(f"--output {root}: is not a folder; --each writes runs into it")
    outcomes = [Outcome(image, str(root / name)) for image, name in zip(images, names, strict=True)]
    pool = JobPool(shared_arguments(ctx), min(jobs, len(images)))
    pool.run(outcomes)
    for outcome in outcomes:
        say(f"{outcome.image}: {outcome.text}")
    try:
        if as_json:
            result.show(runs=[asdict(outcome) for outcome in outcomes])
        else:
            for outcome in outcomes:
                if outcome.exit_code == 0:
                    click.echo(outcome.run)
    finally:  # the exit code is that of the trainings, even if nobody reads the list
        _raise_failure(outcomes, pool.stopped_by)


def shared_arguments(ctx: click.Context) -> list[str]:
    """The options as typed, for a command for each image."""
    values, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["gcn.arguments"]))
    arguments: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if not isinstance(option, click.Option) or name in OWN_PARAMETERS or name not in values:
            continue
        if option.is_flag:
            arguments.append(option.opts[-1] if values[name] else option.secondary_opts[0])
            continue
        for value in values[name] if option.multiple else [values[name]]:
            arguments += [option.opts[-1], str(value)]
    return arguments


class JobPool:
    """Processes that train, several at a time."""

    def __init__(self, arguments: Sequence[str], jobs: int) -> None:
        """`arguments` are the options of every training, `jobs` how many run at a time."""
        self.arguments = list(arguments)
        self.processes: set[subprocess.Popen[str]] = set()
        self.stopped_by: signal.Signals | None = None
        self.lock = threading.Lock()
        self.slots: queue.Queue[list[str]] = queue.Queue()
        for slot in _slots(arguments, jobs):
            self.slots.put(slot)

    def run(self, outcomes: Sequence[Outcome]) -> None:
        """Train all. After a signal, no more start; those that run save and end."""
        with (
            handle_signals(self._forward, FORWARDED),
            ThreadPoolExecutor(self.slots.qsize()) as threads,
        ):
            for future in [threads.submit(self._train, outcome) for outcome in outcomes]:
                future.result()

    def _train(self, outcome: Outcome) -> None:
        slot = self.slots.get()
        try:
            if self.stopped_by is None:
                self._run_process(outcome, slot)
        finally:
            self.slots.put(slot)

    def _run_process(self, outcome: Outcome, slot: Sequence[str]) -> None:
        """One training from start to end; its messages are printed after its name."""
        start, name = time.monotonic(), Path(outcome.run).name
        command = [sys.executable, "-m", "gcn_cli", "train", *self.arguments, *slot]
        command += ["-o", outcome.run, "--", outcome.image]
        # A process group of its own, so that Ctrl-C reaches it once, from here.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )
        with self.lock:
            self.processes.add(process)
        if self.stopped_by is not None:
            process.send_signal(self.stopped_by)
        assert process.stderr is not None
        last = ""
        try:
            with process.stderr as lines:
                for line in lines:
                    last = line.strip() or last
                    say(f"{name}: {line.rstrip()}")
        except BaseException:
            process.terminate()
            raise
        finally:
            outcome.exit_code = process.wait()
            with self.lock:
                self.processes.discard(process)
        outcome.seconds = round(time.monotonic() - start, 1)
        if outcome.exit_code:
            outcome.message = last.removeprefix("gcn: error: ")

    def _forward(self, number: int, _frame: object) -> None:
        """Forward a signal to the trainings."""
        self.stopped_by = signal.Signals(number)
        for process in list(self.processes):
            process.send_signal(number)


def _slots(arguments: Sequence[str], jobs: int) -> list[list[str]]:
    """The share of the machine that each of the simultaneous trainings has, as options."""
    slots: list[list[str]] = [[] for _ in range(jobs)]
    if jobs == 1:
        return slots
    import torch

    from gcn_cli.runtime import available_cores

    if "--threads" not in arguments:
        for slot in slots:
            slot += ["--threads", str(max(1, available_cores() // jobs))]
    gpus = torch.cuda.device_count()
    if gpus > 1 and "--device" not in arguments:
        for index, slot in enumerate(slots):
            slot += ["--device", f"cuda:{index % gpus}"]
    return slots


def _raise_failure(outcomes: Sequence[Outcome], stopped_by: signal.Signals | None) -> None:
    if stopped_by is signal.SIGINT:
        raise KeyboardInterrupt
    left = sum(outcome.unfinished for outcome in outcomes)
    if stopped_by is not None and left:
        raise InterruptedRunError(
            f"{stopped_by.name}: {left} of {len(outcomes)} trainings are not finished; saved; "
            "run the same command again to resume"
        )
    failed = sum(bool(outcome.exit_code) for outcome in outcomes)
    if failed:
        raise GcnError(f"{failed} of {len(outcomes)} trainings failed; the lines above say why")
