"""gcn reconstruct: auto-encoding, repair and denoising of images."""

from collections.abc import Iterator, Mapping, Sequence
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

    The paths of the results are printed. A repair does not change the pixels that it keeps.

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
    gcn reconstruct noisy.png --denoise auto
    """
    options, quality = collect(ReconstructOptions, given), collect(FileOptions, given).quality
    if output == "-":
        raise InputError("--output -: stdout has the paths of the results; name a file or a folder")

    from gcn_cli.cli.console import JsonResult, hardware_facts
    from gcn_cli.cli.output import maps_like_sources, origin_of
    from gcn_cli.images import expand_sources
    from gcn_cli.images.materials import split_kind
    from gcn_cli.inputs import linked_images
    from gcn_cli.model import load
    from gcn_cli.runs.folder import OutputFile, model_path, outputs_to_write, reconstruction_outputs
    from gcn_cli.runtime import set_threads

    result = JsonResult("reconstruct")
    set_threads(threads)
    path = model_path(model)
    sources = tuple(expand_sources(sources))
    if linked and len(sources) > 1:
        raise InputError(f"--map: needs a single IMAGE, not {len(sources)}")
    auto_encodes = options.auto_encodes
    folder = path.parent / ("reconstructions" if auto_encodes else "repairs")
    targets = reconstruction_outputs(output or str(folder), sources, options.count)
    loaded = load(path, device=device, precision=precision)
    if linked and len(linked) >= len(loaded.maps):
        raise InputError(
            f"--map {linked[-1]}: {len(linked) + 1} images for a model of {len(loaded.maps)}; "
            "leave it out"
        )
    images = [linked_images((source, *linked), loaded.maps) for source in sources]
    seed, count = options.seed or 0, options.count or 1
    outputs = outputs_to_write(
        [OutputFile(str(t), seed, k % count, output is None) for k, t in enumerate(targets)],
        [texture_map.name for texture_map in loaded.maps],
        "overwrite" if overwrite else "refuse",
    )
    maps = [
        loaded.maps
        if auto_encodes
        else maps_like_sources(
            loaded.maps, parts, drop_alpha=options.mask == "alpha", factor=options.upscale or 1
        )
        for parts in images
        for _ in range(count)
    ]
    _check_formats(outputs, maps, images, options, quality)
    map_files = [split_kind(file)[1] for file in linked]
    origins = [
        origin_of(
            typed_command(ctx), loaded, _settings(options), (source, *map_files, options.mask)
        )
        for source in sources
        for _ in range(count)
    ]
    if auto_encodes:
        results = _auto_encode(
            loaded, images, outputs, options, origins, quality, overwrite=overwrite
        )
        named = zip(sources, results, strict=True)
        files = [{"image": source, **facts} for source, group in named for facts in group]
        if not as_json:
            for facts in files:
                metrics = [f"{k} {v:.4g}" for k, v in facts.items() if isinstance(v, float | int)]
                click.echo("  ".join([str(facts["path"]), *metrics]))
    else:
        files = _repair(
            loaded,
            images,
            outputs,
            maps,
            options,
            origins,
            quality,
            as_json=as_json,
            overwrite=overwrite,
        )
    if as_json:
        result.show(model=str(path), files=files, **hardware_facts(loaded.device, loaded.dtype))


def _check_formats(
    outputs: "Sequence[OutputFile]",
    maps: "Sequence[Sequence[TextureMap]]",
    images: "Sequence[Sequence[Image]]",
    options: ReconstructOptions,
    quality: int | None,
) -> None:
    """Raise InputError if a file cannot hold its result."""
    from gcn_cli.cli.output import check_files

    left, top, right, bottom = options.outpaint or (0, 0, 0, 0)
    enlarged = options.upscale or 1
    widths, heights = ([parts[0].size[axis] for parts in images] for axis in (1, 0))
    check_files(
        [
            (path, m)
            for file, ms in zip(outputs, maps, strict=True)
            for path, m in zip(file.paths([m.name for m in ms]), ms, strict=True)
        ],
        (enlarged * max(widths) + left + right, enlarged * max(heights) + top + bottom),
        quality,
    )


def _settings(options: ReconstructOptions) -> dict[str, Any]:
    """The options that are not the default, for metadata, which hold the seed anyway."""
    return {k: v for k, v in options.changed().items() if k not in ("seed", "count")}


def _repair(
    model: "Model",
    images: "list[list[Image]]",
    outputs: "Sequence[OutputFile]",
    maps: "Sequence[Sequence[TextureMap]]",
    options: ReconstructOptions,
    origins: Sequence[Mapping[str, Any]],
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
    with interrupted_as(state), exit_on_signals(state), Progress(work) as progress:

        def variants() -> "Iterator[Tensor]":
            for linked in images:
                if options.upscale is not None:
                    how = {k: v for k, v in vars(options).items() if k != "upscale"}
                    yield from model.upscale(
                        linked, options.upscale, kind="torch", on_step=progress.update, **how
                    )
                elif options.denoise is None:
                    yield from model.repair(
                        linked, kind="torch", on_step=progress.update, **vars(options)
                    )
                else:
                    sigma = None if options.denoise == "auto" else options.denoise
                    with notice("denoising ..."):
                        clean = model.denoise(linked, sigma, kind="torch")
                    yield clean

        return write_all(
            outputs,
            variants(),
            map(plain_layout, maps),
            as_json=as_json,
            overwrite=overwrite,
            quality=quality,
            origins=origins,
        )


def _auto_encode(
    model: "Model",
    images: "list[list[Image]]",
    outputs: "Sequence[OutputFile]",
    options: ReconstructOptions,
    origins: Sequence[Mapping[str, Any]],
    quality: int | None,
    *,
    overwrite: bool,
) -> "Iterator[list[dict[str, Any]]]":
    """Write the auto-encoding of every image; yields the path of each map, with the metrics."""
    from gcn_cli.cli.console import notice
    from gcn_cli.cli.output import write_maps
    from gcn_cli.images.engines import plain_layout

    layout = plain_layout(model.maps)
    for linked, output, origin in zip(images, outputs, origins, strict=True):
        with notice(f"reconstructing {Path(output.path).stem} ..."):
            result, metrics = model.auto_encode(
                linked, options.steps or 1, options.noise_level, kind="torch"
            )
        written = write_maps(output, result, layout, origin, quality, overwrite=overwrite)
        yield [
            {"path": path, **({"map": name} if name else {}), **metrics} for name, path in written
        ]
