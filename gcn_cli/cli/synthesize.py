"""Quality of what `gcn synthesize` makes: what it is measured by, the best of several, in sum.

Pictures to their paths as they come, and the paths to stdout.

What `gcn synthesize` does with what it was asked: targets, pictures, measures, files.

gcn synthesize: Langevin chains from a model file to pictures on disk.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from torch import Tensor

from gcn_cli import images, metrics
from gcn_cli.cli.options import (
    Seeds,
    Size,
    Tile,
    dry_run_option,
    linked_option,
    machine_options,
    model_option,
    output_options,
    overwrite_option,
)
from gcn_cli.errors import InputError
from gcn_cli.images import BANDS, TextureMap, open_picture
from gcn_cli.images.writing import TakenError
from gcn_cli.metrics import SMALLEST, TextureMetrics
from gcn_cli.model import Model
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import Seamless
from gcn_cli.runs.folder import OutputFile, map_path, next_target
from gcn_cli.runs.grades import median, rounded
from gcn_cli.torchrun import torchrun_ranks

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.inputs import LinkedImages
    from gcn_cli.model import Model
    from gcn_cli.runs.folder import Existing, OutputFile

log = logging.getLogger(__name__)


def metrics_for(loaded: Model, exemplar: str | None, *, needed: bool) -> TextureMetrics | None:
    """What pictures are measured by: an exemplar's file, or what the run keeps.

    None where there is nothing to measure by, as of an object's model or a file that came without
    its run. Raises InputError in its place where it is `needed`.
    """
    try:
        return loaded.yardstick(None if exemplar is None else open_picture(exemplar))
    except InputError:
        if needed:
            raise
        return None


def refuse_ungradable(tries: int, size: tuple[int, int]) -> None:
    """Raise InputError where samples of `size` (width, height) are too small to choose among."""
    if min(size) < SMALLEST:
        raise InputError(
            f"--best-of {tries}: samples of {size[0]}x{size[1]} pixels are too small to grade; "
            f"give a --size of {SMALLEST} a side or more, or leave --best-of out"
        )


def best_of(
    tries: int,
    pictures: Iterator[Tensor],
    loaded: Model,
    by: TextureMetrics,
    grades: list[dict[str, float] | None],
) -> Iterator[Tensor]:
    """The best of every so many pictures (C, H, W); what each was graded goes to `grades`.

    None is the grade of a picture that is too small for it. Raises InputError where there are
    several of that size to choose among.
    """
    while tried := list(islice(pictures, 1)):
        height, width = tried[0].shape[1:]
        if min(height, width) < SMALLEST:
            if tries > 1:  # a picture to start from may be small, whatever the model's size is
                refuse_ungradable(tries, (width, height))
            grades.append(None)
            yield tried[0]
            continue
        tried += islice(pictures, tries - 1)
        graded = [by.measure(one[: loaded.maps[0].channels]) for one in tried]
        best = min(range(len(tried)), key=lambda place: graded[place]["quality"])
        grades.append(graded[best])
        yield tried[best]


def told_of_all(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The quality of all files in the median, where it was measured; that of each is rounded.

    It is None where all files are too small to grade.
    """
    graded = [one for one in files if "quality" in one]
    grades = [one["quality"] for one in graded if one["quality"] is not None]
    for one in graded:
        one["quality"] = None if one["quality"] is None else rounded(one["quality"])
    if not graded:
        return {}
    return {"quality": rounded(median(grades)) if grades else None}


def write_all(
    targets: Iterable[OutputFile],
    pictures: Iterable[Tensor],
    maps: Iterable[Sequence[TextureMap]],
    *,
    as_json: bool,
    overwrite: bool,
    grades: Sequence[dict[str, float] | None] | None = None,
) -> list[dict[str, Any]]:
    """Every picture to its path, and the path to stdout unless --json or the picture goes there.

    `maps` are those of each picture; of linked ones each has a file of its own. `grades` grows with
    the pictures. Without `overwrite` no file is replaced that came meanwhile: a default name gives
    way to the next free one, for others TakenError is raised. Returns what there is to say of every
    file.
    """
    records: list[dict[str, Any]] = []
    for place, (target, picture, own) in enumerate(zip(targets, pictures, maps, strict=False)):
        across, down = metrics.seams(picture)
        parts = images.split_maps(picture, own)
        paths = _written(target, parts, own, overwrite=overwrite)
        for one, part, path in zip(own, parts, paths, strict=True):
            if path == "-":
                continue
            height, width = part.shape[1:]
            record: dict[str, Any] = {"path": path, "seed": target.seed, "number": target.number}
            record |= {"map": one.name} if one.name else {}
            record |= {"width": width, "height": height, "seam_x": across, "seam_y": down}
            if grades is not None:
                record["quality"] = grades[place]
            records.append(record)
            if not as_json:
                click.echo(path)
    return records


