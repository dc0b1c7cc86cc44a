"""gcn reconstruct: sigma^2 B(I) of pictures, its error; and pictures made anew in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gcn_cli.cli.options import (
    Noise,
    Sides,
    linked_option,
    machine_options,
    model_option,
    output_options,
    overwrite_option,
)

if TYPE_CHECKING:
    from torch import Tensor

    from gcn_cli.images import Image
    from gcn_cli.model import Model
    from gcn_cli.synthesis import OnEvaluation


@click.command("reconstruct")
@click.argument("pictures", nargs=-1, required=True, metavar="IMAGE...")
@model_option
@linked_option
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="1 auto-encodes the picture; more descend towards a mode, by steps that never raise the "
    "energy  [default: 1]; in repairs levels of noise  [default: 25]",
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
    help="take white noise off IMAGE, of so many gray levels; auto estimates how many",
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
@output_options
@machine_options
def command(**given: Any) -> None:
    """Auto-encode IMAGE with the newest run, or with --model; or make a part of it anew.

    Stdout has, for every picture: rms error in gray levels, error as a share of the picture's
    variance, PSNR in dB, and the residual |I - sigma^2 B(I)| / |I| at the last image, which is 0
    at a mode; with several --steps also the energy, its fall, whether the descent is caught at a
    kink, and the share of gates there. Of repairs (--mask, --extend, --make-seamless, --denoise) it
    has the paths; pixels that are kept stay what they were.

    \b
    gcn reconstruct texture.jpg
    gcn reconstruct photo.png --mask holes.png --count 3 -o repaired
    gcn reconstruct photo.png --extend 0,0,256,0 -o wider
    gcn reconstruct photo.png --make-seamless 32 -o tile
    gcn reconstruct noisy.png --denoise auto
    """
    asked = _Asked(**given)
    asked.check()
    asked.carry_out()


@dataclass(frozen=True)
class _Asked:
    """What was asked for, option by option."""

    pictures: tuple[str, ...]
    model: str | None
    linked: tuple[str, ...]
    steps: int | None
    mask: str | None
    extend: tuple[int, int, int, int] | None
    band: int | None
    denoise: float | Literal["auto"] | None
    count: int | None
    seed: int | None
    level: float | None
    output: str | None
    overwrite: bool
    as_json: bool
    device: str
    precision: str
    threads: int | None

    @property
    def repairs(self) -> bool:
        """Whether a part of the pictures is made anew, or noise taken off."""
        parts = (self.mask, self.extend, self.band, self.denoise)
        return any(part is not None for part in parts)

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        parts = (self.mask, self.extend, self.band, self.denoise)
        if sum(part is not None for part in parts) > 1:
            raise click.UsageError("--mask, --extend, --make-seamless, --denoise: one at a time")
        made_anew = self.repairs and self.denoise is None
        if not made_anew and (self.count is not None or self.seed is not None):
            raise click.UsageError("--count, --seed: are for --mask, --extend and --make-seamless")
        if self.repairs and self.level is not None:
            raise click.UsageError("--level: a repair takes all levels; leave it out")
        if self.denoise is not None and self.steps is not None:
            raise click.UsageError("--steps: noise is taken off at once; leave it out")

    def carry_out(self) -> None:
        """Read the pictures, make what was asked for, say what became of it."""
        from gcn_cli.cli.console import JsonResult, machine
        from gcn_cli.images import expand_sources, open_picture
        from gcn_cli.model import load
        from gcn_cli.runs.folder import (
            map_path,
            model_path,
            reconstruction_targets,
            refuse_existing,
        )
        from gcn_cli.runtime import set_threads

        final = JsonResult("reconstruct")
        set_threads(self.threads)
        path = model_path(self.model)
        sources = expand_sources(self.pictures)
        if self.linked and len(sources) > 1:
            raise click.UsageError(f"--with: goes with one IMAGE, not with {len(sources)}")
        kind = "repairs" if self.repairs else "reconstructions"
        folder = self.output or str(path.parent / kind)
        targets = reconstruction_targets(folder, sources, self.count)
        loaded = load(path, device=self.device, precision=self.precision)
        if self.output or self.repairs:
            for target in targets:
                for one in loaded.maps:
                    refuse_existing(map_path(str(target), one.name), self.overwrite)
        opened = [[open_picture(one) for one in (source, *self.linked)] for source in sources]
        if self.repairs:
            files = self._repair(loaded, opened, targets)
        else:
            files = self._auto_encode(loaded, sources, opened, targets)
        if self.as_json:
            final.show(model=str(path), files=files, **machine(loaded.device, loaded.dtype))

    def _repair(
        self, loaded: "Model", opened: "list[list[Image]]", targets: "Sequence[Path]"
    ) -> list[dict[str, object]]:
        """Every variant of every picture to its file; what there is to say of the files."""
        from gcn_cli.cli.console import Progress
        from gcn_cli.cli.synthesize import as_files, write_all
        from gcn_cli.runs.folder import OutputFile

        seed, variants = self.seed or 0, self.count or 1
        jobs = [OutputFile(str(t), seed, k % variants) for k, t in enumerate(targets)]
        bare = self.mask == "alpha"
        kinds = (as_files(loaded.maps, one, bare=bare) for one in opened for _ in range(variants))
        with Progress("repair") as progress:
            made = (
                picture
                for one in opened
                for picture in self._variants(loaded, one, progress.update)
            )
            return write_all(jobs, made, kinds, as_json=self.as_json, overwrite=self.overwrite)

    def _variants(
        self, loaded: "Model", rasters: "list[Image]", progress: "OnEvaluation"
    ) -> "Iterator[Tensor]":
        """What a picture is made into."""
        if self.denoise is not None:
            yield loaded.denoise(rasters, None if self.denoise == "auto" else self.denoise)
            return
        yield from loaded.repair(
            rasters,
            self.mask,
            extend=self.extend,
            band=self.band,
            count=self.count or 1,
            seed=self.seed or 0,
            steps=self.steps,
            on_step=progress,
        )

    def _auto_encode(
        self,
        loaded: "Model",
        sources: list[str],
        opened: "list[list[Image]]",
        targets: "Sequence[Path]",
    ) -> list[dict[str, object]]:
        """Every picture's auto-encoding to its file, its measures to stdout."""
        from gcn_cli.images import split_maps, write
        from gcn_cli.runs.folder import map_path

        files: list[dict[str, object]] = []
        new = self.output is not None and not self.overwrite  # the default's are made again
        for source, rasters, target in zip(sources, opened, targets, strict=True):
            result, measures = loaded.auto_encode(rasters, self.steps or 1, self.level)
            for one, part in zip(loaded.maps, split_maps(result, loaded.maps), strict=True):
                path = str(map_path(str(target), one.name))
                write(part, path, one.depth, one.profile, new=new)
            files.append({"image": source, "path": str(target), **measures})
            if not self.as_json:
                words = "  ".join(f"{name} {value:.4g}" for name, value in measures.items())
                click.echo(f"{source}  {words}")
        return files
