"""A model in a few lines for a person: what it is, how far, how good, and what to do next.

gcn inspect: a preset, a model, or what a model makes of a picture.
"""

import io
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gcn_cli.cli.options import model_option, output_options, overwrite_option
from gcn_cli.config import to_json
from gcn_cli.presets import PRESETS

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.cli.console import JsonResult
    from gcn_cli.model import Model

log = logging.getLogger(__name__)

WIDTH = 88


def summary(facts: dict[str, Any], run: Path, grades: dict[str, float | None] | None) -> str:
    """The summary of what `Model.describe` says of the model in a run's folder."""
    config, layers = facts["config"], facts["layers"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, words in (
        ("learned by", f"{config['learner']}{_cut(config)}, seed {config['seed']}"),
        ("pictures", ", ".join(facts["maps"]) + _periods(facts["periods"])),
        ("network", f"{len(layers)} layers{_resolutions(facts)}, {facts['parameters']:,} "
                    f"parameters, looks at {facts['looks_at']} pixels"),
        ("state", _state(facts)),
        ("quality", _quality(grades)),
        ("next", _next(facts, run, grades)),
    ):  # fmt: skip
        grid.add_row(name, Text(words))
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(Text(str(run), style="bold"))
    console.print(Padding(grid, (0, 0, 0, 2)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def _resolutions(facts: dict[str, Any]) -> str:
    found = [one["resolution"] for one in facts["octaves"]]
    return f" at {', '.join(found)} of the resolution" if len(found) > 1 else ""


def _cut(config: dict[str, Any]) -> str:
    crop = config.get("crop")
    return f" from crops of {crop}" if crop else " from whole pictures"


def _periods(periods: dict[str, float | None]) -> str:
    found = [f"every {value:g} pixels {way}" for way, value in periods.items() if value]
    return f"; regular, {' and '.join(found)}" if found else ""


def _state(facts: dict[str, Any]) -> str:
    done, last = facts["iteration"], facts["total_iterations"]
    how = "complete" if done >= last else f"iteration {done} of {last}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["written"]))
    return f"{how}, {done} iterations in {facts['seconds']:.0f} s, written {when}"


def _quality(grades: dict[str, float | None] | None) -> str:
    if grades is None:
        return "not measured (a texture's training measures it when it is complete)"
    from gcn_cli.runs.grades import in_words

    return in_words(grades).removeprefix("quality ")


def _next(facts: dict[str, Any], run: Path, grades: dict[str, float | None] | None) -> str:
    from gcn_cli.runs.grades import ROUGH

    if facts["iteration"] < facts["total_iterations"]:
        return "the training command again goes on where it stopped"
    known = grades or {}
    if (known.get("copied") or 0) > 0.05:
        return "it learned by heart: fewer --iterations, or more pictures of the texture"
    if (known.get("quality") or 0) >= ROUGH:
        return "more or larger pictures of the texture; --preset default where another was taken"
    return f"gcn synthesize --model {run} --size 1024; gcn inspect --model {run} --report page"


def tables(facts: dict[str, Any], *, details: bool) -> str:
    """What there is of every level; with `details` all settings, layers, some of the history."""
    console = Console(file=io.StringIO(), width=100)
    if details:
        settings = Table("setting", "value", title="config")
        for name, value in facts["config"].items():
            settings.add_row(name, str(value))
        console.print(settings)
    for key in ("layers", "octaves", "history", "levels") if details else ("levels",):
        rows = facts.get(key)
        if not rows:
            continue
        table = Table(*rows[0], title=key)
        for row in rows:
            table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


@click.command("inspect")
@model_option
@click.option("--preset", type=click.Choice(list(PRESETS)), help="print a preset as a config file")
@click.option("--picture", metavar="IMAGE", help="score, energy and open gates of a picture")
@click.option(
    "--level",
    type=click.FloatRange(min=0, min_open=True),
    help="noise level of a ladder at which --picture is judged  [default: 1]",
)
@click.option("--filters", metavar="FILE", help="write the first layer's filters as a picture")
@click.option(
    "--at",
    metavar="X,Y",
    help="a pixel of --picture: --filters are then those of all layers, as the gates there make "
    "them, strongest first",
)
@click.option(
    "--map",
    "map_",
    metavar="FILE",
    help="write where --picture is unlike what was learned, as a picture: dark is usual, bright is "
    "8 deviations of the exemplar's own energy or more",
)
@click.option(
    "--compare",
    metavar="RUN",
    multiple=True,
    help="which of these models made --picture? once for each; ladders of textures",
)
@click.option(
    "--levels",
    is_flag=True,
    help="is the denoiser sound at every level of noise, and are chains as decided there as data?",
)
@click.option("--details", is_flag=True, help="all settings, layers and measures too")
@click.option(
    "--report",
    metavar="FOLDER",
    help="write a page of the model, index.html: samples, curves, filters, maps of --picture",
)
@overwrite_option
@output_options
def command(
    model: str | None,
    preset: str | None,
    picture: str | None,
    level: float | None,
    filters: str | None,
    at: str | None,
    map_: str | None,
    compare: tuple[str, ...],
    levels: bool,
    details: bool,
    report: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Show the newest run, or --model: what it is, how good, what to do next.

    \b
    gcn inspect --preset paper-object > my.toml
    gcn inspect --picture other.jpg --filters filters.png
    gcn inspect --picture other.jpg --map unusual.png
    gcn inspect --picture other.jpg --at 120,80 --filters there.png
    gcn inspect --report page
    gcn inspect --compare runs/moss --compare runs/bark --picture crop.png
    """
    if preset is not None:
        values = to_json(PRESETS[preset])
        click.echo(json.dumps(values, indent=1) if as_json else _toml(values))
        return
    if level is not None and picture is None:
        raise click.UsageError("--level: says where --picture is judged; give both")
    if map_ is not None and picture is None:
        raise click.UsageError("--map: is of a --picture; give both")
    if at is not None and (picture is None or filters is None):
        raise click.UsageError("--at: is a pixel of a --picture whose --filters are written")
    place = None if at is None else _pixel(at)
    if compare:
        _refuse_beside_compare(
            {"--model": model, "--level": level, "--filters": filters, "--map": map_}
            | {"--details": details or None, "--report": report, "--levels": levels or None}
        )
        _compare(compare, picture, as_json=as_json)
        return
    from gcn_cli.cli.console import JsonResult
    from gcn_cli.images import write
    from gcn_cli.model import load
    from gcn_cli.runs.folder import refuse_existing

    page = None if report is None else Path(report) / "index.html"
    for path in (filters, map_, page):
        if path not in (None, "-"):
            refuse_existing(Path(path), overwrite)
    final = JsonResult("inspect")
    loaded = load(model, device="cpu")
    facts = loaded.describe() | _levels(loaded, asked=levels)
    if picture is not None:
        facts["picture"] = loaded.judge(picture, level)
        if map_ is not None:
            facts["picture"] |= _unusual(loaded, picture, level, map_)
    if filters is not None:
        write(_filters(loaded, picture, level, place), filters)
    if page is not None:
        from gcn_cli.report.page import write_report

        facts["report"] = str(write_report(loaded, page.parent, picture))
    if "-" not in (filters, map_):
        _tell(loaded, facts, final if as_json else None, details=details)


def _tell(
    loaded: "Model", facts: dict[str, Any], final: "JsonResult | None", *, details: bool
) -> None:
    """What there is to say, on stdout: as one object, the page's path, or for a person."""
    pass

    if final is not None:
        trained = {"seconds_trained": facts.pop("seconds")}
        final.show(model=str(loaded.path), **facts, **trained)
    elif "report" in facts:
        click.echo(facts["report"])
    else:
        click.echo(_shown(loaded, facts))
        if details or "levels" in facts:
            click.echo(tables(facts, details=details))


def _pixel(at: str) -> tuple[int, int]:
    """X,Y as numbers."""
    parts = at.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise click.UsageError(f"--at {at}: must be X,Y in pixels from the upper left, as 120,80")
    return int(parts[0]), int(parts[1])


def _filters(
    loaded: "Model", picture: str | None, level: float | None, place: tuple[int, int] | None
) -> "Tensor":
    """The first layer's filters; with a place, those that all layers are there."""
    if picture is None or place is None:
        return loaded.filters()
    from gcn_cli.report.figures import filters_at

    return filters_at(loaded, picture, place, level)


def _unusual(loaded: "Model", picture: str, level: float | None, path: str) -> dict[str, Any]:
    """Write the map; what there is to say of it."""
    from gcn_cli.images import write
    from gcn_cli.report.figures import heat

    found = loaded.unusual(picture, level)
    write(heat(found.deviations, (0.0, 8.0)), path)
    return {
        "unusual_share": round(found.share, 4),
        "most_unusual": round(found.most, 2),
        "most_unusual_at": list(found.place),
    }


def _levels(loaded: "Model", *, asked: bool) -> dict[str, list[dict[str, float]]]:
    """What there is to say of every level, where it is asked for; where D is none, at once."""
    if not asked:
        return {}
    from gcn_cli.analysis import unsound

    found = loaded.by_level()
    wrong = unsound(found)
    if wrong is not None:
        log.warning(
            "unsound: at noise of %.3g the denoiser errs by %.2f of the variance, more than with "
            "more noise or without a look; lower --likelihood, of several ladders --octave-layers",
            wrong.noise,
            wrong.error,
        )
    return {"levels": [one._asdict() for one in found]}


def _refuse_beside_compare(options: Mapping[str, object]) -> None:
    """What is not None of them is of one model."""
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"{name}: is of one model, --compare of several; leave it out")


def _compare(runs: tuple[str, ...], picture: str | None, *, as_json: bool) -> None:
    """The posterior of every model, most likely first."""
    if picture is None or len(runs) < 2:
        raise click.UsageError("--compare: name two runs or more, and a --picture")
    from gcn_cli.cli.console import JsonResult
    from gcn_cli.model import compare

    final = JsonResult("inspect")
    found = zip(runs, compare(runs, picture), strict=True)
    verdicts = sorted(found, key=lambda one: -one[1].log_ratio)
    if as_json:
        rows = [{"run": run, **vars(verdict)} for run, verdict in verdicts]
        final.show(picture=picture, compared=rows)
        return
    for run, verdict in verdicts:
        click.echo(f"{run}  posterior {verdict.posterior:.4g}  log ratio {verdict.log_ratio:.1f}")


def _shown(loaded: "Model", facts: dict[str, Any]) -> str:
    """The summary, and what a picture is in the model's eyes."""
    pass
    from gcn_cli.runs.grades import saved_grades

    assert loaded.path is not None
    assert loaded.run is not None
    written = {"written": loaded.path.stat().st_mtime}
    lines = [summary(facts | written, loaded.run, saved_grades(loaded.run, facts["iteration"]))]
    lines += [f"  {name}: {value}" for name, value in facts.get("picture", {}).items()]
    return "\n".join(lines)


def _toml(values: dict[str, Any]) -> str:
    """The values as lines of TOML that --config takes back."""
    # What is unset has a written form of its own: "own" for the mean color, 0 elsewhere; of
    # iterations none, they are left out.
    unset = {"mean_color": "own", "iterations": None}
    filled = {key: unset.get(key, 0) if v is None else v for key, v in values.items()}
    written = {key: value for key, value in filled.items() if value is not None}
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in written.items())
