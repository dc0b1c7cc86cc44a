"""gcn synthesize: samples of a model, written to files."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import FileOptions, Options, SampleOptions, TrainOptions, option
from gcn_cli.torchrun import torchrun_ranks

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.images import TextureMap
    from gcn_cli.images.engines import Layout
    from gcn_cli.model import Model
    from gcn_cli.runs.folder import Existing, OutputFile
    from gcn_cli.tile_set import TileSet

log = logging.getLogger(__name__)

EXPERT_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "step_size": (float, "a number"),
    "noise": ({"true": True, "false": False}.__getitem__, "true or false"),
    "padding_mode": (PaddingMode, f"one of {', '.join(PaddingMode)}"),
    "exemplar": (str, "an image file"),
}
"""Keys of --set: how the value is read, and what it must be."""


@dataclass(frozen=True)
class OutputOptions(Options):
    """Which samples are made, and where they are written."""

    seeds: tuple[int, ...] | None = option(
        None,
        "Seed, or a list of seeds such as 0,3-7.  [default: the next that the folder of the images "
        "does not have; 0 with --skip-existing]",
        group="Sampling",
        kind="seeds",
        flags=("--seed",),
    )
    count: int = option(1, "Images of each seed.", group="Sampling", low=1, flags=("-n", "--count"))
    linked: tuple[str, ...] = option(
        (),
        "Linked map of the --start image. Repeatable, in the order of training, or named by kinds.",
        group="Sampling",
        metavar="[KIND=]FILE",
        kind="input",
        flags=("--map",),
    )
    output: str | None = option(
        None,
        "File, folder, - for stdout, or a name with {seed}, {index}, {size}, {model}, {map}. A "
        "file is .png, .tif, .tiff, .webp, .jpg, .jpeg, .avif, .jp2, .tga, .dds, .bmp, .ppm, .pgm "
        "or .qoi. In a folder: {model}-{seed}-{index}.png, and {model}_{map}.png of one material.  "
        "[default: RUN/samples]",
        group="Output",
        metavar="FILE|FOLDER",
        kind="file",
        flags=("-o", "--output"),
    )
    sheet: str | None = option(
        None,
        "Also write all images side by side; a single one two by two, interchangeable tiles at "
        "random.",
        group="Output",
        kind="file",
    )
    lit: str | None = option(
        None,
        "Also draw the first image of a material in a light, two by two: a .webp as the light goes "
        "round, other files as a still.",
        group="Output",
        kind="file",
    )
    best_of: int | None = option(
        None,
        "Make N samples for each image and keep the one of best quality; textures only.",
        group="Output",
        low=2,
        high=1000,
    )
    skip_existing: bool = option(
        False,
        "Make only the images that are missing; with --overwrite also those that were made by "
        "another model, with other options or in another size.",
        group="Output",
    )
    names: Literal["unity", "unreal", "godot", "gltf"] | None = option(
        None,
        "Name and pack the maps of a material as an engine expects them, in the folder of -o; gltf "
        "writes a .gltf material beside them.",
        group="Output",
    )
    normals: Literal["y-up", "y-down"] | None = option(
        None,
        "Turn green of normal maps up (OpenGL) or down (DirectX).  [default: as the engine, or the "
        "training image, has it]",
        group="Output",
    )
    overwrite: bool = False
    exemplar: str | None = None  # image to measure quality against, in place of the run's

    def check(self, sampling: SampleOptions, *, as_json: bool) -> None:
        """Raise InputError for options that contradict each other."""
        if self.linked and sampling.start_kind != "image":
            raise InputError("--map: needs --start IMAGE")
        if self.exemplar is not None and self.best_of is None and not as_json:
            raise InputError("--set exemplar: is for --best-of and --json; give one of them")
        if as_json and self.output == "-":
            raise InputError("--json, -o -: both print to stdout; name a file")
        if sampling.variants is not None or sampling.edges is not None:
            if self.count != 1:
                raise InputError(
                    f"--count {self.count}: --variants is the number of tiles; leave --count out"
                )
            if self.best_of is not None:
                raise InputError(
                    f"--best-of {self.best_of}: does not go with --variants and --edges, whose "
                    "tiles have the same edges; leave it out"
                )
        self._check_names()
        for name, file in (("--sheet", self.sheet), ("--lit", self.lit)):
            if file == "-":
                raise InputError(f"{name} -: stdout has the paths of the images; name a file")
        shown = self.sheet or self.lit
        if self.skip_existing and (shown or self.output == "-"):
            raise InputError("--skip-existing: needs files, and no --sheet or --lit")
        if _process()[1] > 1 and (shown or self.output == "-"):
            raise InputError(
                "-o: several processes share the images; name a folder or a name with {seed}, and "
                "leave --sheet and --lit out"
            )

    def _check_names(self) -> None:
        from gcn_cli.images import is_image_file

        output = self.output
        if self.names is None or output is None:
            return
        if output == "-" or "{" in output or is_image_file(output):
            raise InputError(
                f"--output {output}: --names {self.names} names the files; give a folder, as "
                "-o material, or leave --names out"
            )

    def layout(self, maps: "Sequence[TextureMap]") -> "Layout":
        """The files of every sample of a model. Raises InputError for maps of unknown kinds."""
        from gcn_cli.images.engines import engine_layout, plain_layout

        y_up = None if self.normals is None else self.normals == "y-up"
        if self.names is None:
            return plain_layout(maps, y_up)
        layout = engine_layout(self.names, maps, y_up)
        for note in layout.notes:
            log.warning("--names %s: %s", self.names, note)
        return layout

    def check_several(self, runs: Sequence[str]) -> None:
        """Raise InputError for what is of one run, where there are several."""
        from gcn_cli.images import is_image_file

        names = [Path(run).name for run in runs]
        shared = [name for name in names if names.count(name) > 1]
        is_file = self.output is not None and "{" not in self.output and is_image_file(self.output)
        if self.output == "-" or is_file:
            raise InputError(
                f"--output {self.output}: one file for {len(runs)} runs; name a folder, or use "
                "{model} in the name"
            )
        if self.output is not None and shared:
            raise InputError(
                f"--output {self.output}: two runs named {shared[0]} would share names; make their "
                "images one run after the other"
            )
        for name, file in (("--sheet", self.sheet), ("--lit", self.lit)):
            if file is not None:
                raise InputError(f"{name} {file}: shows the images of one run; name one RUN")


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
    seeds, folder = _seeds(output, path)
    files = sample_outputs(output.output, path, seeds, count, size, layout=layout)
    _check_files(files, layout, loaded, output, size, quality, tiles)
    origin = _origin(typed_command(ctx), loaded, sampling, output)
    is_known = sampling.size is not None or sampling.start_kind == "noise"
    files = _missing(files, layout.names, output, origin, size if is_known else None)
    if folder is not None and seeds != (0,):
        log.info("seed %d, the next in %s (--seed 0 is the first)", seeds[0], folder)
    facts: dict[str, Any] = {"model": str(path), "steps": loaded.evaluations(sampling)}
    if dry_run:
        facts |= loaded.forecast(sampling, count=len(files))
        paths = [str(path) for file in files for path in file.all_paths(layout.names)]
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


def _process() -> tuple[int, int]:
    """Rank of this process among those that share the images, and their number."""
    rank, count, _ = torchrun_ranks() or (0, 1, 0)
    return rank, count


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
        if dry_run or _process()[1] > 1:
            raise InputError(f"{source}: has no finished model yet; gcn train {source}, then this")
        from gcn_cli.cli.train import train_run

        log.info("%s: no finished model of %s yet, training comes first", run, source)
        train_run((source,), TrainOptions(output=str(run), device=device, precision=precision))
    return str(run)


def _seeds(output: OutputOptions, model: Path) -> tuple[tuple[int, ...], Path | None]:
    """The seeds of --seed, or the next one of a folder, and that folder.

    0 where the same command must give the same files: with --skip-existing, and in every process.
    """
    from gcn_cli.runs.folder import next_seed

    if output.seeds is not None:
        return output.seeds, None
    if output.skip_existing or _process()[1] > 1:
        return (0,), None
    seed, folder = next_seed(output.output, model)
    return (seed,), folder


def _origin(
    command: str, model: "Model", sampling: SampleOptions, output: OutputOptions
) -> dict[str, Any]:
    """How the images are made, for their metadata."""
    from gcn_cli.cli.output import model_file, origin_of
    from gcn_cli.images.materials import split_kind
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
    start = sampling.start if sampling.start_kind == "image" else None
    files = [split_kind(file)[1] for file in output.linked]
    inputs = (start, *files, sampling.guide, sampling.mask, model_file(sampling.blend))
    return origin_of(command, model, changed, inputs)


def _missing(
    files: "list[OutputFile]",
    maps: Sequence[str],
    output: OutputOptions,
    origin: Mapping[str, Any],
    size: tuple[int, int] | None,
) -> "list[OutputFile]":
    """The files of this process that are to be written; `size` (width, height), None if unknown."""
    from gcn_cli.runs.folder import outputs_to_write

    rank, processes = _process()
    files = files[rank::processes]
    width, height = size or (None, None)

    def expected(file: "OutputFile") -> dict[str, Any]:
        return {**origin, "seed": file.seed, "index": file.index, "width": width, "height": height}

    existing: Existing = "overwrite" if output.overwrite else "refuse"
    if output.skip_existing:
        existing = "update" if output.overwrite else "skip"
    missing = outputs_to_write(files, maps, existing, expected)
    if len(missing) < len(files):
        log.info("%d of %d images exist already", len(files) - len(missing), len(files))
    return missing


def _check_files(
    files: Sequence["OutputFile"],
    layout: "Layout",
    model: "Model",
    output: OutputOptions,
    size: tuple[int, int],
    quality: int | None,
    tiles: "TileSet | None",
) -> None:
    """Raise InputError if a file cannot hold its image of `size` (width, height), or exists."""
    from gcn_cli.cli.output import LAID, check_files, lit_map, sheet_map
    from gcn_cli.images import check_format
    from gcn_cli.runs.folder import refuse_existing
    from gcn_cli.shading import has_relief

    checked = [
        (str(path), texture_map)
        for file in files
        for path, texture_map in zip(file.paths(layout.names), layout.maps, strict=True)
    ]
    places = {os.path.realpath(path) for path, _ in checked if path != "-"}
    for name, shown_in in (("--sheet", output.sheet), ("--lit", output.lit)):
        if shown_in is not None and os.path.realpath(shown_in) in places:
            raise InputError(f"{name} {shown_in}: is the name of an image; name another file")
        places |= set() if shown_in is None else {os.path.realpath(shown_in)}
    if output.sheet is not None:
        columns = round(len(files) ** 0.5) if len(files) > 1 else 2
        rows = -(-len(files) // columns) if len(files) > 1 else 2
        shown = len(model.maps) + has_relief(model.maps)
        sheet_size = (rows * size[1], columns * size[0] * shown)
        if tiles is not None:
            sheet_size = (LAID[0] * size[1], LAID[1] * size[0])
        check_format(output.sheet, sheet_size)
        refuse_existing(Path(output.sheet), output.overwrite)
        checked.append((output.sheet, sheet_map(model.maps)))
    if output.lit is not None:
        if not has_relief(model.maps):
            raise InputError(
                f"--lit {output.lit}: the model has no normal or height map, and a light shows no "
                "relief; train with --map normal=FILE"
            )
        if Path(output.lit).suffix.lower() != ".webp":
            check_format(output.lit, (2 * size[1], 2 * size[0]))
        refuse_existing(Path(output.lit), output.overwrite)
        checked.append((output.lit, lit_map(model.maps)))
    check_files(checked, size, quality)


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
