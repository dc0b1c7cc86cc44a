"""What goes with a training on the command line: what contradicts, pages, grades, many pictures.

gcn train: pictures in, a run folder out.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.each import WordsKept
from gcn_cli.cli.options import (
    Duration,
    More,
    config_options,
    dry_run_option,
    given_config,
    linked_option,
    machine_options,
    output_options,
    overwrite_option,
)
from gcn_cli.errors import InterruptedRunError
from gcn_cli.presets import PRESET_NOTES, PRESETS
from gcn_cli.torchrun import is_main_process

if TYPE_CHECKING:
    from gcn_cli.cli.console import JsonResult
    from gcn_cli.inputs import Alpha
    from gcn_cli.model import Model
    from gcn_cli.runs.job import OnStep
    from gcn_cli.runs.session import Resume
    from gcn_cli.training.loop import Metrics

log = logging.getLogger(__name__)


def progress_page(run: str, report: str) -> "OnStep":
    """What writes the page of a training as it runs."""
    from gcn_cli.report.page import TrainingPage

    page = TrainingPage(Path(run), Path(report))
    return lambda iteration, last, _: page(iteration, last)


def all_told(*listeners: "OnStep") -> "OnStep":
    """One listener that hands on to all."""

    def tell(iteration: int, last: int, measures: "Metrics") -> None:
        for listener in listeners:
            listener(iteration, last, measures)

    return tell


def grades(model: "Model", run: str) -> "dict[str, float | None] | None":
    """How good samples of a texture are, measured once and said; None for other models."""
    from gcn_cli.runs.grades import in_words, rounded, save_grades, saved_grades

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
    final: "JsonResult | None",
) -> None:
    """A run for every picture; paths of those that are done to stdout."""
    from gcn_cli.cli.each import Jobs, as_data, planned, report, words_for_each
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


_PRESET_HELP = "published settings. " + "; ".join(
    f"{name}: {note}" for name, note in PRESET_NOTES.items()
)


@click.command("train", cls=WordsKept)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o", "--output", metavar="RUN", help="run folder  [default: runs/<stem of the first SOURCE>]"
)
@linked_option
@click.option(
    "--mask", metavar="MASK", help="a picture of SOURCE's size, white where nothing is learned"
)
@click.option(
    "--alpha",
    type=click.Choice(["auto", "mask", "channel", "drop"]),
    default="auto",
    show_default=True,
    help="transparency: mask, holes of which nothing is learned; channel, learned like a color; "
    "drop, laid on white; auto says which it takes",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help=_PRESET_HELP)
@click.option("--config", "config_file", metavar="FILE", help="TOML file of config values")
@click.option(
    "--max-time",
    type=Duration(),
    help="90s, 5m, 1.5h: a ladder is planned to be whole by then, unless --iterations are given; "
    "what is not is saved, to go on",
)
@click.option(
    "--extend",
    type=More(),
    help="learn more in a finished run: so many iterations, or as many as a time allows; of a "
    "ladder the rates rise and fall again, and the likelihood has its part again",
)
@click.option(
    "--preview-every",
    type=click.IntRange(min=0),
    help="iterations between previews of the samples; 0 writes none  [default: ten a run]",
)
@click.option(
    "--save-every",
    type=Duration(),
    default=60.0,
    help="time between checkpoints  [default: 60s]",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never", "must"]),
    default="auto",
    show_default=True,
    help="go on with a run that is there; never: refuse to; must: refuse to begin a new one",
)
@click.option(
    "--each",
    is_flag=True,
    help="a run for every picture, in the folder that -o names; a bad one does not stop the others",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="trainings side by side with --each; they share cores and GPUs  [default: 1]",
)
@click.option(
    "--report",
    metavar="FOLDER",
    help="a page of the training, index.html, written anew as it runs; whole when it is complete",
)
@click.option(
    "--tensorboard",
    is_flag=True,
    help="event files too, in RUN/tensorboard; needs gcn-cli[tensorboard]",
)
@overwrite_option
@dry_run_option
@output_options
@machine_options
@config_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    output: str | None,
    linked: tuple[str, ...],
    mask: str | None,
    alpha: "Alpha",
    preset: str | None,
    config_file: str | None,
    max_time: float | None,
    extend: tuple[int | None, float | None] | None,
    preview_every: int | None,
    save_every: float,
    resume: "Resume",
    each: bool,
    jobs: int | None,
    report: str | None,
    tensorboard: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
    **options: Any,
) -> None:
    """Learn from SOURCE: one picture, several pictures of one texture, a folder, or - for stdin.

    The same command again goes on where a run stopped. What --config and the options leave out
    comes from the preset, then from the defaults below.

    \b
    gcn train texture.jpg
    gcn train texture.jpg --preset quick -o runs/draft
    gcn train albedo.png --with normal.png --with roughness.png -o runs/bark
    gcn train photo.png --mask scratches.png
    gcn train faces/ --preset object --size 64
    gcn train texture.jpg --preset paper-texture --max-time 5m
    gcn train texture.jpg --extend 2m
    gcn train --each textures/ -o runs --jobs 2
    torchrun --nproc-per-node 2 -m gcn_cli train faces/ --preset object
    """
    pass
    from gcn_cli.cli.console import JsonResult, Progress, as_lines, machine, say
    from gcn_cli.model import expect, train
    from gcn_cli.runs.folder import refuse_inside, run_for
    from gcn_cli.runtime import StopRequest, choose_device, set_threads
    from gcn_cli.training.distributed import join_group

    refuse_contradictions(each, jobs, dry_run, report, overwrite, resume, extend, max_time)
    final = JsonResult("train")
    if each:
        if linked or mask is not None:
            raise click.UsageError("--each: --with and --mask go with one picture; leave them out")
        train_each(ctx, sources, output, jobs or 1, final if as_json else None)
        return
    more, more_time = extend or (None, None)
    set_threads(threads)
    run = output or str(run_for(list(sources)))
    refuse_inside(sources, run)
    asked: dict[str, Any] = {
        "linked": linked,
        "mask": mask,
        "alpha": alpha,
        "preset": preset,
        "config": config_file,
        "output": run,
        "overwrite": overwrite,
        "resume": resume,
        "extend": more,
        "extend_time": more_time,
        "device": device,
        "precision": precision,
        **given_config(options),
    }
    if dry_run:
        expected = expect(list(sources), **asked)
        if as_json:
            final.show(run=run, dry_run=True, **expected)
        else:
            known = {name: value for name, value in expected.items() if value is not None}
            click.echo(as_lines({"run": run, **known}))
        return
    stop = StopRequest()
    told = [progress_page(run, report)] if report is not None and is_main_process() else []
    with (
        join_group(lambda: choose_device(device)) as ranks,
        stop.listening(),
        Progress("train") as progress,
    ):
        model = train(
            list(sources),
            **asked,
            max_time=max_time,
            preview_every=preview_every,
            save_every=save_every,
            tensorboard=tensorboard,
            on_step=all_told(progress.update, *told),
            should_stop=stop,
        )
    if stop.signal is not None and not model.complete:
        message = f"{stop.signal.name} after iteration {progress.done}; saved"
        if stop.signal.name == "SIGINT":
            say(message)
            raise KeyboardInterrupt
        raise InterruptedRunError(f"{message}, the same command goes on")
    if report is not None and ranks.first and model.complete:
        from gcn_cli.report.page import write_report

        write_report(model, Path(report))
    graded = grades(model, run) if ranks.first and model.complete else None
    if ranks.first and as_json:
        final.show(run=run, **model.summary(), quality=graded, **machine(model.device, model.dtype))
    elif ranks.first:
        click.echo(run)
