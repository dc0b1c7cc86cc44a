"""gcn inspect: a model, a preset, or an image as a model sees it."""

import io
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.console import JsonResult, Progress, notice
from gcn_cli.cli.options import (
    KINDS,
    Choice,
    GroupedCommand,
    combined,
    device_option,
    grouped,
    model_option,
    output_options,
    overwrite_option,
    threads_option,
)
from gcn_cli.config import CASCADE_SIDE, LEARNERS_IN_WORDS, setting_text, to_json
from gcn_cli.errors import InputError
from gcn_cli.presets import PRESETS, to_toml
from gcn_cli.strict_json import dumps

if TYPE_CHECKING:
    from gcn_cli.model import Model

log = logging.getLogger(__name__)

WIDTH = 88  # characters of the summary
ANOMALY_RANGE = (0.0, 8.0)  # deviations that are dark and bright in an anomaly map
SUBCOMMANDS = ("image", "filters", "report", "levels", "compare")


# Without --device on the CPU, where results are those of other runs.
hardware_options = combined(device_option("cpu"), threads_option)


class InspectGroup(GroupedCommand, click.Group):
    """The group `gcn inspect`; in place of a subcommand it takes a run, an image or a folder."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in SUBCOMMANDS or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        similar = get_close_matches(name, SUBCOMMANDS, 1)
        if similar and not Path(name).exists() and not Path("runs", name).exists():
            ctx.fail(f"No such command '{name}'; did you mean gcn inspect {similar[0]}?")
        return "target", target_command, args


@click.group("inspect", cls=InspectGroup, invoke_without_command=True)
@model_option
@grouped(
    "Input",
    "--preset",
    type=Choice(PRESETS),
    metavar="NAME",
    help="Print the settings of a preset as a TOML file for train --config.",
)
@grouped("Output format", "--details", is_flag=True, help="Add settings, layers and history.")
@output_options
@hardware_options
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    preset: str | None,
    details: bool,
    as_json: bool,
    device: str,
    threads: int | None,
) -> None:
    """Describe a run, or an image that gcn made; without either, list the runs.

    A run is described by its settings, its quality, and what to do next.

    \b
    gcn inspect
    gcn inspect runs/texture
    gcn inspect texture --details
    gcn inspect --preset paper-object > my.toml
    gcn inspect image other.jpg --unusual unusual.png
    gcn inspect compare crop.png runs/moss runs/bark
    gcn inspect report page
    gcn inspect sample.png
    """
    result = JsonResult("inspect")
    if ctx.invoked_subcommand is not None:
        # Options before the subcommand hold for it too.
        shared = {"model": model, "as_json": as_json, "device": device, "threads": threads}
        ctx.default_map = dict.fromkeys(SUBCOMMANDS, shared)
        ctx.default_map["target"] = {**shared, "details": details}
        return
    if preset is not None:
        config = PRESETS[preset]
        click.echo(dumps(to_json(config), indent=1) if as_json else to_toml(config))
        return
    if model is None and not details:
        _list_runs(result, Path("runs"), as_json=as_json)
    else:
        loaded = _load(model, device, threads)
        _describe(result, loaded, details=details, as_json=as_json)


def _describe(result: JsonResult, loaded: "Model", *, details: bool, as_json: bool) -> None:
    """Print the facts of a model."""
    facts = loaded.describe()
    if as_json:
        seconds = facts.pop("seconds")
        result.show(model=str(loaded.path), **facts, seconds_trained=seconds)
        return
    click.echo(summary(loaded, facts))
    if details:
        for name in ("layers", "stages", "history"):
            click.echo(as_table(name, facts[name]))
        settings = [
            {"setting": name, "value": setting_text(name, value)}
            for name, value in facts["config"].items()
        ]
        click.echo(as_table("settings", settings))


def _list_runs(result: JsonResult, folder: Path, *, as_json: bool) -> None:
    """Print the runs in a folder. Raises InputError if there are none."""
    from gcn_cli.runs.record import list_runs

    runs = list_runs(folder)
    if not runs:
        raise InputError(f"no runs under {folder}/; train one with 'gcn train IMAGE'")
    if as_json:
        result.show(runs=runs)
        return
    rows = []
    for run in runs:
        row = {"run": run["run"], "source": run.get("message", ""), "written": run["written"]}
        if "iteration" in run:
            names, complete = run["sources"], run["iteration"] >= run["iterations"]
            row["source"] = ", ".join(names[:2]) + ", ..." * (len(names) > 2)
            row["size"] = f"{run['width']}x{run['height']}"
            row["state"] = "" if complete else f"{run['iteration']} of {run['iterations']}"
            if run["verdict"] is not None:
                row["quality"] = f"{run['quality']:.2f} {run['verdict']}"
        columns = ("run", "source", "written", "size", "state", "quality")
        rows.append({name: row.get(name, "") for name in columns})
    click.echo(as_table("", rows))


@click.command("target", cls=GroupedCommand)
@click.argument("target")
@model_option
@grouped("Output format", "--details", is_flag=True, help="Add settings, layers and history.")
@output_options
@hardware_options
def target_command(
    target: str, model: str | None, details: bool, as_json: bool, device: str, threads: int | None
) -> None:
    """Describe TARGET: a run, an image that gcn made, or a folder of runs."""
    from gcn_cli.runs.folder import MODEL_FILE

    result, path = JsonResult("inspect"), Path(target)
    if model is not None:
        raise InputError(f"--model {model}, {target}: give one of them")
    if path.is_file() and path.suffix != ".safetensors":
        _print_record(result, target, as_json=as_json)
    elif path.is_dir() and not (path / MODEL_FILE).exists() and any(path.glob(f"*/{MODEL_FILE}")):
        _list_runs(result, path, as_json=as_json)
    else:
        loaded = _load(target, device, threads)
        _describe(result, loaded, details=details, as_json=as_json)


def _print_record(result: JsonResult, image: str, *, as_json: bool) -> None:
    """Print how an image was made. Raises InputError for an image that does not hold it."""
    from gcn_cli.images import read_record

    record = read_record(image)
    if record is None:
        raise InputError(
            f"{image}: does not hold how it was made; gcn inspect image {image} prints how a model "
            "sees it"
        )
    if as_json:
        result.show(image=image, record=record)
    else:
        click.echo("\n".join(_record_lines(record)))


def _record_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """A record for a person. Files may hold any text: control characters are escaped."""
    for name, value in record.items():
        for part in value if isinstance(value, list) else [value]:
            text = str(part)
            if isinstance(part, dict):
                text = ", ".join(f"{key} {entry}" for key, entry in part.items()) or "default"
            line = f"{name.replace('_', ' ')}: {text}"
            yield "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@command.command("image", cls=GroupedCommand)
@click.argument("image")
@model_option
@grouped(
    "Input",
    "--noise-level",
    type=float,
    metavar="X",
    help="Noise level of the density, in standard deviations of the training image.  [default: 1]",
)
@grouped("Input", "--at", type=KINDS["point"], help="A pixel of IMAGE, for --filters.")
@grouped(
    "Output",
    "--filters",
    metavar="FILE",
    help="Write the linear filters of the strongest units of all layers at the pixel --at.",
)
@grouped(
    "Output",
    "--unusual",
    "map_file",
    metavar="FILE",
    help="Write a map of unusual parts: bright is 8 deviations of the energy of the exemplar.",
)
@overwrite_option
@output_options
@hardware_options
def image_command(
    image: str,
    model: str | None,
    noise_level: float | None,
    at: tuple[int, int] | None,
    filters: str | None,
    map_file: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    threads: int | None,
) -> None:
    """Print the score and energy of IMAGE, or of a folder of linked maps; map its unusual parts.

    Prints the share of open gates in every layer too.

    \b
    gcn inspect image other.jpg --unusual unusual.png
    gcn inspect image other.jpg --at 120,80 --filters there.png
    """
    if (at is None) != (filters is None):
        raise click.UsageError("--at, --filters: give both, a pixel and the file for its filters")
    _check_files(filters, map_file, overwrite=overwrite, as_json=as_json)
    from gcn_cli.images import write
    from gcn_cli.inputs import linked_images
    from gcn_cli.report.figures import filters_at, heat_map

    result, loaded = JsonResult("inspect"), _load(model, device, threads)
    files = [file for file in (filters, map_file) if file is not None]
    with notice(f"analyzing {image} ..."):
        opened = linked_images((image,), loaded.maps)
        facts = loaded.image_facts(opened, noise_level)
        facts |= {"files": files} if files else {}
        if map_file is not None:
            anomaly = loaded.anomaly_map(opened, noise_level)
            write(heat_map(anomaly.deviations, ANOMALY_RANGE), map_file, new=not overwrite)
            facts |= {
                "unusual_share": round(anomaly.share, 4),
                "most_unusual": round(anomaly.most, 2),
                "most_unusual_at": list(anomaly.place),
            }
        if at is not None and filters is not None:
            write(filters_at(loaded, opened, at, noise_level), filters, new=not overwrite)
    if "-" in (filters, map_file):
        return
    if as_json:
        result.show(model=str(loaded.path), image=facts)
        return
    facts.pop("files", None)
    click.echo("\n".join([*(f"{name}: {value}" for name, value in facts.items()), *files]))


@command.command("filters", cls=GroupedCommand)
@click.argument("file")
@model_option
@overwrite_option
@output_options
def filters_command(file: str, model: str | None, overwrite: bool, as_json: bool) -> None:
    """Write the filters of the first layer to an image FILE."""
    _check_files(file, overwrite=overwrite, as_json=as_json)
    from gcn_cli.images import write

    result, loaded = JsonResult("inspect"), _load(model)
    write(loaded.filters(kind="torch"), file, new=not overwrite)
    _print_file(result, loaded, "filters", file, as_json=as_json)


@command.command("report", cls=GroupedCommand)
@click.argument("folder")
@model_option
@grouped("Input", "--image", type=KINDS["input"], help="Image to analyze.  [default: the exemplar]")
@overwrite_option
@output_options
@hardware_options
def report_command(
    folder: str,
    model: str | None,
    image: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    threads: int | None,
) -> None:
    """Write a page, FOLDER/index.html.

    It shows the verdict, a sample beside the exemplar, training curves, and the inside of the
    model.
    """
    from gcn_cli.inputs import linked_images
    from gcn_cli.report.page import write_report
    from gcn_cli.runs.folder import refuse_existing

    refuse_existing(Path(folder) / "index.html", overwrite)

    result, loaded = JsonResult("inspect"), _load(model, device, threads)
    opened = None if image is None else linked_images((image,), loaded.maps)
    typed = shlex.join(["gcn", *sys.argv[1:]])
    with Progress("writing the report", stays=False) as progress:
        page = write_report(
            loaded, Path(folder), opened, new=not overwrite, command=typed, on_step=progress.update
        )
    _print_file(result, loaded, "report", str(page), as_json=as_json)


@command.command("levels", cls=GroupedCommand)
@model_option
@output_options
@hardware_options
def levels_command(model: str | None, as_json: bool, device: str, threads: int | None) -> None:
    """Check the denoiser at every noise level.

    A table of its error, and of its variance on noisy data and on chains, in variances of the data.
    In a sound model the error grows with the noise, to at most 1. A variance on chains below that
    on data means blur; above it, too much contrast.
    """
    from gcn_cli.analysis import unsound_level

    result, loaded = JsonResult("inspect"), _load(model, device, threads)
    with Progress("checking levels", stays=False) as progress:
        reports = loaded.level_reports(progress.update)
    unsound = unsound_level(reports)
    if unsound is not None:
        log.warning(
            "unsound: at noise level %.3g the error of the denoiser is %.2f, above its bound; "
            "train again with a lower --set likelihood_weight, or --set stage_layers of a cascade",
            unsound.noise,
            unsound.error,
        )
    rows = [report._asdict() for report in reports]
    if as_json:
        result.show(model=str(loaded.path), levels=rows)
    else:
        click.echo(as_table("levels", rows))


@command.command("compare", cls=GroupedCommand)
@click.argument("image")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@output_options
@hardware_options
def compare_command(
    image: str, runs: tuple[str, ...], as_json: bool, device: str, threads: int | None
) -> None:
    """Tell which of several models generated IMAGE.

    Prints the posterior probability of every RUN, the most likely first. For models of textures.
    """
    if len(runs) < 2:
        raise click.UsageError("compare: needs two runs or more")
    from gcn_cli.api import compare
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    result = JsonResult("inspect")
    with notice(f"comparing {len(runs)} models on {image} ..."):
        compared = list(zip(runs, compare(runs, image, device=device), strict=True))
    compared.sort(key=lambda entry: -entry[1].log_ratio)
    if as_json:
        rows = [{"run": run, **vars(comparison)} for run, comparison in compared]
        result.show(image=image, compared=rows)
        return
    for run, comparison in compared:
        probability, ratio = comparison.posterior, comparison.log_ratio
        click.echo(f"{run}  posterior {probability:.4g}  log ratio {ratio:.1f}")


def _load(run: str | None, device: str = "cpu", threads: int | None = None) -> "Model":
    from gcn_cli.model import load
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    return load(run, device=device)


def _check_files(*files: str | None, overwrite: bool, as_json: bool) -> None:
    """Raise InputError if an image file exists, is given twice, or is of no format written."""
    from gcn_cli.images import check_format
    from gcn_cli.runs.folder import refuse_existing

    if as_json and "-" in files:
        raise InputError("--json, -: both print to stdout; name a file")
    names = [os.path.realpath(file) for file in files if file is not None]
    if len(set(names)) < len(names):
        raise InputError(f"{files[0]}: is given twice; name a file for each result")
    for file in files:
        if file not in (None, "-"):
            check_format(file)
            refuse_existing(Path(file), overwrite)


def _print_file(result: JsonResult, loaded: "Model", key: str, file: str, *, as_json: bool) -> None:
    """Print the path of the file written, unless the file went to stdout."""
    if as_json and file != "-":
        result.show(model=str(loaded.path), **{key: file})
    elif file != "-":
        click.echo(file)


def summary(model: "Model", facts: dict[str, Any]) -> str:
    """A model in a few lines; `facts` are those of `Model.describe`."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from gcn_cli.runs.grades import in_words, saved_grades

    assert model.path is not None
    assert model.run is not None
    config, done = facts["config"], facts["iteration"]
    quality = saved_grades(model.run, done)
    crop = config.get("crop")
    resolutions = [stage["resolution"] for stage in facts["stages"]]
    cascade = f" at {', '.join(resolutions)} of the resolution" if len(resolutions) > 1 else ""
    vectors = " and ".join(f"({across:g}, {down:g})" for across, down in facts["pattern"])
    regular = f"; regular, repeats every {vectors} pixels" if vectors else ""
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.path.stat().st_mtime))
    state = "complete" if model.complete else f"iteration {done} of {facts['total_iterations']}"
    rows = {
        "trained by": f"{LEARNERS_IN_WORDS[config['learner']]} from "
        f"{f'crops of {crop} pixels' if crop else 'whole images'}, seed {config['seed']}",
        "images": ", ".join(facts["maps"]) + regular,
        "network": f"{len(facts['layers'])} layers{cascade}, {facts['parameters']:,} parameters, "
        f"receptive field {facts['receptive_field']} pixels",
        "state": f"{state}, {done} iterations in {facts['seconds']:.0f} s, written {written}",
        "quality": "not measured (complete trainings of a texture measure it)"
        if quality is None
        else in_words(quality, model.run).removeprefix("quality: "),
        "next": advice(model, quality),
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(name, Text(text))
    return _render(Text(str(model.run), style="bold"), Padding(grid, (0, 0, 0, 2)), width=WIDTH)


def advice(model: "Model", grades: dict[str, Any] | None) -> str:
    """The next step for a person."""
    from gcn_cli.metrics.verdict import COPIED, FAR, ROUGH

    if not model.complete:
        return "run the training command again to resume"
    if grades is not None and (grades.get("copied") or 0) > COPIED:
        return "it copies the exemplar: fewer --iterations, or more images of the texture"
    if grades is not None and grades["verdict"] in (FAR, ROUGH):
        return _better_training(model)
    run, size = shlex.quote(str(model.run)), "" if model.config.head else " --size 1024"
    return f"gcn synthesize {run}{size}; gcn inspect report page --model {run}"


def _better_training(model: "Model") -> str:
    """The command of a training that may reach a better verdict."""
    from gcn_cli.runs.grades import training_state

    config, preset = model.config, model.checkpoint.asked.get("preset")
    command = f"gcn train SOURCE -o {shlex.quote(str(model.run))} --overwrite"
    if training_state(model.checkpoint) == "unstable":
        slowed, names = config.slowed(), config.halved_after_divergence
        return " ".join([command, *(f"--set {name}={getattr(slowed, name):g}" for name in names)])
    if preset == "quick" or config.iteration_count < config.default_iterations:
        return f"{command}, the whole default training"
    if preset != "best" and min(model.size) >= CASCADE_SIDE:
        return f"{command} --preset best"
    return "gcn train SOURCE SOURCE ..., with more or larger images of the texture"


def as_table(title: str, rows: list[dict[str, Any]]) -> str:
    """Rows of plain values as a table."""
    if not rows:
        return ""
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], title=title or None)
    for row in rows:
        texts = (f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*map(Text, texts))  # names of files may look like markup
    return _render(table, width=100)


def _render(*parts: Any, width: int) -> str:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
