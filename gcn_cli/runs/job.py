"""Training a session to its end: stop requests, rollback, the time budget, the last messages."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gcn_cli.config import DEFAULT_BATCH_SIZE, Config, option_name, option_text
from gcn_cli.errors import DivergedError, LostProcessError
from gcn_cli.options import TrainOptions
from gcn_cli.runs.folder import run_lock
from gcn_cli.runs.record import RunWriter
from gcn_cli.runs.session import Session
from gcn_cli.runtime import peak_memory_mib
from gcn_cli.signals import StopRequest
from gcn_cli.training.distributed import current_group
from gcn_cli.training.loop import Metrics, run_iterations
from gcn_cli.training_images import TrainingImages

log = logging.getLogger(__name__)

OnStep = Callable[[int, int, Metrics], None]
"""Called after every iteration with its number (from 1), the number of the last, and metrics."""


def run_training(
    images: TrainingImages,
    requested: Config,
    options: TrainOptions,
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Session:
    """Train a model, or resume the training in the folder `options.output`.

    Ends after the last iteration, at the time limit, or when `should_stop` returns true; the model
    is saved in each case. Of several processes only the main one writes. `options.settings` holds
    the explicit settings: with "iterations" among them --max-time stops a training, without them it
    plans a shorter one. Raises InputError for options that contradict each other or the folder,
    BusyError if another process trains there, DivergedError if training diverges after several
    rollbacks, LostProcessError if another process of the job is gone.
    """
    limit = StopRequest(options.max_time if options.extend_time is None else options.extend_time)
    group = current_group()
    run = None if options.output is None or not group.is_main else Path(options.output)
    exists = run is not None and run.is_dir()
    with ExitStack() as stack:
        with group.synchronized():
            if run is not None and exists:
                stack.enter_context(run_lock(run))
            session = Session.begin(images, requested, options)
        if run is not None and not exists:  # created late: a refused training leaves no folder
            stack.enter_context(run_lock(run, new=True))
        if session.complete:
            done = session.iteration
            log.info("%s: complete, %d iterations; see --extend and --overwrite", run, done)
            return session
        log.info(
            "%slearning %s, on %s", f"{run}: " if run else "", _lesson(session), session.device
        )
        _say_if_not_shortened(session, options)
        writer = None if run is None else RunWriter(run, session, options)
        try:
            _train(session, options, writer, limit, on_step, should_stop)
        finally:
            if writer is not None:
                writer.close()
        if writer is not None:
            writer.save()
    if session.complete or limit.timed_out:
        _log_result(session)
    return session


def _train(
    session: Session,
    options: TrainOptions,
    writer: RunWriter | None,
    limit: StopRequest,
    on_step: OnStep | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Run iterations until the last or a stop request; roll back if training diverges."""
    rollback, budget = Rollback(session), None
    shorten = options.extend is None and "iterations" not in options.settings
    if limit.seconds is not None and (shorten or options.extend_time is not None):
        longest = None
        if options.extend_time is None:
            config = session.kind.config
            longest = session.requested.iterations or config.default_iterations
        budget = TimeBudget(limit.seconds, limit.started, session, longest)

    def after_steps(last: int, metrics: list[Metrics]) -> None:
        numbered = list(enumerate(metrics, last - len(metrics) + 1))
        session.iteration = last
        session.history += [{"iteration": float(k), **row} for k, row in numbered]
        if budget is not None:
            budget.update(session)
        rollback.update(session)
        if writer is not None:
            writer.update(len(metrics))
        if on_step is not None:
            for iteration, row in numbered:
                on_step(iteration, session.trainer.iterations, row)

    def is_due(iteration: int) -> bool:
        """Whether what follows needs the state after this very iteration."""
        planned = budget is not None and budget.is_due(iteration)
        written = writer is not None and writer.is_due(iteration)
        return planned or written or rollback.is_due(iteration)

    def stop() -> bool:
        return limit() or (should_stop is not None and should_stop())

    while True:
        try:
            run_iterations(
                session.trainer,
                done=session.iteration,
                should_stop=stop,
                on_steps=after_steps,
                is_due=is_due,
            )
            return
        except DivergedError as error:
            try:
                rollback.step_back(session, error)
            finally:
                if writer is not None:
                    writer.rewind()
        except LostProcessError as error:
            # In the middle of a step: the last snapshot is whole, and may be newer than the file.
            session.restore(rollback.newest, session.kind.config)
            if writer is not None and session.iteration > writer.saved:
                writer.rewind()
            raise LostProcessError(
                f"{error}; run the same command again to resume from the last checkpoint"
            ) from error


