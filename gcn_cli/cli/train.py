"""gcn train: pictures in, a run folder out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.options import (
    config_options,
    dry_run_option,
    given_config,
    linked_option,
    machine_options,
    output_options,
    overwrite_option,
)
from gcn_cli.cli.param_types import Duration, More
from gcn_cli.cli.words import WordsKept
from gcn_cli.errors import InterruptedRunError
from gcn_cli.launcher import speaks
from gcn_cli.presets import PRESET_NOTES, PRESETS

if TYPE_CHECKING:
    from gcn_cli.runs.observed import Alpha
    from gcn_cli.runs.starting import Resume

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
    help="transparency: mask, holes of which nothing is learned; channel, learned like a colour; "
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
    from gcn_cli.cli.alongside import (
        all_told,
        grades,
        progress_page,
        refuse_contradictions,
        train_each,
    )
    from gcn_cli.cli.console import Progress, say
    from gcn_cli.cli.output import Final, as_lines, machine
    from gcn_cli.ranks import joined
    from gcn_cli.runs.folder import refuse_inside, run_for
    from gcn_cli.runs.library import expect, train
    from gcn_cli.runtime import StopRequest, choose_device, set_threads

    refuse_contradictions(each, jobs, dry_run, report, overwrite, resume, extend, max_time)
    final = Final("train")
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
    told = [progress_page(run, report)] if report is not None and speaks() else []
    with (
        joined(lambda: choose_device(device)) as ranks,
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
