"""gcn train --each: a training for every image, several at a time.

On a CPU and on several GPUs each training is a process, so what happens to one (a damaged file, too
little memory, a crash) does not stop the others. On one GPU all are threads of this process, which
share what takes most of the time there, the start; a single training leaves most of a GPU idle.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcn_cli.cli.console import LINE_PREFIX, LOGGER, JsonResult, say
from gcn_cli.cli.options import typed_arguments
from gcn_cli.errors import GcnError, InputError, InterruptedRunError
from gcn_cli.options import TrainOptions
from gcn_cli.signals import STOP_SIGNALS, StopRequest, handle_signals

if TYPE_CHECKING:
    import torch

FORWARDED = [*STOP_SIGNALS, *([signal.SIGQUIT] if hasattr(signal, "SIGQUIT") else [])]
SIGNAL_SECONDS = 0.2  # until a signal to another thread is noticed
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


TrainOne = Callable[[str, TrainOptions, StopRequest], None]
"""Trains a model on an image; stopped early, it raises InterruptedRunError."""


def _expanded(sources: Sequence[str]) -> list[str]:
    """The source of every training. Warns of maps that one model could learn together."""
    from gcn_cli.images import expand_each
    from gcn_cli.images.materials import find_maps

    expanded = expand_each(sources)
    if "-" in expanded:
        raise click.UsageError("--each: takes files and folders, not stdin")
    maps, _ = find_maps(expanded)
    if maps:
        LOGGER.warning(
            "--each: %s and %d more look like the maps of one material; without --each they are "
            "learned together",
            Path(maps[0]).name,
            len(maps) - 1,
        )
    return expanded


def train_each(
    ctx: click.Context,
    sources: tuple[str, ...],
    options: TrainOptions,
    jobs: int,
    train_one: TrainOne,
    *,
    as_json: bool,
) -> None:
    """Train a model on every image of the sources, `jobs` at a time; print the runs.

    In a folder of folders each of these is a training.

    Raises InputError for images of the same name, GcnError if a training failed,
    InterruptedRunError or KeyboardInterrupt after a signal.
    """
    from gcn_cli.runs.folder import run_name
    from gcn_cli.runtime import set_threads

    result = JsonResult("train")
    images = _expanded(sources)
    root, names = Path(options.output or "runs"), [run_name(image) for image in images]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--each: two images named {name}; rename one")
    if os.path.exists(root) and not root.is_dir():
        raise InputError(f"--output {root}: is not a folder; --each writes runs into it")
    outcomes = [Outcome(image, str(root / name)) for image, name in zip(images, names, strict=True)]
    jobs = min(jobs, len(images))
    device = one_gpu(options.device)
    pool: JobPool | ThreadPool
    if device is None:
        pool = JobPool(typed_arguments(ctx, without=OWN_PARAMETERS), jobs)
    else:
        set_threads(ctx.params["threads"])
        pool = ThreadPool(train_one, options, jobs, device)
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


def one_gpu(name: str) -> "torch.device | None":
    """The GPU of all trainings; None for other devices, and where there are several to share."""
    import torch

    from gcn_cli.runtime import choose_device

    if name == "auto" and torch.cuda.device_count() != 1:
        return None
    device = choose_device(name)
    return device if device.type == "cuda" else None


class ThreadPool:
    """Threads that train on one device, each on a stream of its own."""

    def __init__(
        self, train_one: TrainOne, options: TrainOptions, jobs: int, device: "torch.device"
    ) -> None:
        """`jobs` trainings run at a time, with these options but the output."""
        self.train_one, self.options = train_one, options
        self.jobs, self.device = jobs, device
        self.stop = StopRequest()

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that ended the trainings early."""
        return self.stop.signal

    def run(self, outcomes: Sequence[Outcome]) -> None:
        """Train all. After a signal, no more start; those that run save and end."""
        import torch

        # The first use of linear algebra loads a library, which several threads at once cannot.
        torch.linalg.eigh(torch.eye(2, device=self.device))
        with self.stop.listening(), ThreadPoolExecutor(self.jobs) as threads:
            left = {threads.submit(self._train, outcome) for outcome in outcomes}
            try:
                while left:  # at intervals, since only this thread handles signals
                    done, left = wait(left, timeout=SIGNAL_SECONDS)
                    for future in done:
                        future.result()
            except KeyboardInterrupt:  # a second Ctrl-C
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _train(self, outcome: Outcome) -> None:
        """One training from start to end; its messages are printed after its name."""
        import torch

        from gcn_cli.cli.app import describe
        from gcn_cli.models.cuda_graph import GPU_THREADS

        if self.stop():
            return
        start = time.monotonic()
        token = LINE_PREFIX.set(f"{Path(outcome.run).name}: ")
        try:
            on_gpu = self.device.type == "cuda"
            stream = torch.cuda.Stream(self.device) if on_gpu else None  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream), GPU_THREADS.working():
                options = replace(self.options, output=outcome.run, device=str(self.device))
                self.train_one(outcome.image, options, self.stop)
            outcome.exit_code = 0
        except (Exception, KeyboardInterrupt) as error:
            outcome.message, outcome.exit_code = describe(error)
            say(f"error: {outcome.message}")
            LOGGER.debug("", exc_info=error)
        finally:
            outcome.seconds = round(time.monotonic() - start, 1)
            LINE_PREFIX.reset(token)


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

    from gcn_cli.processors import free_cores

    if "--threads" not in arguments:
        for slot in slots:
            slot += ["--threads", str(max(1, free_cores() // jobs))]
    gpus = torch.cuda.device_count()
    if gpus > 1 and "--device" not in arguments:
        for index, slot in enumerate(slots):
            slot += ["--device", f"cuda:{index % gpus}"]
    return slots


def _raise_failure(outcomes: Sequence[Outcome], stopped_by: signal.Signals | None) -> None:
    if stopped_by is signal.SIGINT:
        raise KeyboardInterrupt("stopped; saved; run the same command again to resume")
    left = sum(outcome.unfinished for outcome in outcomes)
    if stopped_by is not None and left:
        raise InterruptedRunError(
            f"{stopped_by.name}: {left} of {len(outcomes)} trainings are not finished; saved; "
            "run the same command again to resume"
        )
    failed = sum(bool(outcome.exit_code) for outcome in outcomes)
    if failed:
        raise GcnError(f"{failed} of {len(outcomes)} trainings failed; the lines above say why")
