"""What `gcn synthesize` does with what it was asked: targets, pictures, measures, files."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gcn_cli.launcher import launched
from gcn_cli.sampling.request import Seamless

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.runs.folder import Existing, Target
    from gcn_cli.runs.library import Model
    from gcn_cli.runs.pictures import Linked


log = logging.getLogger(__name__)


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
        from gcn_cli.cli.graded import refuse_ungradable, told_of_all
        from gcn_cli.cli.output import Final, as_lines, machine
        from gcn_cli.runs.folder import model_path, sample_targets, to_make
        from gcn_cli.runs.library import load
        from gcn_cli.runtime import set_threads

        final = Final("synthesize")
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

    def _make(self, loaded: "Model", targets: "Sequence[Target]") -> list[dict[str, Any]]:
        """The pictures, written; what there is to say of every file."""
        from gcn_cli.cli.console import Progress
        from gcn_cli.cli.graded import best_of, yardstick
        from gcn_cli.cli.writing import write_all
        from gcn_cli.runtime import leaving_on_signals

        shown: list[Tensor] = []
        grades: list[dict[str, float] | None] = []
        by = None
        if self.best_of is not None or self.as_json:
            needed = self.best_of is not None or self.exemplar is not None
            by = yardstick(loaded, self.exemplar, needed=needed)
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
        targets: "Sequence[Target]",
        progress: Callable[[int, int], None],
    ) -> Iterator["Tensor"]:
        """The samples that targets are for, one by one."""
        from gcn_cli.images import open_picture
        from gcn_cli.runs.library import load

        begun: Linked | None = None if self.start == "noise" else self.start
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
        from gcn_cli.images.bands import side_by_side

        if self.sheet is not None:
            whole = [side_by_side(one, loaded.maps) for one in shown]
            images.write(images.grid(torch.stack(whole)), self.sheet, new=not self.overwrite)
        if self.preview_tiled is not None:
            tiled = side_by_side(shown[0].repeat(1, 2, 2), loaded.maps)
            images.write(tiled, self.preview_tiled, new=not self.overwrite)

    def _check_files(self, targets: "Sequence[Target]", size: tuple[int, int]) -> None:
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
    rank, count, _ = launched() or (0, 1, 0)
    return rank, count


def _remembered(pictures: "Iterator[Tensor]", shown: "list[Tensor]") -> "Iterator[Tensor]":
    """The same pictures, kept in `shown` as they pass."""
    for picture in pictures:
        shown.append(picture)
        yield picture


def _by_seed(targets: Sequence["Target"]) -> list[tuple[int, list[int]]]:
    """Seeds in order, and which of their pictures are to be made."""
    return [
        (seed, [one.number for one in group])
        for seed, group in groupby(targets, key=lambda one: one.seed)
    ]
