"""gcn train: images in, a run folder out."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.console import print_result
from gcn_cli.cli.options import (
    KINDS,
    GroupedCommand,
    collect,
    dry_run_option,
    grouped,
    hardware_options,
    merge_settings,
    options_of,
    output_options,
    set_option,
    setting_option,
)
from gcn_cli.config import OWN_OPTIONS, setting_text
from gcn_cli.errors import InterruptedRunError
from gcn_cli.options import TrainOptions
from gcn_cli.presets import PRESET_NOTES
from gcn_cli.torchrun import is_main_process

if TYPE_CHECKING:
    from gcn_cli.model import Model
    from gcn_cli.report.page import TrainingPage
    from gcn_cli.signals import StopRequest

log = logging.getLogger(__name__)

PRESETS_EPILOG = "\b\nPresets:\n" + "\n".join(
    f"  {name:<18} {note}" for name, note in PRESET_NOTES.items()
)
COMPLETE = "the model is complete and saved; run the same command again to measure its quality"


@click.command("train", cls=GroupedCommand, epilog=PRESETS_EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@setting_option("size", "Input")
@options_of(TrainOptions)
@setting_option("pattern", "Input")
@setting_option("flips", "Input")
@setting_option("rotations", "Input")
@setting_option("normals", "Input")
@setting_option("iterations", "Training")
@setting_option("batch_size", "Training")
@setting_option("seed", "Training")
@set_option("Change any other setting; gcn inspect --preset default lists them.")
@grouped(
    "Output",
    "--report",
    metavar="FOLDER",
    help="Write a page about the training, FOLDER/index.html.",
)
@grouped(
    "Output",
    "--each",
    is_flag=True,
    help="Train a separate model on each image, or on each folder in a folder of folders; -o is "
    "the parent folder of the runs.",
)
@grouped(
    "Output",
    "-j",
    "--jobs",
    type=KINDS["count"],
    help="With --each: trainings that run at the same time.  [default: 1]",
)
@dry_run_option
@hardware_options
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    assignments: tuple[tuple[str, str], ...],
    report: str | None,
    each: bool,
    jobs: int | None,
    dry_run: bool,
    threads: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a model on SOURCE: an image, several of one texture, or a folder; - is stdin.

    A folder holds images of one texture, or the maps of a material (albedo, normal, roughness).

    Run the same command again to resume an interrupted training. Options override --config, which
    overrides --preset.

    \b
    gcn train texture.jpg
    gcn train texture.jpg --preset quick -o runs/draft
    gcn train albedo.png --map normal.png --map roughness.png -o runs/bark
    gcn train photo.png --mask scratches.png
    gcn train facade.jpg --pattern 51,83.5
    gcn train faces/ --preset object --resize 64
    gcn train texture.jpg --set crop=96 --set likelihood_weight=4
    gcn train texture.jpg --extend 2m
    gcn train --each textures/ -o runs --jobs 2
    torchrun --nproc-per-node 2 -m gcn_cli train faces/ --preset object
    """
    extend, extend_time = given.pop("extend") or (None, None)
    settings = merge_settings(assignments, {name: given.pop(name) for name in OWN_OPTIONS})
    options = collect(
        TrainOptions, given, extend=extend, extend_time=extend_time, settings=settings
    )
    if jobs is not None and not each:
        raise click.UsageError("--jobs: is for --each; give both")
    if each:
        for flag, value in (
            ("--report", report),
            ("--dry-run", dry_run),
            ("--map", options.linked),
            ("--mask", options.mask),
        ):
            if value:
                raise click.UsageError(f"--each, {flag}: is for one image; leave one out")
        from gcn_cli.cli.each import train_each

        train_each(ctx, sources, options, jobs or 1, train_one, as_json=as_json)
        return
    from gcn_cli.runs.folder import check_run, default_run
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    run = options.output or str(default_run(sources))
    check_run(sources, run)
    options = replace(options, output=run)
    if dry_run:
        _print_forecast(sources, options, as_json=as_json)
    else:
        _train(sources, options, report, as_json=as_json)


