"""gcn synthesize: samples of a model, written to files."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcn_cli.cli.options import (
    GroupedCommand,
    collect,
    dry_run_option,
    hardware_options,
    model_option,
    options_of,
    output_options,
    overwrite_option,
    set_option,
    typed_command,
)
from gcn_cli.cli.sample_files import (
    OutputOptions,
    check_sample_files,
    chosen_seeds,
    missing_files,
    process_share,
)
from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import FileOptions, SampleOptions, TrainOptions

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.images.engines import Layout
    from gcn_cli.model import Model
    from gcn_cli.runs.folder import OutputFile

log = logging.getLogger(__name__)

EXPERT_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "step_size": (float, "a number"),
    "noise": ({"true": True, "false": False}.__getitem__, "true or false"),
    "padding_mode": (PaddingMode, f"one of {', '.join(PaddingMode)}"),
    "exemplar": (str, "an image file"),
}
"""Keys of --set: how the value is read, and what it must be."""


@click.command("synthesize", cls=GroupedCommand)
@click.argument("sources", nargs=-1, metavar="[RUN|IMAGE]...")
@model_option
@options_of(OutputOptions)
@options_of(FileOptions)
@options_of(SampleOptions)
@set_option(
    "Set step_size or noise (published models), padding_mode, or exemplar: an image to measure "
    "--best-of and --json against, if not that of the run.",
    "Sampling",
)
@overwrite_option
@dry_run_option
@output_options
@hardware_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    model: str | None,
    assignments: Sequence[tuple[str, str]],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    device: str,
    precision: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Make images of each RUN, by default of the newest. Their paths are printed to stdout.

    In place of a run, an IMAGE: a model of it is trained first, unless it is there. Every call
    makes new images; --seed makes the same ones again. Image k of a seed does not depend on
    --count. The files hold how they were made: gcn inspect IMAGE.

    \b
    gcn synthesize --steps 100
    gcn synthesize texture.jpg --size 512 -o tile.png
    gcn synthesize runs/texture --count 4 --size 512x256 --seed 7
    gcn synthesize --seed 0,3-7 -o "tiles/{model}-{seed}.webp" --sheet sheet.png
    gcn synthesize runs/* --size 512 -o tiles
    gcn synthesize --size 8192 -o wall.png
    gcn synthesize --size 512 --variants 8 --sheet floor.png
    gcn synthesize --guide face.jpg --size 512
    gcn synthesize --model runs/moss --blend runs/stone --mask path.png
    gcn synthesize --start chains -o - > sample.png
    torchrun --nproc-per-node 4 -m gcn_cli synthesize --seed 0-99 -o tiles --skip-existing
    """
    chosen = _expert_options(assignments)
    exemplar = chosen.pop("exemplar", None)
    sampling = collect(SampleOptions, given, **chosen)
    output = collect(OutputOptions, given, overwrite=overwrite, exemplar=exemplar)
    quality = collect(FileOptions, given).quality
    output.check(sampling, as_json=as_json)

    if len(sources) > 1:
        output.check_several(sources)

    from gcn_cli.checkpoint import read_description
    from gcn_cli.cli.console import JsonResult, as_lines, hardware_facts
    from gcn_cli.model import load
    from gcn_cli.runs.folder import model_path
    from gcn_cli.runtime import set_threads

    for run in sources if len(sources) > 1 else ():  # before the first image is made
        if not _is_image(run):
            read_description(model_path(run))
    result, runs = JsonResult("synthesize"), []
    set_threads(threads)
    for source in sources or (None,):
        path = model_path(_run(source, model, dry_run=dry_run, device=device, precision=precision))
        loaded = load(path, device=device, precision=precision)
        work = (ctx, path, loaded, sampling, output, quality)
        runs.append(_synthesize(*work, dry_run=dry_run, as_json=as_json))
    if as_json:
        facts = runs[0] if len(runs) == 1 else {"runs": runs}
        result.show(**facts, **hardware_facts(loaded.device, loaded.dtype))
    elif dry_run:
        click.echo("\n".join(map(as_lines, runs)))
    else:
        for file in (output.sheet, output.lit):
            if file is not None:
                click.echo(file)


