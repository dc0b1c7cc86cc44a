"""Where to go back to when learning diverges: states of a while ago, kept in memory.

A training that is to fit into a time: its length is chosen by the speed it turns out to have.

The life of a training: begun or gone on with, trained, stopped in good order.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from gcn_cli.config import USUAL_IMAGES, Config, option_name
from gcn_cli.errors import DivergedError, LostProcessError
from gcn_cli.runs.folder import locked, make_folder, refuse_newer
from gcn_cli.runs.record import RunRecorder
from gcn_cli.runs.session import RunOptions, Session, TrainingJob, begin
from gcn_cli.runtime import StopRequest, peak_memory_mib
from gcn_cli.training.loop import Metrics, run_iterations

if TYPE_CHECKING:
    from gcn_cli.runs.session import Session

log = logging.getLogger(__name__)

KEEP_EVERY = 50  # iterations from one kept state to the next
KEPT_STATES = 3  # states: what was kept last may already have been on its way out
ROLLBACKS = 3  # times a training goes back


class Kept(NamedTuple):
    """A training as it stood after an iteration: the learner's state and all measures until then.

    The measures are kept too: after a step back the training's own are those of another way.
    """

    iteration: int
    state: dict[str, Tensor]
    history: Sequence[Metrics]


class Rollback:
    """The last good states of a training, and how often it went back to one."""

    def __init__(self, training: Session) -> None:
        self.kept: deque[Kept] = deque(maxlen=KEPT_STATES)
        self.newest = Kept(-1, {}, ())  # of all that were ever kept
        self.tried = 0
        self._keep(training)

    def note(self, training: Session) -> None:
        """Keep the state of a training now and then; to be called after every iteration."""
        if training.iteration % KEEP_EVERY == 0:
            self._keep(training)

    def back(self, training: Session, error: DivergedError) -> bool:
        """Have a training that diverged stand at an earlier state, with steps half as long.

        That state is given up: should it lead astray again, one before it is taken. False where it
        was tried too often: then the training stands at the newest state that was good.
        """
        self.tried += 1
        if self.tried > ROLLBACKS:
            self.put_back(training)
            return False
        found = self.kept.pop() if len(self.kept) > 1 else self.kept[0]
        _stand(training, found, training.family.config.slower())
        log.info(
            "%s; back to iteration %d with %s", error, training.iteration, _rates_in_words(training)
        )
        return True

    def put_back(self, training: Session) -> None:
        """Have a training stand at the newest state that was good, as it was."""
        _stand(training, self.newest, training.family.config)

    def given_up(self, training: Session, error: DivergedError) -> DivergedError:
        """What is to be said after the last try."""
        names = [option_name(name) for name in training.asked.steps_lowered]
        left = "nothing is saved"
        if training.iteration:
            left = f"the model of iteration {training.iteration} is saved"
        return DivergedError(
            f"{error}, after going back {ROLLBACKS} times; {left}; lower {' or '.join(names)}, "
            "then --overwrite"
        )

    def _keep(self, training: Session) -> None:
        state = training.learner.state()
        if all(bool(tensor.isfinite().all()) for tensor in state.values()):
            copies = {name: tensor.detach().clone() for name, tensor in state.items()}
            self.kept.append(Kept(training.iteration, copies, tuple(training.history)))
            if training.iteration > self.newest.iteration:
                self.newest = self.kept[-1]


def _stand(training: Session, kept: Kept, config: Config) -> None:
    """Have a training stand at a kept state; what was kept stays as it is."""
    state = {name: tensor.clone() for name, tensor in kept.state.items()}
    training.go_back(kept.iteration, state, kept.history, config)


def _rates_in_words(training: Session) -> str:
    config = training.family.config
    names = config.steps_lowered
    return ", ".join(f"{option_name(name)} {getattr(config, name):g}" for name in names)


SHARE = 0.93  # of the time that is planned for; iterations vary, and the end is to be reached
WARM_UP = 3  # iterations in which libraries choose their kernels
FIRST = 10  # iterations after them that are timed before the first plan
REVISIONS = 10  # of the plan in a course


class TimeBudget:
    """Revises how many iterations a training has, so that it ends in time, refined and whole."""

    def __init__(
        self, seconds: float, started: float, training: "Session", most: int | None
    ) -> None:
        """`started` is a reading of the monotonic clock; `most` are the iterations there may be."""
        self.ends = started + SHARE * seconds
        self.most = most
        self.timed_from, self.timed_at = training.iteration + WARM_UP, started
        self.next = self.timed_from + FIRST

    def __call__(self, training: "Session") -> None:
        """To be called after every iteration."""
        now, iteration = time.monotonic(), training.iteration
        if iteration == self.timed_from:
            self.timed_at = now
        if iteration < self.next:
            return
        pace = (now - self.timed_at) / (iteration - self.timed_from)
        length = training.learner.length_for(iteration, pace, self.ends - now)
        if length is None:
            return
        chosen = length if self.most is None else min(length, self.most)
        if (
            self.most is not None
            and chosen < self.most
            and training.learner.iterations == self.most
        ):
            log.info(
                "some %d iterations fit into the time, of %d%s",
                chosen,
                self.most,
                _remedy(training, chosen),
            )
        training.set_length(chosen)
        self.next = iteration + max(FIRST, chosen // REVISIONS)


def _remedy(training: "Session", chosen: int) -> str:
    """What leaves time for more of them, if anything does: fewer than usual of many images lose."""
    config = training.learner.config
    images = config.batch_size or 0
    few = chosen < config.length_as(None)
    if not few or not config.texture_ladder or images <= USUAL_IMAGES:
        return ""
    return f"; --batch-size {USUAL_IMAGES}, not {images}, leaves time for more, and samples gain"


OnStep = Callable[[int, int, Metrics], None]
"""Called after every iteration with its number, from 1, the number of the last, and measures."""


def run_training(
    work: TrainingJob,
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Session:
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
        training: Session,
        run: Path | None,
        schedule: RunOptions,
        limit: StopRequest,
        on_step: OnStep | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.training, self.run, self.schedule, self.limit = training, run, schedule, limit
        self.on_step, self.should_stop = on_step, should_stop

    def carried_on(self) -> Session:
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
        self.recorder = None if run is None else RunRecorder(run, training, self.schedule)
        self.course = None
        if self.schedule.max_time is not None and self.schedule.planned:
            most = None if self.schedule.extension else training.asked_length
            self.course = TimeBudget(self.schedule.max_time, self.limit.started, training, most)
        self.retreat = Rollback(training)
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
                run_iterations(
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


def _report(training: Session) -> None:
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
