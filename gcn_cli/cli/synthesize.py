"""gcn synthesize: Langevin chains from a model file to pictures on disk."""

import json
from pathlib import Path

import click

from gcn_cli.cli.options import (
    Size,
    json_option,
    machine_options,
    model_option,
    overwrite_option,
)
from gcn_cli.model.spec import Lattice


@click.command("synthesize")
@model_option
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Langevin steps of every chain",
)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="pictures")
@click.option("--size", type=Size(), help="512 or WIDTHxHEIGHT  [default: that of training]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--start",
    default="noise",
    show_default=True,
    metavar="noise|chains|PICTURE",
    help="white noise of the reference distribution, the chains stored with the run, or a picture",
)
@click.option("--step-size", type=float, help="Langevin step size  [default: that of training]")
@click.option("--noise/--no-noise", default=True, help="--no-noise descends towards a mode")
@click.option(
    "--lattice",
    type=click.Choice([str(kind) for kind in Lattice]),
    help="border; circular makes pictures seamless  [default: that of training]",
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
    steps: int,
    count: int,
    size: tuple[int, int] | None,
    seed: int,
    start: str,
    step_size: float | None,
    noise: bool,
    lattice: str | None,
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
    from gcn_cli import checkpoint, images
    from gcn_cli.cli.runs import model_path
    from gcn_cli.cli.sampling import Targets, make_samples
    from gcn_cli.runtime import choose_device, choose_precision, set_threads

    set_threads(threads)
    chosen = choose_device(device)
    path = model_path(model)
    targets = Targets(output, path.parent / "samples", count, overwrite)
    loaded = checkpoint.load(path, chosen)
    if lattice is not None:
        loaded.model.lattice = Lattice(lattice)
    pictures = make_samples(
        loaded,
        count=count,
        size=size,
        start=start,
        steps=steps,
        step_size=step_size or loaded.config.step_size,
        noise=noise,
        seed=seed,
        dtype=choose_precision(precision, chosen),
    )
    for number, (target, picture) in enumerate(zip(targets.paths, pictures, strict=True)):
        images.write(picture, target)
        if target != "-":
            record = {"path": target, "seed": seed, "number": number, "steps": steps}
            click.echo(json.dumps(record) if as_json else str(Path(target)))
