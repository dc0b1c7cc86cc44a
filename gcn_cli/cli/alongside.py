"""What goes with a training on the command line: what contradicts, pages, grades, many pictures."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from gcn_cli.cli.output import Final
    from gcn_cli.learning.trainer import Metrics
    from gcn_cli.runs.job import OnStep
    from gcn_cli.runs.model import Model


def progress_page(run: str, report: str) -> "OnStep":
    """What writes the page of a training as it runs."""
    from gcn_cli.report.progress import Progress

    page = Progress(Path(run), Path(report))
    return lambda iteration, last, _: page(iteration, last)


def all_told(*listeners: "OnStep") -> "OnStep":
    """One listener that hands on to all."""

    def tell(iteration: int, last: int, measures: "Metrics") -> None:
        for listener in listeners:
            listener(iteration, last, measures)

    return tell


def grades(model: "Model", run: str) -> "dict[str, float | None] | None":
    """How good samples of a texture are, measured once and said; None for other models."""
    from gcn_cli.runs.grading import in_words, rounded, save_grades, saved_grades

    if not model.gradable:
        return None
    iteration = model.checkpoint.iteration
    known = saved_grades(Path(run), iteration)
    if known is None:
        grades = model.grade(count=1)
        save_grades(Path(run), iteration, grades)
        known = rounded(grades)
    log.info(in_words(known))
    return known


def refuse_contradictions(
    each: bool,
    jobs: int | None,
    dry_run: bool,
    report: str | None,
    overwrite: bool,
    resume: str,
    extend: tuple[int | None, float | None] | None,
    max_time: float | None,
) -> None:
    """Raise UsageError for options that do not go together."""
    if resume == "must" and overwrite:
        raise click.UsageError("--resume must, --overwrite: one goes on, the other begins anew")
    if extend is not None and (overwrite or resume == "never"):
        other = "--overwrite" if overwrite else "--resume never"
        raise click.UsageError(f"--extend, {other}: one goes on, the other begins anew")
    if extend is not None and extend[1] is not None and max_time is not None:
        raise click.UsageError("--extend, --max-time: two times; give one of them")
    if jobs is not None and not each:
        raise click.UsageError("--jobs: is for --each; give both")
    if each and report is not None:
        raise click.UsageError("--each, --report: one page for several; gcn inspect makes each")
    if each and dry_run:
        raise click.UsageError("--each, --dry-run: try one picture without --each")


def train_each(
    ctx: click.Context,
    sources: tuple[str, ...],
    output: str | None,
    jobs: int,
    final: "Final | None",
) -> None:
    """A run for every picture; paths of those that are done to stdout."""
    from gcn_cli.cli.each import Jobs, as_data, planned, report
    from gcn_cli.cli.words import words_for_each
    from gcn_cli.images import expand_sources

    pictures = expand_sources(sources)
    if "-" in pictures:
        raise click.UsageError("--each: takes files and folders, not stdin")
    outcomes = planned(pictures, output)
    work = Jobs(words_for_each(ctx), min(jobs, len(pictures)))
    work.run(outcomes)
    if final is not None:
        final.show(runs=as_data(outcomes))
    else:
        for one in outcomes:
            if one.exit_code == 0:
                click.echo(one.run)
    report(outcomes, work.stopped_by)