def _written(
    target: OutputFile, parts: Sequence[Tensor], maps: Sequence[TextureMap], *, overwrite: bool
) -> list[str]:
    """The paths of a picture's linked maps, written under one name, all of them or none."""
    new = target.default or not overwrite
    paths: list[str] = []
    try:
        for one, part in zip(maps, parts, strict=True):
            path = target.path if target.path == "-" else str(map_path(target.path, one.name))
            images.write(part, path, one.depth, one.profile, new=new)
            paths.append(path)
    except TakenError:
        for path in paths:  # of this picture alone, as they were new
            Path(path).unlink(missing_ok=True)
        if not target.default:
            raise
        return _written(next_target(target), parts, maps, overwrite=overwrite)
    return paths


def as_files(
    maps: Sequence[TextureMap], rasters: Sequence[images.Image], *, bare: bool
) -> list[TextureMap]:
    """Maps that are written as the files they came from: bands, depth and profile.

    `bare` leaves transparency out that a model does not know.
    """
    return [
        TextureMap(
            one.name,
            _written_bands(one.bands, raster.bands, bare=bare),
            16 if raster.depth == 16 else 8,
            profile=raster.profile,
        )
        for one, raster in zip(maps, rasters, strict=True)
    ]


def _written_bands(known: str, given: str, *, bare: bool) -> str:
    clear = known.endswith("A") or (given.endswith("A") and not bare)
    bands = given.rstrip("A") + ("A" if clear else "")
    assert bands in BANDS
    return bands


