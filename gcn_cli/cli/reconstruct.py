"""gcn reconstruct: auto-encoding, repair and denoising of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.options import (
    KINDS,
    GroupedCommand,
    collect,
    grouped,
    hardware_options,
    model_option,
    options_of,
    output_options,
    overwrite_option,
    typed_command,
)
from gcn_cli.errors import InputError
from gcn_cli.options import FileOptions, ReconstructOptions

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.images import Image, TextureMap
    from gcn_cli.model import Model
    from gcn_cli.runs.folder import OutputFile


@click.command("reconstruct", cls=GroupedCommand)
@click.argument("sources", nargs=-1, required=True, metavar="IMAGE...")
@model_option
@grouped(
    "Input",
    "--map",
    "linked",
    multiple=True,
    type=KINDS["input"],
    metavar="[KIND=]FILE",
    help="Linked map of IMAGE. Repeatable, in the order of training, or named by kinds.",
)
@options_of(ReconstructOptions)
@grouped(
    "Output",
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="Image file or folder.  [default: RUN/reconstructions or RUN/repairs]",
)
@options_of(FileOptions)
@overwrite_option
@output_options
@hardware_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    model: str | None,
    linked: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Repair, extend, make seamless, enlarge or denoise IMAGE; else auto-encode it.

    IMAGE may be a folder: the maps of a material, or images to work on one by one. The paths of the
    results are printed. A repair does not change the pixels that it keeps.

    Auto-encoding prints after each path how far the result is from IMAGE (rms_error in gray levels,
    share_of_variance that is lost, psnr_db) and how far it is from an energy minimum (residual: 0
    at one). With several --steps it also prints the energy, how much the steps lowered it
    (energy_decrease), their number, 1 if no step lowers it further (stuck), and the share of gates
    that a small step flips (kink_share).

    \b
    gcn reconstruct texture.jpg
    gcn reconstruct photo.png --mask holes.png --count 3 -o repaired
    gcn reconstruct photo.png --outpaint 0,0,256,0 -o wider
    gcn reconstruct tile.png --mask holes.png --seamless both -o repaired
    gcn reconstruct photo.png --make-seamless 32 -o tile
    gcn reconstruct small.png --upscale 2 -o large.png
    gcn reconstruct bark/ --upscale 2 -o large
    gcn reconstruct noisy.png --denoise auto
    """
    options, quality = collect(ReconstructOptions, given), collect(FileOptions, given).quality
    if output == "-":
        raise InputError("--output -: stdout has the paths of the results; name a file or a folder")

    from gcn_cli.cli.console import JsonResult, hardware_facts
    from gcn_cli.images import expand_sources
    from gcn_cli.model import load
    from gcn_cli.runs.folder import OutputFile, model_path, reconstruction_outputs
    from gcn_cli.runtime import set_threads

    result = JsonResult("reconstruct")
    set_threads(threads)
    path = model_path(model)
    loaded = load(path, device=device, precision=precision)
    if len(loaded.maps) == 1:  # else a folder is a material
        sources = tuple(expand_sources(sources))
    if linked and len(sources) > 1:
        raise InputError(f"--map: needs a single IMAGE, not {len(sources)}")
    folder = path.parent / ("reconstructions" if options.auto_encodes else "repairs")
    targets = reconstruction_outputs(output or str(folder), sources, options.count)
    count, seed, is_default = options.count or 1, options.seed or 0, output is None
    outputs = [OutputFile(str(t), seed, k % count, is_default) for k, t in enumerate(targets)]
    tasks = _tasks(loaded, sources, linked, outputs, options, typed_command(ctx), overwrite)
    _check_formats(tasks, options, quality)
    make = _auto_encode if options.auto_encodes else _repair
    files = make(loaded, tasks, options, quality, as_json=as_json, overwrite=overwrite)
    if as_json:
        result.show(model=str(path), files=files, **hardware_facts(loaded.device, loaded.dtype))


@dataclass(frozen=True)
class _Task:
    """An image on its way to its results."""

    source: str
    images: "list[Image]"  # and those of its linked maps
    outputs: "Sequence[OutputFile]"  # one for each variant
    maps: "Sequence[TextureMap]"  # of the results
    origin: dict[str, Any]  # for the metadata of the results


