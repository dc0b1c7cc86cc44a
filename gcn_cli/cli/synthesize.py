"""gcn synthesize: Langevin chains from a model file to pictures on disk."""

from typing import Any

import click

from gcn_cli.cli.options import (
    dry_run_option,
    linked_option,
    machine_options,
    model_option,
    output_options,
    overwrite_option,
)
from gcn_cli.cli.param_types import Seeds, Size, Tile
from gcn_cli.model.spec import Lattice


@click.command("synthesize")
@model_option
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Langevin evaluations of every picture, at most  [default: 25 for a ladder, 60 where it "
    "is of objects, else 100; more with --restarts]",
)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="pictures")
@click.option("--size", type=Size(), help="512 or WIDTHxHEIGHT  [default: that of training]")
@click.option("--seed", type=click.IntRange(min=0), help="of the pictures  [default: 0]")
@click.option("--seeds", type=Seeds(), help="several: --count pictures of each")
@click.option(
    "--start",
    default="noise",
    show_default=True,
    metavar="noise|chains|PICTURE",
    help="white noise of the reference distribution, a picture, or the chains stored with a "
    "published model's run",
)
@linked_option
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
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="of Langevin's noise: under 1 calmer, above 1 wilder than what was learned",
)
@click.option(
    "--restarts",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="let chains go back up to noise of 3 deviations, so often: smeared drawings get clear, "
    "contrast rises, photographs get harsh; ladders",
)
@click.option("--guide", metavar="PICTURE", help="follow its large shapes; ladders")
@click.option(
    "--guide-strength",
    type=click.FloatRange(0, 1),
    help="how closely --guide is followed  [default: 0.5]",
)
@click.option("--blend", metavar="RUN", help="a second ladder, where --mask is white")
@click.option("--mask", metavar="MASK", help="where --blend applies; resized to the picture")
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER|TEMPLATE",
    help="a picture file, a folder, a name with {seed}, {index}, {size}, {model}, or - for stdout; "
    "PNG, JPEG, WebP, TIFF by the name's end  [default: <run>/samples]",
)
@click.option(
    "--tile",
    type=Tile(),
    default="auto",
    show_default=True,
    help="make large pictures in blocks of so many pixels: the same picture, less memory; auto: "
    "where memory asks for it; off. State that memory cannot hold is laid in files under TMPDIR",
)
@click.option(
    "--best-of",
    type=click.IntRange(2, 1000),
    help="make so many of every picture and keep the one of the best quality; textures",
)
@click.option(
    "--exemplar",
    metavar="PICTURE",
    help="measure quality by it (--best-of, --json)  [default: that of the run]",
)
@click.option("--sheet", metavar="FILE", help="all pictures side by side too")
@click.option("--preview-tiled", metavar="FILE", help="the picture two by two times too")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="make only the pictures whose files are missing, as after an interruption",
)
@overwrite_option
@dry_run_option
@output_options
@machine_options
def command(**given: Any) -> None:
    """Make pictures from the newest run, or from --model. Their paths go to stdout.

    Picture k of a seed is the same whatever --count is.

    \b
    gcn synthesize --steps 100
    gcn synthesize --model runs/texture --count 4 --size 512x256 --seed 7
    gcn synthesize --seeds 0,3-7 -o "tiles/{model}-{seed}.webp" --sheet sheet.png
    gcn synthesize --size 8192 -o wall.png
    gcn synthesize --guide face.jpg --size 512
    gcn synthesize --model runs/moss --blend runs/stone --mask path.png
    gcn synthesize --start chains -o - > sample.png
    torchrun --nproc-per-node 4 -m gcn_cli synthesize --seeds 0-99 -o tiles --skip-existing
    """
    from gcn_cli.cli.making import Synthesis

    asked = Synthesis(**given)
    asked.check()
    asked.carry_out()