@dataclass(frozen=True)
class Synthesis:
    """What was asked for, option by option."""

    model: str | None
    steps: int | None
    count: int
    size: tuple[int, int] | None
    seed: int | None
    seeds: tuple[int, ...] | None
    start: str
    linked: tuple[str, ...]
    step_size: float | None
    noise: bool
    lattice: str | None
    seamless: Seamless | None
    level: float | None
    temperature: float
    restarts: int
    guide: str | None
    guide_strength: float | None
    blend: str | None
    mask: str | None
    output: str | None
    tile: int | Literal["auto", "off"]
    best_of: int | None
    exemplar: str | None
    sheet: str | None
    preview_tiled: str | None
    skip_existing: bool
    overwrite: bool
    dry_run: bool
    as_json: bool
    device: str
    precision: str
    threads: int | None

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        if self.seed is not None and self.seeds is not None:
            raise click.UsageError("--seed, --seeds: give one of them")
        if self.guide_strength is not None and self.guide is None:
            raise click.UsageError("--guide-strength: says how --guide is followed; give both")
        if (self.blend is None) != (self.mask is None):
            raise click.UsageError("--blend, --mask: a model and where it applies; give both")
        if self.linked and self.start in ("noise", "chains"):
            raise click.UsageError("--with: means nothing without --start PICTURE; leave it out")
        step = self.step_size
        if step is not None and not step > 0:
            raise click.BadParameter(f"{step} is not more than 0", param_hint="--step-size")
        if self.exemplar is not None and self.best_of is None and not self.as_json:
            raise click.UsageError("--exemplar: is for --best-of and --json; give one of them")
        if self.as_json and self.output == "-":
            raise click.UsageError("--json, -o -: both go to stdout; name a file")
        together = self.sheet or self.preview_tiled
        if self.skip_existing and (self.overwrite or together or self.output in (None, "-")):
            raise click.UsageError(
                "--skip-existing: needs -o, a folder or a name with {seed}; goes without "
                "--overwrite, --sheet and --preview-tiled"
            )
        if _process()[1] > 1 and (together or self.output in (None, "-")):
            raise click.UsageError(
                "-o: several processes share the pictures; name a folder or a template, and leave "
                "--sheet and --preview-tiled out"
            )

    def carry_out(self) -> None:
        """Make the pictures, or say what they would take."""
        pass
        from gcn_cli.cli.console import JsonResult, as_lines, machine
        from gcn_cli.model import load
        from gcn_cli.runs.folder import model_path, sample_targets, to_make
        from gcn_cli.runtime import set_threads

        final = JsonResult("synthesize")
        set_threads(self.threads)
        path = model_path(self.model)
        loaded = load(path, device=self.device, precision=self.precision)
        size, maps = self.size or loaded.size, [one.name for one in loaded.maps]
        if self.best_of is not None and (self.size is not None or self.start == "noise"):
            refuse_ungradable(self.best_of, size)
        seeds = self.seeds or (self.seed or 0,)
        planned = sample_targets(self.output, path.parent, seeds, self.count, size, maps=maps)
        self._check_files(planned, size)
        about: dict[str, Any] = {
            "model": str(path),
            "steps": loaded.steps(self.steps, self.restarts),
        }
        if self.dry_run:
            about |= loaded.expect(self.size, len(planned), self.steps, self.restarts)
            about |= {"dry_run": True, "paths": [one.path for one in planned]}
        else:
            rank, processes = _process()
            mine = planned[rank::processes]
            existing: Existing = "skip" if self.skip_existing else "refuse"
            targets = to_make(mine, maps, "overwrite" if self.overwrite else existing)
            if len(targets) < len(mine):
                log.info("%d of %d are there already", len(mine) - len(targets), len(mine))
            about["files"] = self._make(loaded, targets)
            about |= told_of_all(about["files"])
        if self.as_json:
            final.show(**about, **machine(loaded.device, loaded.dtype))
        elif self.dry_run:
            click.echo(as_lines(about))

    def _make(self, loaded: "Model", targets: "Sequence[OutputFile]") -> list[dict[str, Any]]:
        """The pictures, written; what there is to say of every file."""
        from gcn_cli.cli.console import Progress

        pass
        pass
        from gcn_cli.runtime import leaving_on_signals

        shown: list[Tensor] = []
        grades: list[dict[str, float] | None] = []
        by = None
        if self.best_of is not None or self.as_json:
            needed = self.best_of is not None or self.exemplar is not None
            by = metrics_for(loaded, self.exemplar, needed=needed)
        rest = "is written whole; the same command with --skip-existing makes what is missing"
        with leaving_on_signals(rest), Progress("synthesize") as progress:
            pictures = self._pictures(loaded, targets, progress.update)
            if by is not None:
                pictures = best_of(self.best_of or 1, pictures, loaded, by, grades)
            if self.sheet is not None or self.preview_tiled is not None:
                pictures = _remembered(pictures, shown)
            records = write_all(
                targets,
                pictures,
                repeat(loaded.maps),
                as_json=self.as_json,
                overwrite=self.overwrite,
                grades=None if by is None else grades,
            )
        if shown:
            self._write_beside(loaded, shown)
        return records

    def _pictures(
        self,
        loaded: "Model",
        targets: "Sequence[OutputFile]",
        progress: Callable[[int, int], None],
    ) -> Iterator["Tensor"]:
        """The samples that targets are for, one by one."""
        from gcn_cli.images import open_picture
        from gcn_cli.model import load

        begun: LinkedImages | None = None if self.start == "noise" else self.start
        if self.start not in ("noise", "chains"):
            begun = [open_picture(one) for one in (self.start, *self.linked)]
        other = None
        if self.blend is not None:
            other = load(self.blend, device=self.device, precision=self.precision)
        guide, mask = (None if p is None else open_picture(p) for p in (self.guide, self.mask))
        place, tries = 0, self.best_of or 1
        for seed, wanted in _by_seed(targets):
            numbers = [number * tries + k for number in wanted for k in range(tries)]

            def note(done: int, total: int, place: int = place, count: int = len(numbers)) -> None:
                work = total // count
                progress(place * work + done, len(targets) * tries * work)

            place += len(numbers)
            yield from loaded.samples(
                self.size,
                seed=seed,
                steps=self.steps,
                numbers=numbers,
                start=begun,
                level=self.level,
                step_size=self.step_size,
                noise=self.noise,
                lattice=self.lattice,
                seamless=self.seamless,
                temperature=self.temperature,
                restarts=self.restarts,
                guide=guide,
                guide_strength=0.5 if self.guide_strength is None else self.guide_strength,
                blend=other,
                mask=mask,
                tile=self.tile,
                on_step=note,
            )

    def _write_beside(self, loaded: "Model", shown: "list[Tensor]") -> None:
        """The sheet of all pictures, and one of them two by two times."""
        import torch

        from gcn_cli import images
        from gcn_cli.images.image import side_by_side

        if self.sheet is not None:
            whole = [side_by_side(one, loaded.maps) for one in shown]
            images.write(images.grid(torch.stack(whole)), self.sheet, new=not self.overwrite)
        if self.preview_tiled is not None:
            tiled = side_by_side(shown[0].repeat(1, 2, 2), loaded.maps)
            images.write(tiled, self.preview_tiled, new=not self.overwrite)

    def _check_files(self, targets: "Sequence[OutputFile]", size: tuple[int, int]) -> None:
        """Raise an error where pictures of `size` (width, height) cannot go where they are to."""
        from gcn_cli.images import check_format
        from gcn_cli.runs.folder import refuse_existing

        if self.preview_tiled is not None and len(targets) > 1:
            raise click.UsageError(
                f"--preview-tiled {self.preview_tiled}: one file, but several pictures"
            )
        width, height = size
        for target in targets:
            check_format(target.path, (height, width))
        for extra, sides in ((self.sheet, (1, 1)), (self.preview_tiled, (2 * height, 2 * width))):
            if extra is not None:
                check_format(extra, sides)
                refuse_existing(Path(extra), self.overwrite)


def _process() -> tuple[int, int]:
    """This process's number among those that share the pictures, and how many they are."""
    rank, count, _ = torchrun_ranks() or (0, 1, 0)
    return rank, count


def _remembered(pictures: "Iterator[Tensor]", shown: "list[Tensor]") -> "Iterator[Tensor]":
    """The same pictures, kept in `shown` as they pass."""
    for picture in pictures:
        shown.append(picture)
        yield picture


def _by_seed(targets: Sequence["OutputFile"]) -> list[tuple[int, list[int]]]:
    """Seeds in order, and which of their pictures are to be made."""
    return [
        (seed, [one.number for one in group])
        for seed, group in groupby(targets, key=lambda one: one.seed)
    ]


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
    type=click.Choice([str(kind) for kind in PaddingMode]),
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
    pass

    asked = Synthesis(**given)
    asked.check()
    asked.carry_out()