def _synthesize(
    ctx: click.Context,
    path: Path,
    loaded: "Model",
    sampling: SampleOptions,
    output: OutputOptions,
    quality: int | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Make the images of one model, or with `dry_run` tell what they take; the facts for --json."""
    from gcn_cli.cli.output import require_measurable, summarize_quality
    from gcn_cli.runs.folder import sample_outputs
    from gcn_cli.tile_set import TileSet

    tiles = TileSet.of(sampling)
    count = output.count if tiles is None else len(tiles)
    layout = output.layout(loaded.maps)
    size = loaded.size
    if sampling.size is not None or sampling.fit:
        size = loaded.sample_size(sampling)
    if output.best_of is not None and (sampling.size or sampling.start_kind == "noise"):
        require_measurable(output.best_of, size)
    seeds, folder = chosen_seeds(output, path)
    files = sample_outputs(output.output, path, seeds, count, size, layout=layout)
    check_sample_files(files, layout, loaded, output, size, quality, tiles)
    origin = _origin(typed_command(ctx), loaded, sampling, output)
    is_known = sampling.size is not None or sampling.start_kind == "noise"
    files = missing_files(files, layout.names, output, origin, size if is_known else None)
    if folder is not None and seeds != (0,):
        log.info("seed %d, the next in %s (--seed 0 is the first)", seeds[0], folder)
    facts: dict[str, Any] = {"model": str(path), "steps": loaded.evaluations(sampling)}
    if dry_run:
        facts |= loaded.forecast(sampling, count=len(files))
        names = layout.names
        paths = [path for file in files for path in file.all_paths(names)]
        return facts | {"dry_run": True, "paths": paths}
    work = (loaded, files, layout, sampling, output, origin, quality)
    facts["files"] = _make(*work, as_json=as_json)
    facts |= summarize_quality(facts["files"])
    shown = {"sheet": output.sheet, "lit": output.lit}
    return facts | {name: file for name, file in shown.items() if file is not None}


def _expert_options(assignments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Fields of SampleOptions, and "exemplar", from --set. Raises InputError for others."""
    chosen: dict[str, Any] = {}
    for key, value in assignments:
        if key not in EXPERT_OPTIONS:
            known = ", ".join(EXPERT_OPTIONS)
            raise InputError(f"--set {key}={value}: unknown key; must be one of {known}")
        parse, rule = EXPERT_OPTIONS[key]
        try:
            chosen[key] = parse(value)
        except (KeyError, ValueError) as error:
            raise InputError(f"--set {key}={value}: must be {rule}") from error
    return chosen


def _is_image(source: str) -> bool:
    """Whether an argument is a file to train on, not a run."""
    return Path(source).is_file() and not source.endswith(".safetensors")


def _run(
    source: str | None, model: str | None, *, dry_run: bool, device: str, precision: Any
) -> str | None:
    """The run of the argument or of --model; a model of an image is trained if it is not there.

    Raises InputError for both, InterruptedRunError or KeyboardInterrupt after a signal in training.
    """
    if source is not None and model is not None:
        raise InputError(f"{source}, --model {model}: give one of them")
    if source is None or not _is_image(source):
        return source or model

    from gcn_cli.runs.folder import check_run, default_run
    from gcn_cli.runs.record import is_trained_on

    run = default_run([source])
    check_run([source], str(run))
    trained = is_trained_on(run, source)
    if trained is False:
        name = f"gcn train {source} -o {run}-2"
        raise InputError(f"{source}: {run} has a model of another image; {name}, then name that")
    if trained is None:
        if dry_run or process_share()[1] > 1:
            raise InputError(f"{source}: has no finished model yet; gcn train {source}, then this")
        from gcn_cli.cli.train import train_run

        log.info("%s: no finished model of %s yet, training comes first", run, source)
        train_run((source,), TrainOptions(output=str(run), device=device, precision=precision))
    return str(run)


def _origin(
    command: str, model: "Model", sampling: SampleOptions, output: OutputOptions
) -> dict[str, Any]:
    """How the images are made, for their metadata."""
    from gcn_cli.cli.output import origin_of
    from gcn_cli.images.materials import split_kind
    from gcn_cli.inputs import linked_files
    from gcn_cli.runs.folder import model_path
    from gcn_cli.tile_set import TileSet

    changed = {
        name: value
        for name, value in sampling.changed().items()
        # The size is that of the image; the number of tiles and blocks change no image.
        if name not in ("size", "fit", "tile", "variants")
    }
    if (tiles := TileSet.of(sampling)) is not None:
        changed["border"] = tiles.border  # tells a tile from a single image
    for name in ("best_of", "names", "normals"):
        if getattr(output, name) is not None:
            changed[name] = getattr(output, name)
    start = (sampling.start, *output.linked) if sampling.start_kind == "image" else ()
    guide = () if sampling.guide is None else (sampling.guide,)
    files = [*linked_files(start, model.maps), *linked_files(guide, model.maps)]
    blended = None if sampling.blend is None else str(model_path(sampling.blend))
    inputs = (*(split_kind(file)[1] for file in files), sampling.mask, blended)
    return origin_of(command, model, changed, inputs)


def _make(
    model: "Model",
    files: "Sequence[OutputFile]",
    layout: "Layout",
    sampling: SampleOptions,
    output: OutputOptions,
    origin: Mapping[str, Any],
    quality: int | None,
    *,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Make and write the samples; returns a record of each file."""
    from gcn_cli.cli.console import Progress, interrupted_as
    from gcn_cli.cli.output import (
        Quality,
        best_samples,
        texture_metrics,
        write_all,
        write_laid_tiles,
        write_lit,
        write_sheet,
    )
    from gcn_cli.signals import exit_on_signals
    from gcn_cli.tile_set import TileSet

    tiles = TileSet.of(sampling)
    origins: Iterator[Mapping[str, Any]] = repeat(origin)
    if tiles is not None and tiles.colors > 1:
        origins = ({**origin, "edges": tiles.edges(file.index)._asdict()} for file in files)

    qualities: list[Quality] = []
    measures = None
    if output.best_of is not None or as_json:
        required = output.best_of is not None or output.exemplar is not None
        measures = texture_metrics(model, output.exemplar, required=required)
    shown: list[Tensor] = []  # on the sheet, the first in a light
    seed = f"--seed {files[0].seed} " if output.seeds is None and files else ""
    state = f"finished images are saved; add {seed}--skip-existing to make the rest"
    with interrupted_as(state), exit_on_signals(state), Progress("sampling") as progress:
        samples = _samples(model, files, sampling, output, progress.update)
        if measures is not None:
            samples = best_samples(output.best_of or 1, samples, model, measures, qualities)
        if output.sheet is not None or output.lit is not None:
            samples = _collected(samples, shown, 1 if output.sheet is None else len(files))
        records = write_all(
            files,
            samples,
            repeat(layout),
            as_json=as_json,
            overwrite=output.overwrite,
            skip_existing=output.skip_existing,
            quality=quality,
            qualities=None if measures is None else qualities,
            origins=origins,
        )
    axes = model.checkpoint.kind.periodic_axes(sampling)
    if output.sheet is not None and shown:
        sheet: Callable[..., None] = partial(write_sheet, axes=axes)
        if tiles is not None:
            sheet = partial(write_laid_tiles, tiles=tiles)
        sheet(shown, model, output.sheet, origin, overwrite=output.overwrite, quality=quality)
    if output.lit is not None and shown:
        first = {**origin, "seed": files[0].seed, "index": files[0].index}
        how: dict[str, Any] = {"axes": axes, "overwrite": output.overwrite, "quality": quality}
        with Progress("drawing the light") as progress:
            write_lit(shown[0], model.maps, output.lit, first, on_step=progress.update, **how)
    return records


def _samples(
    model: "Model",
    files: "Sequence[OutputFile]",
    sampling: SampleOptions,
    output: OutputOptions,
    on_step: Callable[[int, int], None],
) -> Iterator["Tensor"]:
    """The samples of the files, in order; with --best-of several for each."""
    from gcn_cli.images import read_image
    from gcn_cli.inputs import linked_images
    from gcn_cli.model import load

    if sampling.start_kind == "image":
        start = linked_images((sampling.start, *output.linked), model.maps)
        sampling = replace(sampling, start=start)
    if sampling.guide is not None:
        sampling = replace(sampling, guide=linked_images((sampling.guide,), model.maps))
    if sampling.blend is not None:
        blend = load(sampling.blend, device=str(model.device))
        sampling = replace(sampling, blend=blend, mask=read_image(sampling.mask))
    done, tries = 0, output.best_of or 1
    for seed, group in groupby(files, key=lambda file: file.seed):
        indices = [file.index * tries + k for file in group for k in range(tries)]

        def note(step: int, total: int, done: int = done, count: int = len(indices)) -> None:
            evaluations = total // count
            on_step(done * evaluations + step, len(files) * tries * evaluations)

        yield from model.samples(sampling, indices=indices, seed=seed, kind="torch", on_step=note)
        done += len(indices)


def _collected(
    samples: "Iterator[Tensor]", collection: "list[Tensor]", most: int
) -> "Iterator[Tensor]":
    """The same samples, the first of which, `most` at most, are also appended to `collection`."""
    for sample in samples:
        if len(collection) < most:
            collection.append(sample)
        yield sample