class Rollback:
    """The last good states of a training, kept in memory for when it diverges."""

    INTERVAL = 50  # iterations between two snapshots
    SNAPSHOTS = 3  # the newest may already be on its way to divergence
    ATTEMPTS = 3

    def __init__(self, session: Session) -> None:
        first = session.snapshot()
        assert first is not None, "a training begins with finite values"
        self.newest = first  # of all that were taken, used or not
        self.snapshots = deque([first], maxlen=self.SNAPSHOTS)
        self.attempts = 0

    def is_due(self, iteration: int) -> bool:
        """Whether a snapshot is taken after an iteration."""
        return iteration % self.INTERVAL == 0

    def update(self, session: Session) -> None:
        """Take a snapshot at intervals; called after every iteration that is due."""
        snapshot = session.snapshot() if self.is_due(session.iteration) else None
        if snapshot is not None:
            self.snapshots.append(snapshot)
            if snapshot.iteration > self.newest.iteration:
                self.newest = snapshot

    def step_back(self, session: Session, error: DivergedError) -> None:
        """Return to an earlier snapshot, with step sizes halved; each time to one further back.

        After the last attempt raises DivergedError, with the session at the newest snapshot.
        """
        config = session.kind.config
        self.attempts += 1
        if self.attempts > self.ATTEMPTS:
            session.restore(self.newest, config)
            rates = " or ".join(option_name(name) for name in config.halved_after_divergence)
            done = session.iteration
            saved = f"the model of iteration {done} is saved" if done else "nothing is saved"
            raise DivergedError(
                f"{error}, after {self.ATTEMPTS} rollbacks; {saved}; lower {rates} and --overwrite"
            ) from error
        config = config.slowed()
        snapshot = self.snapshots.pop() if len(self.snapshots) > 1 else self.snapshots[0]
        session.restore(snapshot, config)
        rates = ", ".join(
            option_text(name, getattr(config, name)) for name in config.halved_after_divergence
        )
        log.info("%s; rolled back to iteration %d with %s", error, session.iteration, rates)


class TimeBudget:
    """Sets the length of a training so that its schedule ends within a time.

    Iterations are timed, and the length is revised about ten times.
    """

    SHARE = 0.93  # of the time is planned for: iterations vary
    WARM_UP = 3  # iterations that are not timed: libraries choose their kernels
    FIRST = 10  # timed iterations before the first plan
    REVISIONS = 10

    def __init__(
        self, seconds: float, started: float, session: Session, longest: int | None
    ) -> None:
        """`started` is a reading of the monotonic clock, `longest` the most iterations allowed."""
        self.end = started + self.SHARE * seconds
        self.longest = longest
        self.timed_from, self.timed_at = session.iteration + self.WARM_UP, started
        self.next_plan = self.timed_from + self.FIRST

    def is_due(self, iteration: int) -> bool:
        """Whether the timing starts, or the length is revised, after an iteration."""
        return iteration == self.timed_from or iteration >= self.next_plan

    def update(self, session: Session) -> None:
        """Revise the length if it is due; called after every iteration that is due."""
        now, iteration, trainer = time.monotonic(), session.iteration, session.trainer
        if iteration == self.timed_from:
            self.timed_at = now
        if iteration < self.next_plan:
            return
        seconds_each = (now - self.timed_at) / (iteration - self.timed_from)
        length = trainer.length_for(iteration, seconds_each, self.end - now)
        if length is None:
            return
        if self.longest is not None:
            length = min(length, self.longest)
            if length < self.longest == trainer.iterations:
                config, advice = trainer.config, ""
                too_many_images = (config.batch_size or 0) > DEFAULT_BATCH_SIZE
                if too_many_images and config.is_texture and length < config.default_iterations:
                    advice = f"; --batch-size {DEFAULT_BATCH_SIZE} leaves time for more"
                log.info(
                    "--max-time: about %d of %d iterations fit%s", length, self.longest, advice
                )
        trainer.set_length(length)
        self.next_plan = iteration + max(self.FIRST, length // self.REVISIONS)


def _lesson(session: Session) -> str:
    """What a training sees, as "from crops of 96 pixels of a 256x256 image"."""
    images, crop = session.images.images, session.kind.config.crop
    sizes = {image.shape[1:] for image in images}
    size = "".join(f"{width}x{height} " for height, width in (sizes if len(sizes) == 1 else ()))
    shown = f"a {size}image" if len(images) == 1 else f"{len(images)} {size}images"
    return f"from {shown}" if crop is None else f"from crops of {crop} pixels of {shown}"


def _say_if_not_shortened(session: Session, options: TrainOptions) -> None:
    """Say before a training begins that --max-time may stop it before it is whole."""
    seconds, next_one = options.max_time, session.iteration + 1
    if seconds is None:
        return
    fixed = session.trainer.length_for(next_one, 1.0, seconds) is None
    if fixed or "iterations" in options.settings or options.extend is not None:
        log.info(
            "--max-time %.0fs: the training is not shortened; if its %d iterations take longer, it "
            "stops there, saved but not whole, and the same command resumes it",
            seconds, session.trainer.iterations - session.iteration,
        )  # fmt: skip


def _log_result(session: Session) -> None:
    trainer = session.trainer
    for sentence in trainer.check_convergence(session.history):
        log.info(sentence)
    peak = peak_memory_mib(session.device)
    memory = "" if peak is None else f", peak memory {peak:.0f} MiB"
    done, seconds = session.iteration, session.seconds
    log.info("trained for %.0f s, %d iterations%s", seconds, done, memory)
    if not session.complete:
        log.info(
            "time limit after iteration %d of %d, saved; run the same command again to resume",
            session.iteration, trainer.iterations,
        )  # fmt: skip
        for sentence in trainer.early_stop_advice(session.iteration):
            log.info(sentence)
