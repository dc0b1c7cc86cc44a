"""A learned model in the hands of a Python program, or of a command.

gcn from Python: `train`, `load`, and the `Model` they return. The commands use only this.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught;
what goes wrong is raised from the one tree of `errors.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gcn_cli import analysis, inpaint, reconstruction, synthesis
from gcn_cli import checkpoint as checkpoint_file
from gcn_cli.analysis import AnomalyMap, Comparison, LevelReport, anomaly_map, level_reports
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import Config, read_toml
from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap, split_maps
from gcn_cli.inpaint import GivenImages
from gcn_cli.inputs import (
    Alpha,
    Array,
    ImageLike,
    LinkedImages,
    OutputKind,
    as_kind,
    as_list,
    kind_of,
    load_training_images,
    open_image,
    repair_mask,
    several,
)
from gcn_cli.metrics import SMALLEST, TextureMetrics
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import SampleOptions, Seamless, Start
from gcn_cli.presets import resolve
from gcn_cli.runs import grades
from gcn_cli.runs.folder import model_path
from gcn_cli.runs.job import OnStep, run_training
from gcn_cli.runs.session import Extension, Resume, RunOptions, TrainingJob, begin
from gcn_cli.runtime import choose_device, choose_precision
from gcn_cli.synthesis import OnEvaluation, Steering, Tile
from gcn_cli.training.distributed import current_group
from gcn_cli.training.loop import Metrics

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
        kind: OutputKind = "pillow",
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
        start: LinkedImages | None = None,
        level: float | None = None,
        step_size: float | None = None,
        noise: bool = True,
        lattice: str | None = None,
        seamless: Seamless | None = None,
        temperature: float = 1.0,
        restarts: int = 0,
        guide: LinkedImages | None = None,
        guide_strength: float = 0.5,
        blend: "Model | None" = None,
        mask: ImageLike | None = None,
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
        request = SampleOptions(
            size=None if size is None else (size[1], size[0]),
            seed=seed,
            steps=steps,
            start=chosen,
            level=level,
            step_size=step_size,
            noise=noise,
            lattice=None if lattice is None else PaddingMode(lattice),
            seamless=seamless,
            temperature=temperature,
            restarts=restarts,
        )
        other = None if blend is None else blend.checkpoint
        control = Steering(guide, guide_strength, other, mask)
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
        kept = grades.kept_exemplar(self.run) is not None
        large = min(self.checkpoint.image_size) >= SMALLEST
        return kept and self.config.texture_ladder and large

    def grade(
        self,
        picture: Tensor | None = None,
        *,
        exemplar: LinkedImages | None = None,
        count: int = 3,
        seed: int = 0,
    ) -> dict[str, float]:
        """How good a sample (C, H, W) in 0..255 is; None: the median of `count` new ones.

        By the exemplar that the run keeps, or the one given. `metrics.MEANINGS` says what each
        measure is. Raises InputError where there is no exemplar, or the model is of no texture.
        """
        by = self.yardstick(exemplar)
        if picture is not None:
            return by.measure(self._first(picture))
        made = self.samples(count=count, seed=seed)
        return grades.median([by.measure(self._first(one)) for one in made])

    def yardstick(self, exemplar: LinkedImages | None = None) -> TextureMetrics:
        """What samples are measured by: the exemplar that the run keeps, or the one given."""
        return grades.yardstick(self.checkpoint, self.run, exemplar)

    def _first(self, picture: Tensor) -> Tensor:
        """The first of linked maps."""
        return picture[: self.maps[0].channels]

    @property
    def run(self) -> Path | None:
        """The folder of its model file."""
        return None if self.path is None else self.path.parent

    def steps(self, asked: int | None = None, restarts: int = 0) -> int:
        """Evaluations that a picture takes."""
        return self.checkpoint.family.steps(SampleOptions(steps=asked, restarts=restarts))

    def expect(
        self,
        size: Size = None,
        count: int = 1,
        steps: int | None = None,
        restarts: int = 0,
    ) -> dict[str, Any]:
        """What samples would take: seconds and MiB, of a few evaluations that are timed."""
        asked = None if size is None else (size[1], size[0])
        request = SampleOptions(size=asked, steps=steps, restarts=restarts)
        return grades.sampling_forecast(self.checkpoint, request, count, self.dtype)

    def repair(
        self,
        picture: LinkedImages,
        mask: ImageLike | None = None,
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
        opened = [open_image(one) for one in several(picture)]
        shown = GivenImages.of(opened, self.checkpoint.maps, cleared=mask == "alpha")
        pixels = shown.pixels
        torus: Seamless | None = None
        if (mask is not None) + (extend is not None) + (band is not None) != 1:
            raise InputError("repair needs one of mask, extend and band")
        if extend is not None:
            pixels, anew = inpaint.extended(pixels, extend)
        elif band is not None:
            anew, torus = inpaint.band((pixels.shape[1], pixels.shape[2]), band), "both"
        else:
            assert mask is not None
            anew = repair_mask(opened[0], mask)
        request = SampleOptions(seed=seed, steps=steps, rounds=rounds, seamless=torus)
        made = inpaint.inpaint(self.checkpoint, pixels, anew, request, count, self.dtype, on_step)
        return (shown.as_given(one, extend) for one in made)

    def denoise(self, picture: LinkedImages, sigma: float | None = None) -> Tensor:
        """A picture without its white noise, (C, H, W) in 0..255: D at the level of the noise.

        sigma: its deviation in gray levels; None estimates it, and says so. Transparency that the
        model does not know stays as it is.
        """
        opened = [open_image(one) for one in several(picture)]
        shown = GivenImages.of(opened, self.checkpoint.maps, cleared=False)
        made, _ = reconstruction.denoise_image(self.checkpoint, shown.pixels, sigma, self.dtype)
        return shown.as_given(made, None)

    @property
    def maps(self) -> tuple[TextureMap, ...]:
        """What pictures the channels are: one, or those of linked maps."""
        return self.checkpoint.maps

    def split(self, pixels: Tensor) -> dict[str, Tensor]:
        """Channels (C, H, W) of a sample, map by map, by the names they were learned under."""
        parts = split_maps(pixels, self.maps)
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

    def reconstruct(self, picture: LinkedImages, steps: int = 1, level: float | None = None) -> Any:
        """What the auto-encoder makes of a picture; of the same kind as it, of a file Pillow's.

        It comes back as the model sees pictures: shrunk as for training, cut to whole maps.
        """
        pixels, _ = self.auto_encode(picture, steps, level)
        return as_kind(pixels, kind_of(picture))

    def auto_encode(
        self, picture: LinkedImages, steps: int = 1, level: float | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """`reconstruct` as a tensor (C, H, W) in 0..255, with its measures.

        rms_error in gray levels, share_of_variance, psnr_db, and residual, which is 0 at a mode.
        """
        density = self.checkpoint.family.density(level, self.dtype)
        pixels = reconstruction.fit_to_model(self.checkpoint, picture, level)
        return reconstruction.auto_encode(self.checkpoint, density, pixels, steps)

    def score(self, picture: LinkedImages, level: float | None = None) -> float:
        """f(I; w), of a ladder at noise `level` (1 by default)."""
        return float(self.judge(picture, level)["score"])

    def energy(self, picture: LinkedImages, level: float | None = None) -> float:
        """U(I) = |I|^2 / (2 sigma^2) - f(I), of a ladder at noise `level` (1 by default)."""
        return float(self.judge(picture, level)["energy"])

    def judge(self, picture: LinkedImages, level: float | None = None) -> dict[str, Any]:
        """Score, energy, energy_per_pixel and the share of open_gates by layer, in float32."""
        density = self.checkpoint.family.density(level, torch.float32)
        pixels = reconstruction.fit_to_model(self.checkpoint, picture, level)
        return analysis.image_facts(self.checkpoint, density, pixels)

    def unusual(self, picture: LinkedImages, level: float | None = None) -> AnomalyMap:
        """Where a picture is unlike what was learned: its energy beside the exemplar's own."""
        density = self.checkpoint.family.density(level, torch.float32)
        return anomaly_map(self.checkpoint, self.run, density, picture, level)

    def by_level(self) -> list[LevelReport]:
        """At every level: the error of D, and how much data and a chain are decided there."""
        return level_reports(self.checkpoint, self.run, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Config, layers and history as plain values."""
        return analysis.model_facts(self.checkpoint)

    def filters(self) -> Tensor:
        """The first layer's filters side by side, (C, H, W) in 0..255."""
        return analysis.filter_sheet(self.checkpoint)

    def save(self, path: str | Path) -> None:
        """Write the model file, whole or not at all; `load` takes it back."""
        checkpoint_file.save(Path(path), self.checkpoint)


__all__ = ["Model", "compare", "load", "train"]


def load(run: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> Model:
    """The model of a run's folder or of a model file; None is the newest under runs/.

    device: auto, cpu, cuda, cuda:1, mps; precision: auto, float32, bf16. Raises InputError.
    """
    chosen, path = choose_device(device), model_path(None if run is None else str(run))
    loaded = checkpoint_file.load(path, chosen)
    smooth = loaded.config.smooth_gates
    return Model(loaded, choose_precision(precision, chosen, smooth_gates=smooth), path)


def train(
    pictures: ImageLike | Sequence[ImageLike],
    *,
    linked: Sequence[ImageLike] = (),
    mask: ImageLike | None = None,
    alpha: Alpha = "auto",
    preset: str | None = None,
    config: str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: Resume = "auto",
    extend: int | None = None,
    extend_time: float | None = None,
    max_time: float | None = None,
    preview_every: int | None = None,
    save_every: float = 60.0,
    tensorboard: bool = False,
    device: str = "auto",
    precision: str = "auto",
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Model:
    """Learn a model from pictures; `settings` are the fields of the config, as iterations=500.

    pictures: one or several, or a folder's path. linked: maps of one picture that are learned with
    it. mask: of one picture, white where nothing is learned. alpha: whether transparency is a
    "mask", a "channel" or dropped; "auto" decides by the pictures. config: a TOML file of
    settings. output: the run's folder, which is gone on with ("never" to `resume` refuses to,
    "must" needs it), or trained anew with `overwrite`; None keeps the model in memory. extend: so
    many iterations more of a finished run, extend_time: as many as take so many seconds.
    max_time, save_every: seconds. A ladder is made as long as max_time allows, whole and refined,
    unless `iterations` are given: then it ends where the time does. tensorboard: event files in
    the run's folder. on_step(iteration, last, measures) is called after every iteration, and
    `should_stop` asked. Raises InputError, DivergedError.
    """
    work = _understood(
        pictures,
        linked=linked,
        mask=mask,
        alpha=alpha,
        preset=preset,
        config=config,
        output=output,
        overwrite=overwrite,
        resume=resume,
        extend=extend,
        extend_time=extend_time,
        device=device,
        precision=precision,
        **settings,
    )
    schedule = replace(
        work.schedule,
        max_time=max_time if extend_time is None else extend_time,
        preview_every=preview_every,
        save_every=save_every,
        tensorboard=tensorboard,
    )
    work = replace(work, schedule=schedule)
    training = run_training(work, on_step=on_step, should_stop=should_stop)
    path = None if output is None else model_path(str(output))
    return Model(training.checkpoint(), work.dtype, path)


def expect(pictures: ImageLike | Sequence[ImageLike], **words: Any) -> dict[str, Any]:
    """What `train` with the same words would do: settled config, iterations, seconds, MiB.

    `words` are those of `train` but for what it is watched and stopped with. Some iterations are
    made and timed; nothing is written. Raises InputError as `train` does.
    """
    return grades.training_forecast(begin(_understood(pictures, **words)))


def compare(
    models: Sequence[Model | str | Path], picture: LinkedImages, *, device: str = "auto"
) -> list[Comparison]:
    """Which of several ladders of textures made a picture: a `Comparison` for each, in their order.

    All are taken for as likely before. Raises InputError for other kinds of models.
    """
    loaded = [one if isinstance(one, Model) else load(one, device=device) for one in models]
    shown = open_image(picture) if isinstance(picture, str | Path) else picture
    return analysis.compare_models([one.checkpoint for one in loaded], shown, torch.float32)


def _understood(
    pictures: ImageLike | Sequence[ImageLike],
    *,
    linked: Sequence[ImageLike] = (),
    mask: ImageLike | None = None,
    alpha: Alpha = "auto",
    preset: str | None = None,
    config: str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: Resume = "auto",
    extend: int | None = None,
    extend_time: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    **settings: Any,
) -> TrainingJob:
    """What the words of `train` ask for, pictures read."""
    written = read_toml(str(config)) if config else {}
    asked = resolve(settings, written, preset)
    chosen, ranks = choose_device(device), current_group()
    with ranks.together():
        observed = load_training_images(
            as_list(pictures),
            linked=list(linked),
            mask=mask,
            alpha=alpha,
            channels=asked.channels,
            size=asked.size,
            shrink=asked.shrink,
            crop=asked.crop,
            multiple=asked.stride,
        )
    extension = None
    if extend is not None or extend_time is not None:
        extension = Extension(extend, extend_time)
    fixed = "iterations" in {**settings, **written} or extension is not None
    return TrainingJob(
        observed,
        asked,
        None if output is None else Path(output),
        RunOptions(
            planned=extend_time is not None or not fixed,
            overwrite=overwrite,
            resume=resume,
            extension=extension,
        ),
        chosen,
        choose_precision(precision, chosen, smooth_gates=asked.smooth_gates),
        ranks,
    )
