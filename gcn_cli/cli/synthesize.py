"""gcn synthesize: Langevin chains from a model file to pictures on disk."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gcn_cli.cli.options import (
    Seeds,
    Size,
    Tile,
    json_option,
    linked_option,
    machine_options,
    model_option,
    overwrite_option,
)
from gcn_cli.model.spec import Lattice
from gcn_cli.sampling.request import Seamless

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.runs.folder import Target
    from gcn_cli.runs.pictures import Linked


@click.command("synthesize")
@model_option
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Langevin evaluations of every picture  [default: 25 for a ladder, else 100]",
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
@click.option("--sheet", metavar="FILE", help="all pictures side by side too")
@click.option("--preview-tiled", metavar="FILE", help="the picture two by two times too")
@overwrite_option
@json_option
@machine_options
def command(
    model: str | None,
    steps: int | None,
    count: int,
    size: tuple[int, int] | None,
    seed: int | None,
    seeds: tuple[int, ...] | None,
    start: str,
    linked: tuple[str, ...],
    step_size: float | None,
    noise: bool,
    lattice: str | None,
    seamless: Seamless | None,
    level: float | None,
    temperature: float,
    guide: str | None,
    guide_strength: float | None,
    blend: str | None,
    mask: str | None,
    output: str | None,
    tile: int | Literal["auto", "off"],
    sheet: str | None,
    preview_tiled: str | None,
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
    gcn synthesize --seeds 0,3-7 -o "tiles/{model}-{seed}.webp" --sheet sheet.png
    gcn synthesize --size 8192 -o wall.png
    gcn synthesize --guide face.jpg --size 512
    gcn synthesize --model runs/moss --blend runs/stone --mask path.png
    gcn synthesize --start chains -o - > sample.png
    """
    if seed is not None and seeds is not None:
        raise click.UsageError("--seed, --seeds: give one of them")
    if guide_strength is not None and guide is None:
        raise click.UsageError("--guide-strength: says how --guide is followed; give both")
    if (blend is None) != (mask is None):
        raise click.UsageError("--blend, --mask: a model and where it applies; give both")
    if linked and start in ("noise", "chains"):
        raise click.UsageError("--with: means nothing without --start PICTURE; leave it out")
    if step_size is not None and not step_size > 0:
        raise click.BadParameter(f"{step_size} is not more than 0", param_hint="--step-size")
    import torch

    from gcn_cli import images
    from gcn_cli.cli.console import Progress
    from gcn_cli.cli.writing import write_all
    from gcn_cli.images.bands import side_by_side
    from gcn_cli.runs.folder import model_path, sample_targets
    from gcn_cli.runs.library import load
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    path = model_path(model)
    loaded = load(path, device=device, precision=precision)
    named = seeds or (seed or 0,)
    targets = sample_targets(
        output,
        path.parent,
        named,
        count,
        size or loaded.size,
        overwrite=overwrite,
        maps=[one.name for one in loaded.maps],
    )
    if preview_tiled is not None and len(targets) > 1:
        raise click.UsageError(f"--preview-tiled {preview_tiled}: one file, but several pictures")
    _check_files(targets, sheet, preview_tiled, size or loaded.size, overwrite=overwrite)

    begun: Linked | None = None if start == "noise" else start
    if start not in ("noise", "chains"):
        begun = [images.open_picture(one) for one in (start, *linked)]
    other = None if blend is None else load(blend, device=device, precision=precision)
    shapes, where = (None if p is None else images.open_picture(p) for p in (guide, mask))
    shown: list[Tensor] = []

    def pictures() -> Iterator["Tensor"]:
        for place, one in enumerate(named):

            def note(done: int, total: int, place: int = place) -> None:
                progress.update(place * total + done, len(named) * total)

            for picture in loaded.samples(
                size,
                count,
                one,
                steps,
                start=begun,
                level=level,
                step_size=step_size,
                noise=noise,
                lattice=lattice,
                seamless=seamless,
                temperature=temperature,
                guide=shapes,
                guide_strength=0.5 if guide_strength is None else guide_strength,
                blend=other,
                mask=where,
                tile=tile,
                on_step=note,
            ):
                if sheet is not None or preview_tiled is not None:
                    shown.append(picture)
                yield picture

    with Progress("synthesize") as progress:
        write_all(targets, pictures(), repeat(loaded.maps), as_json=as_json)
    if sheet is not None:
        whole = [side_by_side(one, loaded.maps) for one in shown]
        images.write(images.grid(torch.stack(whole)), sheet)
    if preview_tiled is not None:
        images.write(side_by_side(shown[0].repeat(1, 2, 2), loaded.maps), preview_tiled)


def _check_files(
    targets: Sequence["Target"],
    sheet: str | None,
    tiled: str | None,
    size: tuple[int, int],
    *,
    overwrite: bool,
) -> None:
    """Raise InputError where a picture of `size` (width, height) cannot go where it is meant to."""
    from gcn_cli.images import check_format
    from gcn_cli.runs.folder import refuse_existing

    width, height = size
    for target in targets:
        check_format(target.path, (height, width))
    for extra, sides in ((sheet, (1, 1)), (tiled, (2 * height, 2 * width))):
        if extra is not None:
            check_format(extra, sides)
            refuse_existing(Path(extra), overwrite)
