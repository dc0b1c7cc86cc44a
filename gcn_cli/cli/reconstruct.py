"""gcn reconstruct: sigma^2 B(I) of pictures, its error; and pictures made anew in parts."""

import json
from typing import Literal

import click

from gcn_cli.cli.options import (
    Noise,
    Sides,
    json_option,
    linked_option,
    machine_options,
    model_option,
    overwrite_option,
)


@click.command("reconstruct")
@click.argument("pictures", nargs=-1, required=True, metavar="IMAGE...")
@model_option
@linked_option
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="times the picture is auto-encoded, towards a mode of the model  [default: 1]; in repairs "
    "levels of noise  [default: 25]",
)
@click.option(
    "--mask",
    metavar="MASK|alpha",
    help="repair: a picture of the same size, white where to make IMAGE anew; alpha: where IMAGE "
    "is clear",
)
@click.option(
    "--extend",
    type=Sides(),
    help="continue IMAGE outwards by so many pixels",
)
@click.option(
    "--make-seamless",
    "band",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="make a band along the edges anew, so wide, so that IMAGE tiles",
)
@click.option(
    "--denoise",
    type=Noise(),
    help="take white noise off IMAGE, of so many grey levels; auto estimates how many",
)
@click.option("--count", type=click.IntRange(min=1), help="variants of a repair  [default: 1]")
@click.option("--seed", type=click.IntRange(min=0), help="of a repair  [default: 0]")
@click.option(
    "--level",
    type=click.FloatRange(min=0, min_open=True),
    help="noise level of a ladder, in deviations of its data  [default: 1]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="a picture file, or a folder  [default: <run>/reconstructions, <run>/repairs]",
)
@overwrite_option
@json_option
@machine_options
def command(
    pictures: tuple[str, ...],
    model: str | None,
    linked: tuple[str, ...],
    steps: int | None,
    mask: str | None,
    extend: tuple[int, int, int, int] | None,
    band: int | None,
    denoise: float | Literal["auto"] | None,
    count: int | None,
    seed: int | None,
    level: float | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
) -> None:
    """Auto-encode IMAGE with the newest run, or with --model; or make a part of it anew.

    Stdout has, for every picture: rms error in grey levels, error as a share of the picture's
    variance, PSNR in dB, and the residual |I - sigma^2 B(I)| / |I| at the last image, which is 0
    at a mode. Of repairs (--mask, --extend, --make-seamless, --denoise) it has the paths; pixels
    that are kept stay what they were.

    \b
    gcn reconstruct texture.jpg
    gcn reconstruct photo.png --mask holes.png --count 3 -o repaired
    gcn reconstruct photo.png --extend 0,0,256,0 -o wider
    gcn reconstruct photo.png --make-seamless 32 -o tile
    gcn reconstruct noisy.png --denoise auto
    """
    parts = (mask, extend, band, denoise)
    repairs = sum(part is not None for part in parts)
    if repairs > 1:
        raise click.UsageError("--mask, --extend, --make-seamless, --denoise: one at a time")
    made_anew = repairs and denoise is None
    if not made_anew and (count is not None or seed is not None):
        raise click.UsageError("--count, --seed: are for --mask, --extend and --make-seamless")
    if repairs and level is not None:
        raise click.UsageError("--level: a repair takes all levels; leave it out")
    if denoise is not None and steps is not None:
        raise click.UsageError("--steps: noise is taken off at once; leave it out")
    from gcn_cli.cli.console import Progress
    from gcn_cli.cli.writing import as_files, write_all
    from gcn_cli.images import expand_sources, open_picture, split, write
    from gcn_cli.runs.folder import (
        Target,
        map_path,
        model_path,
        reconstruction_targets,
        refuse_existing,
    )
    from gcn_cli.runs.library import load
    from gcn_cli.runtime import set_threads

    set_threads(threads)
    path = model_path(model)
    sources = expand_sources(pictures)
    variants = range(count or 1)
    folder = output or str(path.parent / ("repairs" if repairs else "reconstructions"))
    targets = reconstruction_targets(folder, sources, count)
    if linked and len(sources) > 1:
        raise click.UsageError(f"--with: goes with one IMAGE, not with {len(sources)}")
    loaded = load(path, device=device, precision=precision)
    for target in targets if output or repairs else []:
        for one in loaded.maps:
            refuse_existing(map_path(str(target), one.name), overwrite)
    opened = [[open_picture(one) for one in (source, *linked)] for source in sources]
    if repairs:
        with Progress("repair") as progress:
            made = (
                picture
                for rasters in opened
                for picture in (
                    [loaded.denoise(rasters, None if denoise == "auto" else denoise)]
                    if denoise is not None
                    else loaded.repair(
                        rasters,
                        mask,
                        extend=extend,
                        band=band,
                        count=len(variants),
                        seed=seed or 0,
                        steps=steps,
                        on_step=progress.update,
                    )
                )
            )
            jobs = [Target(str(t), seed or 0, k % len(variants)) for k, t in enumerate(targets)]
            bare = mask == "alpha"
            kinds = (
                as_files(loaded.maps, rasters, bare=bare) for rasters in opened for _ in variants
            )
            write_all(jobs, made, kinds, as_json=as_json)
        return
    for source, rasters, target in zip(sources, opened, targets, strict=True):
        result, measures = loaded.auto_encode(rasters, steps or 1, level)
        for one, part in zip(loaded.maps, split(result, loaded.maps), strict=True):
            write(part, str(map_path(str(target), one.name)), one.depth, one.profile)
        if as_json:
            click.echo(json.dumps({"image": source, "output": str(target), **measures}))
        else:
            words = "  ".join(f"{name} {value:.4g}" for name, value in measures.items())
            click.echo(f"{source}  {words}")
