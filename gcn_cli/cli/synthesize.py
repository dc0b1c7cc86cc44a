"""gcn synthesize: Langevin chains from a model file to pictures on disk."""

from typing import TYPE_CHECKING

import click

from gcn_cli.cli.options import (
    Size,
    json_option,
    machine_options,
    model_option,
    overwrite_option,
)
from gcn_cli.model.spec import Lattice
from gcn_cli.sampling.request import Seamless

if TYPE_CHECKING:
    pass


@click.command("synthesize")
@model_option
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Langevin evaluations of every picture  [default: 25 for a ladder, else 100]",
)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="pictures")
@click.option("--size", type=Size(), help="512 or WIDTHxHEIGHT  [default: that of training]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--start",
    default="noise",
    show_default=True,
    metavar="noise|chains|PICTURE",
    help="white noise of the reference distribution, a picture, or the chains stored with a "
    "published model's run",
)
@click.option(
    "--step-size",
    type=float,
    help="Langevin step size of published models  [default: that of training]",
)
@click.option(
    "--noise/--no-noise", default=True, help="--no-noise descends towards a mode; published models"
)
@click.option(
    "--lattice",
    type=click.Choice([str(kind) for kind in Lattice]),
    help="border; circular makes pictures seamless  "
    "[default: circular for ladders without a head, else that of training]",
)
@click.option(
    "--seamless",
    type=click.Choice(["both", "x", "y", "off"]),
    help="directions in which a ladder's pictures tile, at any size  "
    "[default: both; off with a head]",
)
@click.option(
    "--level",
    type=click.FloatRange(min=0, min_open=True),
    help="noise put on the PICTURE to start from: small keeps it, large forgets it  [default: 1]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="a .png file (one picture), a folder, or - for stdout  [default: <run>/samples]",
)
@overwrite_option
@json_option
@machine_options
def command(
    model: str | None,
    steps: int | None,
    count: int,
    size: tuple[int, int] | None,
    seed: int,
    start: str,
    step_size: float | None,
    noise: bool,
    lattice: str | None,
    seamless: Seamless | None,
    level: float | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
) -> None:
    """Make pictures from the newest run, or from --model. Their paths go to stdout.

    Picture k of a seed is the same whatever --count is.

    \b
    gcn synthesize --steps 100
    gcn synthesize --model runs/texture --count 4 --size 512x256 --seed 7
    gcn synthesize --start chains -o - > sample.png
    """
    if step_size is not None and not step_size > 0:
        raise click.BadParameter(f"{step_size} is not more than 0", param_hint="--step-size")
    from gcn_cli.cli.console import Progress
    from gcn_cli.cli.writing import write_all
    from gcn_cli.runs.folder import model_path, sample_paths
    from gcn_cli.runs.library import load
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    path = model_path(model)
    targets = sample_paths(output, path.parent / "samples", count, overwrite=overwrite)
    loaded = load(path, device=device, precision=precision)
    with Progress("synthesize") as progress:
        pictures = loaded.samples(
            size,
            count,
            seed,
            steps,
            start=None if start == "noise" else start,
            level=level,
            step_size=step_size,
            noise=noise,
            lattice=lattice,
            seamless=seamless,
            on_step=progress.update,
        )
        write_all(targets, pictures, seed, as_json=as_json)