def _tasks(
    model: "Model",
    sources: Sequence[str],
    linked: Sequence[str],
    outputs: "Sequence[OutputFile]",
    options: ReconstructOptions,
    command: str,
    overwrite: bool,
) -> list[_Task]:
    """A task for each source, with its share of the outputs. `linked` are the files of --map.

    Raises InputError for too many maps, and for outputs that exist.
    """
    from gcn_cli.cli.output import maps_like_sources, origin_of
    from gcn_cli.images.materials import split_kind
    from gcn_cli.inputs import linked_files, linked_images
    from gcn_cli.runs.folder import outputs_to_write

    if linked and len(linked) >= len(model.maps):
        raise InputError(
            f"--map {linked[-1]}: {len(linked) + 1} images for a model of {len(model.maps)}; "
            "leave it out"
        )
    inputs = [linked_files((source, *linked), model.maps) for source in sources]
    images = [linked_images(files, model.maps) for files in inputs]
    names = [texture_map.name for texture_map in model.maps]
    outputs = outputs_to_write(outputs, names, "overwrite" if overwrite else "refuse")
    # The metadata of a file have its seed and its number anyway.
    settings = {k: v for k, v in options.changed().items() if k not in ("seed", "count")}
    count, tasks = len(outputs) // len(sources), []
    for place, (source, parts) in enumerate(zip(sources, images, strict=True)):
        maps: Sequence[TextureMap] = model.maps
        if not options.auto_encodes:
            drop_alpha, factor = options.mask == "alpha", options.upscale or 1
            maps = maps_like_sources(model.maps, parts, drop_alpha=drop_alpha, factor=factor)
        files = [split_kind(file)[1] for file in inputs[place]]
        origin = origin_of(command, model, settings, (*files, options.mask))
        own = outputs[place * count : (place + 1) * count]
        tasks.append(_Task(source, parts, own, maps, origin))
    return tasks


def _check_formats(
    tasks: Sequence[_Task], options: ReconstructOptions, quality: int | None
) -> None:
    """Raise InputError if a file cannot hold its result."""
    from gcn_cli.cli.output import check_files

    left, top, right, bottom = options.outpaint or (0, 0, 0, 0)
    heights, widths = zip(*(task.images[0].size for task in tasks), strict=True)
    factor = options.upscale or 1
    files = [
        pair
        for task in tasks
        for output in task.outputs
        for pair in zip(output.paths([m.name for m in task.maps]), task.maps, strict=True)
    ]
    size = (factor * max(widths) + left + right, factor * max(heights) + top + bottom)
    check_files(files, size, quality)


def _repair(
    model: "Model",
    tasks: Sequence[_Task],
    options: ReconstructOptions,
    quality: int | None,
    *,
    as_json: bool,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Write every variant of every image; returns a record of each file."""
    from gcn_cli.cli.console import Progress, interrupted_as, notice
    from gcn_cli.cli.output import write_all
    from gcn_cli.images.engines import plain_layout
    from gcn_cli.signals import exit_on_signals

    state, work = "finished images are saved", "repairing" if options.is_repair else "enlarging"
    records: list[dict[str, Any]] = []
    with interrupted_as(state), exit_on_signals(state), Progress(work) as progress:

        def variants(images: "list[Image]") -> "Iterator[Tensor]":
            if options.denoise is not None:
                sigma = None if options.denoise == "auto" else options.denoise
                with notice("denoising ..."):
                    clean = model.denoise(images, sigma, kind="torch")
                yield clean
                return
            how: dict[str, Any] = {**vars(options), "kind": "torch", "on_step": progress.update}
            if options.upscale is not None:
                yield from model.upscale(images, how.pop("upscale"), **how)
            else:
                yield from model.repair(images, **how)

        for task in tasks:
            records += write_all(
                task.outputs,
                variants(task.images),
                repeat(plain_layout(task.maps)),
                as_json=as_json,
                overwrite=overwrite,
                quality=quality,
                origins=repeat(task.origin),
            )
    return records


def _auto_encode(
    model: "Model",
    tasks: Sequence[_Task],
    options: ReconstructOptions,
    quality: int | None,
    *,
    as_json: bool,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Write the auto-encoding of every image, and print its metrics; a record of each file."""
    from gcn_cli.cli.console import notice
    from gcn_cli.cli.output import write_maps
    from gcn_cli.images.engines import plain_layout

    records, steps = list[dict[str, Any]](), options.steps or 1
    for task in tasks:
        (output,) = task.outputs
        with notice(f"reconstructing {Path(output.path).stem} ..."):
            result, metrics = model.auto_encode(
                task.images, steps, options.noise_level, kind="torch"
            )
        layout = plain_layout(task.maps)
        files = write_maps(output, result, layout, task.origin, quality, overwrite=overwrite)
        for name, path in files:
            named = {"map": name} if name else {}
            records.append({"image": task.source, "path": path, **named, **metrics})
            if not as_json:
                values = (f"{name} {value:.4g}" for name, value in metrics.items())
                click.echo("  ".join([path, *values]))
    return records