def _print_forecast(sources: tuple[str, ...], options: TrainOptions, *, as_json: bool) -> None:
    from gcn_cli.api import forecast
    from gcn_cli.cli.console import JsonResult, as_lines

    result = JsonResult("train")
    expected = forecast(list(sources), **vars(options))
    if as_json:
        result.show(run=options.output, dry_run=True, **expected)
    else:
        config = expected.pop("config")
        settings = {name: setting_text(name, value) for name, value in config.items()}
        known = {name: value for name, value in expected.items() if value is not None}
        click.echo(as_lines({"run": options.output, "settings": settings, **known}))


def _train(
    sources: tuple[str, ...], options: TrainOptions, report: str | None, *, as_json: bool
) -> None:
    """Train, and print the run and the report."""
    from gcn_cli.cli.console import JsonResult, hardware_facts
    from gcn_cli.cli.inspect import advice

    result = JsonResult("train")
    model, quality = train_run(sources, options, report)
    if not is_main_process():
        return
    page = Path(report or "") / "index.html"
    written = {"report": str(page)} if report is not None and page.exists() else {}
    if as_json:
        facts = hardware_facts(model.device, model.dtype) | written
        result.show(run=options.output, **model.summary(), quality=quality, **facts)
    else:
        print_result("\n".join([options.output, *written.values()]))
        log.info("next: %s", advice(model, quality))


def train_run(
    sources: tuple[str, ...], options: TrainOptions, report: str | None = None
) -> tuple["Model", dict[str, float | None] | None]:
    """Train, write the report, and measure the quality, which is returned with the model.

    Raises InterruptedRunError or KeyboardInterrupt if a signal ended the training early.
    """
    from gcn_cli.report.page import TrainingPage, write_report
    from gcn_cli.runtime import choose_device
    from gcn_cli.signals import StopRequest, exit_on_signals
    from gcn_cli.training.distributed import join_group

    stop, page = StopRequest(), None
    if report is not None and is_main_process():
        page = TrainingPage(Path(options.output), Path(report))
    with join_group(lambda: choose_device(options.device)), stop.listening():
        model = _run_training(sources, options, stop, page)
    _leave_if_stopped(stop, model)
    if not is_main_process():
        return model, None
    with exit_on_signals(COMPLETE):
        if report is not None and model.complete:
            write_report(model, Path(report))
        return model, _measure_quality(model)


def train_one(image: str, options: TrainOptions, stop: "StopRequest") -> None:
    """Train on one of several images and measure the quality. Raises InterruptedRunError."""
    from gcn_cli.runs.folder import check_run

    check_run((image,), str(options.output))
    model = _run_training((image,), options, stop)
    _leave_if_stopped(stop, model)
    _measure_quality(model)


def _run_training(
    sources: tuple[str, ...],
    options: TrainOptions,
    stop: "StopRequest",
    page: "TrainingPage | None" = None,
) -> "Model":
    """Train with a progress bar, and a page, if given."""
    from gcn_cli.api import train
    from gcn_cli.cli.console import Progress

    with Progress("training", unit="iteration") as progress:

        def on_step(iteration: int, last: int, metrics: dict[str, float]) -> None:
            progress.update(iteration, last, metrics)
            if page is not None:
                page(iteration, last)

        return train(list(sources), **vars(options), on_step=on_step, should_stop=stop)


def _leave_if_stopped(stop: "StopRequest", model: "Model") -> None:
    """Raise InterruptedRunError, or KeyboardInterrupt, if a signal came during the training."""
    if stop.signal is None:
        return
    by_hand, checkpoint = stop.signal.name == "SIGINT", model.checkpoint
    message = "stopped" if by_hand else stop.signal.name
    if model.complete:
        message += f": {COMPLETE}"
    else:
        done, total = checkpoint.iteration, checkpoint.total_iterations
        message += (
            f" after iteration {done} of {total}; saved; run the same command again to resume"
        )
    raise KeyboardInterrupt(message) if by_hand else InterruptedRunError(message)


def _measure_quality(model: "Model") -> dict[str, Any] | None:
    """The grades of the run, logged; None if unfinished, and for models without texture metrics."""
    from gcn_cli.cli.console import Progress
    from gcn_cli.runs.grades import grade_run, in_words

    if model.run is None or not model.complete or not model.has_texture_metrics:
        return None
    with Progress("measuring quality", stays=False) as progress:
        grades = grade_run(model.checkpoint, model.run, model.dtype, progress.update)
    for line in in_words(grades, model.run).splitlines():
        log.info(line)
    return grades
