"""A learned model in the hands of a Python program, or of a command."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.errors import InputError
from gcn_cli.images import Map, split
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.spec import Lattice
from gcn_cli.quality import SMALLEST, Yardstick
from gcn_cli.runs import checkpoint as files
from gcn_cli.runs import denoising, description, forecast, grading, reconstruction, synthesis
from gcn_cli.runs import repair as repairing
from gcn_cli.runs.canvas import Tile
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.control import Control
from gcn_cli.runs.levels import LevelFacts, by_level
from gcn_cli.runs.pictures import (
    Array,
    Kind,
    Linked,
    Picture,
    as_kind,
    kind_of,
    mask_of,
    open_once,
    several,
)
from gcn_cli.runs.shown import Shown
from gcn_cli.runs.synthesis import OnEvaluation
from gcn_cli.runs.unusual import Unusual, unusual
from gcn_cli.sampling.request import Request, Seamless, Start

ROUNDS = 2  # of every level in repairs: one shows its border, four overdo what they make
Size = tuple[int, int] | None
"""(width, height) in pixels; None leaves it to the model."""


class Model:
    """A learned model: samples, reconstructions, scores."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, path: Path | None = None
    ) -> None:
        """`dtype` is that of the maps; `path` the model file, None for a model in memory."""
        self.checkpoint, self.dtype, self.path = checkpoint, dtype, path

    @property
    def config(self) -> Config:
        """What it was trained with."""
        return self.checkpoint.config

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) that samples have by default."""
        height, width = self.checkpoint.image_size
        return width, height

    @property
    def complete(self) -> bool:
        """Whether all iterations of its training are done."""
        return self.checkpoint.iteration >= self.checkpoint.total_iterations

    @property
    def device(self) -> torch.device:
        """Where it is."""
        found: torch.device = self.checkpoint.family.net.weights[0].device
        return found

    def summary(self) -> dict[str, Any]:
        """How far it is, in plain values: the model file, iterations, seconds, last measures."""
        saved = self.checkpoint
        return {
            "model": None if self.path is None else str(self.path),
            "iteration": saved.iteration,
            "iterations": saved.total_iterations,
            "complete": self.complete,
            "training_seconds": round(saved.seconds, 1),
            "measures": saved.history[-1] if saved.history else {},
        }

    @property
    def history(self) -> list[Metrics]:
        """The measures of every iteration."""
        return self.checkpoint.history

    @overload
    def synthesize(
        self,
        size: Size = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: Literal["pillow"] = "pillow",
        **more: Any,
    ) -> list[Image.Image]: ...

    @overload
    def synthesize(
        self,
        size: Size = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: Literal["numpy"],
        **more: Any,
    ) -> list[NDArray[np.uint8]]: ...

    @overload
    def synthesize(
        self,
        size: Size = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: Literal["torch"],
        **more: Any,
    ) -> list[Tensor]: ...

    def synthesize(
        self,
        size: Size = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: Kind = "pillow",
        **more: Any,
    ) -> list[Any]:
        """New pictures of `size` (width, height), by default that of training.

        Picture k of a seed is the same whatever `count` is. `steps` are evaluations a picture.
        `more` is what `samples` takes. Raises InputError, DivergedError.
        """
        made = self.samples(size, count, seed, steps, **more)
        return [as_kind(pixels, kind) for pixels in made]

    def samples(
        self,
        size: Size = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        numbers: Sequence[int] | None = None,
        start: Linked | None = None,
        level: float | None = None,
        step_size: float | None = None,
        noise: bool = True,
        lattice: str | None = None,
        seamless: Seamless | None = None,
        temperature: float = 1.0,
        restarts: int = 0,
        guide: Linked | None = None,
        guide_strength: float = 0.5,
        blend: "Model | None" = None,
        mask: Picture | None = None,
        tile: Tile = "auto",
        on_step: OnEvaluation | None = None,
        on_state: Callable[[Tensor], None] | None = None,
    ) -> Iterator[Tensor]:
        """`synthesize` one picture at a time, as tensors (C, H, W) in 0..255, not rounded.

        numbers: which pictures of the seed, in place of the first `count`.
        start: a picture to vary, its `level` of noise in deviations of the data (1 by default); or
        "chains", those that a published model's run keeps. step_size, noise: of published models'
        chains. lattice: the border; "circular", the default of textures, makes pictures seamless.
        seamless: "x", "y", "both" or "off", in which directions pictures of a ladder tile.
        temperature: of Langevin's noise; under 1 calmer, above 1 wilder than what was learned.
        restarts: times a ladder's chains go back up to noise of three deviations.
        guide: a picture whose large shapes are followed, by guide_strength 0..1. blend: a second
        model, where the picture `mask` is white.
        tile: side of the blocks that a picture is made in, "off", or "auto": as memory asks for.
        on_step: called with the evaluations done and those of all pictures. on_state: called after
        every evaluation with the chains, (N, C, H, W) in units of the model.
        """
        chosen: Start = "noise" if start is None else "picture"
        if isinstance(start, str) and start == "chains":
            chosen = "chains"
        request = Request(
            size=None if size is None else (size[1], size[0]),
            seed=seed,
            steps=steps,
            start=chosen,
            level=level,
            step_size=step_size,
            noise=noise,
            lattice=None if lattice is None else Lattice(lattice),
            seamless=seamless,
            temperature=temperature,
            restarts=restarts,
        )
        other = None if blend is None else blend.checkpoint
        control = Control(guide, guide_strength, other, mask)
        picture = start if chosen == "picture" else None
        return synthesis.samples(
            self.checkpoint,
            request,
            range(count) if numbers is None else numbers,
            self.dtype,
            start=picture,
            control=control,
            tile=tile,
            on_step=on_step,
            on_state=on_state,
        )

    @property
    def gradable(self) -> bool:
        """Whether its samples can be measured: a texture's, fit after some steps, and large enough.

        A published model's chain needs more steps from noise than it takes by default.
        """
        kept = grading.kept_exemplar(self.run) is not None
        large = min(self.checkpoint.image_size) >= SMALLEST
        return kept and self.config.texture_ladder and large

    def grade(
        self,
        picture: Tensor | None = None,
        *,
        exemplar: Linked | None = None,
        count: int = 3,
        seed: int = 0,
    ) -> dict[str, float]:
        """How good a sample (C, H, W) in 0..255 is; None: the median of `count` new ones.

        By the exemplar that the run keeps, or the one given. `quality.MEANINGS` says what each
        measure is. Raises InputError where there is no exemplar, or the model is of no texture.
        """
        by = self.yardstick(exemplar)
        if picture is not None:
            return by.measure(self._first(picture))
        made = self.samples(count=count, seed=seed)
        return grading.median([by.measure(self._first(one)) for one in made])

    def yardstick(self, exemplar: Linked | None = None) -> Yardstick:
        """What samples are measured by: the exemplar that the run keeps, or the one given."""
        return grading.yardstick(self.checkpoint, self.run, exemplar)

    def _first(self, picture: Tensor) -> Tensor:
        """The first of linked maps."""
        return picture[: self.maps[0].channels]

    @property
    def run(self) -> Path | None:
        """The folder of its model file."""
        return None if self.path is None else self.path.parent

    def steps(self, asked: int | None = None, restarts: int = 0) -> int:
        """Evaluations that a picture takes."""
        return self.checkpoint.family.steps(Request(steps=asked, restarts=restarts))

    def expect(
        self,
        size: Size = None,
        count: int = 1,
        steps: int | None = None,
        restarts: int = 0,
    ) -> dict[str, Any]:
        """What samples would take: seconds and MiB, of a few evaluations that are timed."""
        asked = None if size is None else (size[1], size[0])
        request = Request(size=asked, steps=steps, restarts=restarts)
        return forecast.of_samples(self.checkpoint, request, count, self.dtype)

    def repair(
        self,
        picture: Linked,
        mask: Picture | None = None,
        *,
        extend: tuple[int, int, int, int] | None = None,
        band: int | None = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        rounds: int = ROUNDS,
        on_step: OnEvaluation | None = None,
    ) -> Iterator[Tensor]:
        """Variants of a picture, (C, H, W) in 0..255, a part of it made anew, the rest kept.

        One of: mask, a picture of the same size, white where to make anew, or "alpha", what is
        clear in the picture; extend, pixels to add at the left, top, right and bottom; band, the
        width of an edge that is made anew so that the picture tiles. rounds: times every level is
        taken, so that both parts settle. Kept pixels are what they were, to the bit; transparency
        that the model does not know stays as it is. Of linked maps the first has the mask.
        """
        opened = [open_once(one) for one in several(picture)]
        shown = Shown.of(opened, self.checkpoint.maps, cleared=mask == "alpha")
        pixels = shown.pixels
        torus: Seamless | None = None
        if (mask is not None) + (extend is not None) + (band is not None) != 1:
            raise InputError("repair needs one of mask, extend and band")
        if extend is not None:
            pixels, anew = repairing.extended(pixels, extend)
        elif band is not None:
            anew, torus = repairing.band((pixels.shape[1], pixels.shape[2]), band), "both"
        else:
            assert mask is not None
            anew = mask_of(opened[0], mask)
        request = Request(seed=seed, steps=steps, rounds=rounds, seamless=torus)
        made = repairing.repair(self.checkpoint, pixels, anew, request, count, self.dtype, on_step)
        return (shown.as_given(one, extend) for one in made)

    def denoise(self, picture: Linked, sigma: float | None = None) -> Tensor:
        """A picture without its white noise, (C, H, W) in 0..255: D at the level of the noise.

        sigma: its deviation in grey levels; None estimates it, and says so. Transparency that the
        model does not know stays as it is.
        """
        opened = [open_once(one) for one in several(picture)]
        shown = Shown.of(opened, self.checkpoint.maps, cleared=False)
        made, _ = denoising.denoise(self.checkpoint, shown.pixels, sigma, self.dtype)
        return shown.as_given(made, None)

    @property
    def maps(self) -> tuple[Map, ...]:
        """What pictures the channels are: one, or those of linked maps."""
        return self.checkpoint.maps

    def split(self, pixels: Tensor) -> dict[str, Tensor]:
        """Channels (C, H, W) of a sample, map by map, by the names they were learned under."""
        parts = split(pixels, self.maps)
        return {one.name: part for one, part in zip(self.maps, parts, strict=True)}

    @overload
    def reconstruct(
        self, picture: str | Path | Image.Image, steps: int = 1, level: float | None = None
    ) -> Image.Image: ...

    @overload
    def reconstruct(
        self, picture: Array, steps: int = 1, level: float | None = None
    ) -> NDArray[np.uint8]: ...

    @overload
    def reconstruct(
        self, picture: Tensor, steps: int = 1, level: float | None = None
    ) -> Tensor: ...

    def reconstruct(self, picture: Linked, steps: int = 1, level: float | None = None) -> Any:
        """What the auto-encoder makes of a picture; of the same kind as it, of a file Pillow's.

        It comes back as the model sees pictures: shrunk as for training, cut to whole maps.
        """
        pixels, _ = self.auto_encode(picture, steps, level)
        return as_kind(pixels, kind_of(picture))

    def auto_encode(
        self, picture: Linked, steps: int = 1, level: float | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """`reconstruct` as a tensor (C, H, W) in 0..255, with its measures.

        rms_error in grey levels, share_of_variance, psnr_db, and residual, which is 0 at a mode.
        """
        density = self.checkpoint.family.density(level, self.dtype)
        pixels = reconstruction.fitted(self.checkpoint, picture, level)
        return reconstruction.auto_encode(self.checkpoint, density, pixels, steps)

    def score(self, picture: Linked, level: float | None = None) -> float:
        """f(I; w), of a ladder at noise `level` (1 by default)."""
        return float(self.judge(picture, level)["score"])

    def energy(self, picture: Linked, level: float | None = None) -> float:
        """U(I) = |I|^2 / (2 sigma^2) - f(I), of a ladder at noise `level` (1 by default)."""
        return float(self.judge(picture, level)["energy"])

    def judge(self, picture: Linked, level: float | None = None) -> dict[str, Any]:
        """Score, energy, energy_per_pixel and the share of open_gates by layer, in float32."""
        density = self.checkpoint.family.density(level, torch.float32)
        pixels = reconstruction.fitted(self.checkpoint, picture, level)
        return description.judge(self.checkpoint, density, pixels)

    def unusual(self, picture: Linked, level: float | None = None) -> Unusual:
        """Where a picture is unlike what was learned: its energy beside the exemplar's own."""
        density = self.checkpoint.family.density(level, torch.float32)
        return unusual(self.checkpoint, self.run, density, picture, level)

    def by_level(self) -> list[LevelFacts]:
        """At every level: the error of D, and how much data and a chain are decided there."""
        return by_level(self.checkpoint, self.run, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Config, layers and history as plain values."""
        return description.describe(self.checkpoint)

    def filters(self) -> Tensor:
        """The first layer's filters side by side, (C, H, W) in 0..255."""
        return description.filter_sheet(self.checkpoint)

    def save(self, path: str | Path) -> None:
        """Write the model file, whole or not at all; `load` takes it back."""
        files.save(Path(path), self.checkpoint)
