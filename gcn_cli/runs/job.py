"""The life of a training: begun or gone on with, trained, stopped in good order."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gcn_cli.errors import DivergedError, LostProcessError
from gcn_cli.learning.trainer import Metrics, train
from gcn_cli.runs.course import Course
from gcn_cli.runs.folder import make_folder
from gcn_cli.runs.lock import locked, refuse_newer
from gcn_cli.runs.recorder import Recorder
from gcn_cli.runs.retreat import Retreat
from gcn_cli.runs.starting import Schedule, Work, begin
from gcn_cli.runs.training import Training
from gcn_cli.runtime import StopRequest, peak_memory_mib

log = logging.getLogger(__name__)

OnStep = Callable[[int, int, Metrics], None]
"""Called after every iteration with its number, from 1, the number of the last, and measures."""


def run_training(
    work: Work,
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Training:
    """Train what is asked on what is observed, into the run's folder where one is named.

    Goes on with what is there. Ends at the last iteration, after the time limit, or where
    `should_stop` says so; all that is learned by then is saved. Of `ranks` the first alone writes.
    Raises InputError for what does not fit together, DivergedError where learning left the finite
    numbers again and again, GcnError where another process was lost.
    """
    limit = StopRequest(work.schedule.max_time)
    folder = work.run if work.ranks.first else None
    there = folder is not None and folder.is_dir()
    with ExitStack() as held:
        with work.ranks.together():
            if folder is not None and there:
                held.enter_context(locked(folder))
            training = begin(work)
        if folder is not None and not there:  # not made before: a training refused leaves none
            make_folder(folder)
            held.enter_context(locked(folder))
            refuse_newer(folder)
        return _Job(training, folder, work.schedule, limit, on_step, should_stop).carried_on()


class _Job:
    """A training carried on from where it stands, and what goes with it."""

    def __init__(
        self,
        training: Training,
        run: Path | None,
        schedule: Schedule,
        limit: StopRequest,
        on_step: OnStep | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.training, self.run, self.schedule, self.limit = training, run, schedule, limit
        self.on_step, self.should_stop = on_step, should_stop

    def carried_on(self) -> Training:
        training, run = self.training, self.run
        if training.complete:
            done = training.iteration
            log.info("%s: complete, %d iterations; --extend goes on, --overwrite anew", run, done)
            return training
        height, width = training.learner.observed.image_size
        log.info(
            "training %s on %s from %d picture(s) at %dx%d",
            run or "in memory", training.device, len(training.observed), width, height,
        )  # fmt: skip
        self.recorder = None if run is None else Recorder(run, training, self.schedule)
        self.course = None
        if self.schedule.max_time is not None and self.schedule.planned:
            most = None if self.schedule.extension else training.asked_length
            self.course = Course(self.schedule.max_time, self.limit.started, training, most)
        self.retreat = Retreat(training)
        try:
            self._train()
        finally:
            if self.recorder is not None:
                self.recorder.close()
        if self.recorder is not None:
            self.recorder.save()
        if training.complete or self.limit.timed_out:
            _report(training)
        return training

    def _train(self) -> None:
        """To the end, from an earlier state again where learning diverges."""
        training = self.training
        while True:
            try:
                train(
                    training.learner,
                    done=training.iteration,
                    should_stop=self._stop,
                    on_step=self._note,
                )
                return
            except DivergedError as error:
                going_on = self.retreat.back(training, error)
                self._rewind()
                if not going_on:
                    raise self.retreat.given_up(training, error) from error
            except LostProcessError as error:
                # In the middle of a step: what was kept is whole, and may be newer than the file.
                self.retreat.put_back(training)
                if self.recorder is not None and training.iteration > self.recorder.saved:
                    self.recorder.rewind()
                told = f"{error}; what is saved is whole, the same command goes on"
                raise LostProcessError(told) from error

    def _rewind(self) -> None:
        """Have the folder say what the training does, which went back."""
        if self.recorder is not None:
            self.recorder.rewind()

    def _note(self, iteration: int, metrics: Metrics) -> None:
        training = self.training
        training.iteration = iteration
        training.history.append({"iteration": float(iteration), **metrics})
        if self.course is not None:
            self.course(training)
        self.retreat.note(training)
        if self.recorder is not None:
            self.recorder.note()
        if self.on_step is not None:
            self.on_step(iteration, training.learner.iterations, metrics)

    def _stop(self) -> bool:
        return self.limit() or (self.should_stop is not None and self.should_stop())


def _report(training: Training) -> None:
    """Say what became of it."""
    learner, done = training.learner, training.iteration
    for sentence in learner.verdicts(training.history):
        log.info(sentence)
    peak = peak_memory_mib(training.device)
    memory = "" if peak is None else f", peak memory {peak:.0f} MiB"
    log.info("%.0f s in all%s", training.seconds, memory)
    if not training.complete:
        log.info("time limit after iteration %d of %d, saved", done, learner.iterations)
        for sentence in learner.cut_short(done):
            log.info(sentence)
