"""gcn inspect: a preset, a model, or what a model makes of a picture."""

import json
from typing import Any

import click

from gcn_cli.cli.options import json_option, model_option, overwrite_option
from gcn_cli.config import PRESETS, to_json


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
@overwrite_option
@json_option
def command(
    model: str | None,
    preset: str | None,
    picture: str | None,
    level: float | None,
    filters: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Show the newest run, or --model: config, layers, history.

    \b
    gcn inspect --preset paper-object > my.toml
    gcn inspect --picture other.jpg --filters filters.png
    """
    if preset is not None:
        values = to_json(PRESETS[preset])
        click.echo(json.dumps(values, indent=1) if as_json else _toml(values))
        return
    if level is not None and picture is None:
        raise click.UsageError("--level: says where --picture is judged; give both")
    from pathlib import Path

    import torch

    from gcn_cli import checkpoint, images
    from gcn_cli.cli import describing
    from gcn_cli.cli.reconstructing import model_at, read_for
    from gcn_cli.cli.runs import model_path, refuse_existing

    if filters is not None and filters != "-":
        refuse_existing(Path(filters), overwrite)
    loaded = checkpoint.load(model_path(model))
    facts = describing.describe(loaded)
    if picture is not None:
        here = model_at(loaded, level, torch.float32)
        facts["picture"] = describing.judge(loaded, here.model, read_for(loaded, picture))
    if filters is not None:
        images.write(describing.filter_sheet(loaded), filters)
    if filters != "-":
        click.echo(json.dumps(facts, indent=1) if as_json else describing.render(facts))


def _toml(values: dict[str, Any]) -> str:
    """The values as lines of TOML that --config takes back."""
    # What is unset has a written form of its own: "own" for the mean colour, 0 elsewhere.
    unset = {"mean_color": "own"}
    filled = {key: unset.get(key, 0) if v is None else v for key, v in values.items()}
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in filled.items())
