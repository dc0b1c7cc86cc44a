"""The files of the images that gcn synthesize makes: which ones, where, and in which format."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gcn_cli.errors import InputError
from gcn_cli.options import Options, SampleOptions, option
from gcn_cli.torchrun import torchrun_ranks

if TYPE_CHECKING:
    from gcn_cli.images import TextureMap
    from gcn_cli.images.engines import Layout
    from gcn_cli.model import Model
    from gcn_cli.runs.folder import Existing, OutputFile
    from gcn_cli.tile_set import TileSet

log = logging.getLogger(__name__)


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
        if process_share()[1] > 1 and (shown or self.output == "-"):
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


def process_share() -> tuple[int, int]:
    """Rank of this process among those that share the images, and their number."""
    rank, count, _ = torchrun_ranks() or (0, 1, 0)
    return rank, count


def chosen_seeds(output: OutputOptions, model: Path) -> tuple[tuple[int, ...], Path | None]:
    """The seeds of --seed, or the next one of a folder, and that folder.

    0 where the same command must give the same files: with --skip-existing, and in every process.
    """
    from gcn_cli.runs.folder import next_seed

    if output.seeds is not None:
        return output.seeds, None
    if output.skip_existing or process_share()[1] > 1:
        return (0,), None
    seed, folder = next_seed(output.output, model)
    return (seed,), folder


def missing_files(
    files: "list[OutputFile]",
    maps: Sequence[str],
    output: OutputOptions,
    origin: Mapping[str, Any],
    size: tuple[int, int] | None,
) -> "list[OutputFile]":
    """The files of this process that are to be written; `size` (width, height), None if unknown."""
    from gcn_cli.runs.folder import outputs_to_write

    rank, processes = process_share()
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


def check_sample_files(
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

    names, maps = layout.names, layout.maps
    checked = [
        (path, texture_map)
        for file in files
        for path, texture_map in zip(file.paths(names), maps, strict=True)
    ]
    places: set[str] = set()
    if output.sheet is not None or output.lit is not None:  # takes long where there are many images
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
