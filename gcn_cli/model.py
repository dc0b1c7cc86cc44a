"""The Python API: a trained `Model`, and `load`. Functions that train are in `gcn_cli.api`.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught. Errors
are those of `gcn_cli.errors`; their text names arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli import analysis, inpaint, interactive, reconstruction, synthesis, upscaling
from gcn_cli import checkpoint as checkpoint_file
from gcn_cli.analysis import AnomalyMap, LevelReport
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import LEARNERS_IN_WORDS, Config, NoiseConditionalConfig, check_rules
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.images import TextureMap, split_maps, to_pillow
from gcn_cli.images.color import ColorMatch
from gcn_cli.images.image import side_by_side
from gcn_cli.inputs import (
    ImageLike,
    LinkedImages,
    OutputKind,
    convert_output,
    differentiable_images,
    linked_list,
    open_image,
    split_batch,
    to_pixels,
)
from gcn_cli.interactive import public, public_methods
from gcn_cli.kinds import TilingPlan
from gcn_cli.metrics import SMALLEST_SIDE, TextureMetrics
from gcn_cli.models.energy import Denoiser, GenerativeModel, energy
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import PhaseMap
from gcn_cli.options import ReconstructOptions, SampleOptions
from gcn_cli.runs import grades
from gcn_cli.runs.folder import model_path
from gcn_cli.runtime import choose_device, choose_precision
from gcn_cli.synthesis import OnEvaluation
from gcn_cli.tile_set import TileSet, sample_tiles
from gcn_cli.training.loop import Metrics

__all__ = ["Model", "load"]

PICTURE_SIDE = 192  # pixels: largest side of the sample that a notebook shows


@public_methods
class Model:
    """A trained model.

    Images go in as paths, Pillow images, arrays (H, W, C) or tensors (C, H, W), in 0..255; a model
    of linked maps takes a list with one image for each map. They come out as `kind` says:

    - "pillow": Pillow images of 8 bits;
    - "numpy": arrays (H, W, C) of uint8;
    - "torch": tensors (C, H, W) of float32 on the CPU, neither rounded nor clipped.

    Sizes are (width, height). Noise levels are in deviations of the data; model units have mean 0
    and, for noise-conditional models, deviation 1. With `progress` a bar shows how far the work is;
    on_step(done, total) is called after every evaluation of the network.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, path: Path | None = None
    ) -> None:
        """`dtype` is the number format of activations, `path` the model file if there is one."""
        self.checkpoint, self.dtype, self.path = checkpoint, dtype, path
        self._picture: PillowImage.Image | None = None  # of `_repr_html_`

    def __repr__(self) -> str:
        return f"<gcn model: {'; '.join(self._facts().values())}>"

    def _repr_html_(self) -> str:
        if self._picture is None:
            self._picture = self._small_sample()
        return interactive.card("gcn model", self._facts(), self._picture)

    def _facts(self) -> dict[str, str]:
        """What the model is, in a few words each."""
        checkpoint, config = self.checkpoint, self.config
        done, last = checkpoint.iteration, checkpoint.total_iterations
        parameters = sum(weights.numel() for weights in checkpoint.kind.net.parameters())
        crops = "whole images" if config.crop is None else f"crops of {config.crop} pixels"
        return {
            "model": "in memory" if self.path is None else str(self.path),
            "images": f"{' + '.join(m.mode for m in self.maps)}, {self.size[0]}x{self.size[1]}",
            "training": f"{LEARNERS_IN_WORDS[config.learner]} on {crops}, "
            + (f"{done} iterations" if self.complete else f"stopped at {done} of {last}"),
            "network": f"{parameters:,} parameters on {self.device}",
        }

    def _small_sample(self) -> PillowImage.Image | None:
        """A sample for `_repr_html_`; None if the model diverges."""
        options = SampleOptions()
        if self.config.is_texture:
            width, height = (min(side, PICTURE_SIDE) for side in self.size)
            options = SampleOptions(size=(width, height), fit=True)
        elif synthesis.CHAIN_KEY in self.checkpoint.trainer_state:
            options = SampleOptions(start="chains", steps=1)
        try:
            sample = next(self.samples(options, kind="torch"))
        except DivergedError:
            return None
        return to_pillow(side_by_side(sample, self.maps))

    # Facts

    @property
    def config(self) -> Config:
        """The resolved training config."""
        return self.checkpoint.config

    @property
    def size(self) -> tuple[int, int]:
        """Default (width, height) of samples."""
        height, width = self.checkpoint.image_size
        return width, height

    @property
    def maps(self) -> tuple[TextureMap, ...]:
        """The linked maps that the channels stand for, mostly a single one."""
        return self.checkpoint.maps

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.checkpoint.kind.device

    @property
    def complete(self) -> bool:
        """Whether training has done all its iterations."""
        return self.checkpoint.iteration >= self.checkpoint.total_iterations

    @property
    def history(self) -> list[Metrics]:
        """Metrics of every iteration."""
        return self.checkpoint.history

    @property
    def run(self) -> Path | None:
        """Folder of the model file."""
        return None if self.path is None else self.path.parent

    def summary(self) -> dict[str, Any]:
        """Progress of the training as plain values."""
        checkpoint = self.checkpoint
        return {
            "model": None if self.path is None else str(self.path),
            "iteration": checkpoint.iteration,
            "iterations": checkpoint.total_iterations,
            "complete": self.complete,
            "training_seconds": round(checkpoint.seconds, 1),
            "metrics": checkpoint.history[-1] if checkpoint.history else {},
        }

    def describe(self) -> dict[str, Any]:
        """Config, layers and history as plain values."""
        return analysis.model_facts(self.checkpoint)

    def save(self, path: str | Path) -> None:
        """Write the model file atomically; `load` reads it."""
        checkpoint_file.save(Path(path), self.checkpoint)

    # Sampling

    def synthesize(
        self,
        size: tuple[int, int] | int | Literal["auto"] | None = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: OutputKind = "pillow",
        progress: bool = False,
        **options: Any,
    ) -> list[Any]:
        """New images. Image k of a seed does not depend on the count.

        Args:
            size: 512, (width, height), "auto" for whole periods of a regular pattern, or None
                for the size of training.
            count: number of images.
            seed: seed of all random numbers.
            steps: evaluations of the network for each image.
            kind: type of the images: "pillow", "numpy" or "torch".
            progress: whether a bar is shown.
            options: fields of `SampleOptions`, and on_step and on_state of `samples`.

        Raises:
            InputError: for an option that the model does not support.
            DivergedError: if a chain diverges.

        Example:
            >>> (tile,) = model.synthesize(size=512, seed=7)
            >>> tile.save("tile.png")
        """
        check_rules(f"count {count}", count, {"low": 1})
        options |= {"size": size, "seed": seed, "steps": steps, "indices": range(count)}
        return list(self.samples(kind=kind, progress=progress, **options))

    def samples(
        self,
        options: SampleOptions | None = None,
        *,
        indices: Sequence[int] = (0,),
        kind: OutputKind = "pillow",
        progress: bool = False,
        on_step: OnEvaluation | None = None,
        on_state: Callable[[Tensor], None] | None = None,
        **changes: Any,
    ) -> Iterator[Any]:
        """The images of `synthesize`, one by one.

        Args:
            options: the sampling options.
            indices: which images of the seed.
            kind: type of the images: "pillow", "numpy" or "torch".
            progress: whether a bar is shown.
            on_step: called with the evaluations done, and those of all images and blocks.
            on_state: called with the chains (N, C, H, W) in model units.
            changes: fields of `SampleOptions` that differ from `options`; `blend` may be a `Model`.
        """
        options = (options or SampleOptions()).with_changes(**changes)
        if options.blend is not None:
            blend = options.blend
            other = blend if isinstance(blend, Model) else load(blend, device=str(self.device))
            options = replace(options, blend=other.checkpoint)
        profile = self.maps[0].icc_profile
        with interactive.progress_bar("synthesize", on_step, shown=progress) as note:
            tiles = TileSet.of(options)
            sample = synthesis.samples if tiles is None else partial(sample_tiles, tiles=tiles)
            for pixels in sample(
                self.checkpoint, options, indices, self.dtype, on_step=note, on_state=on_state
            ):
                yield convert_output(pixels, kind, profile)

    def sample_size(self, options: SampleOptions) -> tuple[int, int]:
        """(width, height) of samples from noise with these options."""
        height, width = synthesis.requested_size(self.checkpoint, options)
        return width, height

    def evaluations(self, options: SampleOptions | None = None, **changes: Any) -> int:
        """Evaluations of the network for each sample."""
        options = (options or SampleOptions()).with_changes(**changes)
        return self.checkpoint.kind.evaluations(options)

    def forecast(
        self, options: SampleOptions | None = None, *, count: int = 1, **changes: Any
    ) -> dict[str, Any]:
        """Seconds and MiB that `count` samples take, measured on a few evaluations."""
        options = (options or SampleOptions()).with_changes(**changes)
        return grades.sampling_forecast(self.checkpoint, options, count, self.dtype)

    def split(self, pixels: Tensor) -> dict[str, Tensor]:
        """Channels (C, H, W) of a sample by the names of the linked maps."""
        parts = split_maps(pixels, self.maps)
        return {texture_map.name: part for texture_map, part in zip(self.maps, parts, strict=True)}

    # Reconstruction

    def reconstruct(
        self,
        image: LinkedImages,
        steps: int = 1,
        noise_level: float | None = None,
        *,
        kind: OutputKind = "pillow",
    ) -> Any:
        """Auto-encode an image: sigma^2 B(I).

        The result has the size that the model sees: shrunk as in training and cut to the stride.

        Args:
            image: the image, or a list with one for each linked map.
            steps: how often; with several, a descent to a mode of the energy.
            noise_level: of noise-conditional models, 1 by default.
            kind: type of the result: "pillow", "numpy" or "torch".
        """
        return self.auto_encode(image, steps, noise_level, kind=kind)[0]

    def auto_encode(
        self,
        image: LinkedImages,
        steps: int = 1,
        noise_level: float | None = None,
        *,
        kind: OutputKind = "pillow",
    ) -> tuple[Any, dict[str, float]]:
        """The image of `reconstruct`, and metrics of it by name.

        rms_error in gray levels, share_of_variance (of the error), psnr_db, residual
        (the distance from a mode); with several steps also energy, energy_decrease, steps, stuck
        and kink_share.
        """
        pixels = reconstruction.fit_to_model(self.checkpoint, image, noise_level)
        density = self.checkpoint.density(self.checkpoint.to_model(pixels), noise_level, self.dtype)
        result, facts = reconstruction.auto_encode(self.checkpoint, density, pixels, steps)
        return convert_output(result, kind, self.maps[0].icc_profile), facts

    def repair(
        self,
        image: LinkedImages,
        mask: ImageLike | None = None,
        *,
        kind: OutputKind = "pillow",
        progress: bool = False,
        on_step: OnEvaluation | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Variants of an image, one by one, with a part sampled and the rest kept exactly.

        Files are converted to the color profile of the model, and back.

        Args:
            image: the image, or a list with one for each linked map.
            mask: a gray image or boolean array of the same size, white or True where to repair, or
                "alpha" for transparent parts.
            kind: type of the images: "pillow", "numpy" or "torch".
            progress: whether a bar is shown.
            on_step: called with the evaluations done, and those of all variants.
            options: fields of `ReconstructOptions`: outpaint or make_seamless in place of a mask;
                seamless, count, seed, steps, resampling_steps.

        Example:
            >>> (wider,) = model.repair("photo.png", outpaint=(0, 0, 256, 0))
        """
        chosen = ReconstructOptions().with_changes(mask=mask, **options)
        colors = self._in_own_profile(image)
        drop_alpha = isinstance(mask, str) and mask == "alpha"
        with interactive.progress_bar("repair", on_step, shown=progress) as note:
            for variant in inpaint.repair(self.checkpoint, colors.images, chosen, self.dtype, note):
                pixels = colors.restore(variant, sides=chosen.outpaint, drop_alpha=drop_alpha)
                yield convert_output(pixels, kind, colors.icc_profile)

    def upscale(
        self,
        image: LinkedImages,
        factor: int = 2,
        *,
        kind: OutputKind = "pillow",
        progress: bool = False,
        on_step: OnEvaluation | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Variants of an image, one by one, enlarged with details of the texture.

        The model is of the same texture at the larger scale. The means of blocks of factor x factor
        pixels are the given image, exactly; of normals nearly, since their length is 1.

        Args:
            image: the image, or a list with one for each linked map.
            factor: 2 or 4.
            kind: type of the images: "pillow", "numpy" or "torch".
            progress: whether a bar is shown.
            on_step: called with the evaluations done, and those of all variants.
            options: fields of `ReconstructOptions`: temperature, seamless, count, seed, steps.
        """
        chosen = ReconstructOptions().with_changes(upscale=factor, **options)
        colors = self._in_own_profile(image)
        source = inpaint.SourceImages.of(colors.images, self.maps, drop_alpha=False)
        with interactive.progress_bar("upscale", on_step, shown=progress) as note:
            for variant in upscaling.upscale(self.checkpoint, source, chosen, self.dtype, note):
                triples = zip(
                    colors.originals, colors.restore_resized(variant), self.maps, strict=True
                )
                parts = [
                    part if texture_map.normals else upscaling.keep_means(part, original, factor)
                    for original, part, texture_map in triples
                ]
                yield convert_output(torch.cat(parts), kind, colors.icc_profile)

    def denoise(
        self, image: LinkedImages, sigma: float | None = None, *, kind: OutputKind = "pillow"
    ) -> Any:
        """An image without its white noise. Transparency that the model does not know is kept.

        Args:
            image: the image, or a list with one for each linked map.
            sigma: deviation of the noise in gray levels; None estimates it.
            kind: type of the result: "pillow", "numpy" or "torch".
        """
        colors = self._in_own_profile(image)
        source = inpaint.SourceImages.of(colors.images, self.maps, drop_alpha=False)
        clean, _ = reconstruction.denoise_image(self.checkpoint, source.pixels, sigma, self.dtype)
        pixels = colors.restore(source.restore(clean))
        return convert_output(pixels, kind, colors.icc_profile)

    def _in_own_profile(self, image: LinkedImages) -> ColorMatch:
        """An image, or linked images, in the color profiles of the maps, and the way back."""
        return ColorMatch.of([open_image(part) for part in linked_list(image)], self.maps)

    # Evaluation

    def score(self, image: LinkedImages, noise_level: float | None = None) -> Tensor:
        """f(I; w): a tensor of one value, or (N,) for a batch. Differentiable in a tensor.

        Images are resized as in training and cut to the stride; no noise is added.

        Args:
            image: an image, or a batch: a tensor (N, C, H, W) or an array (N, H, W, C), in 0..255.
            noise_level: of noise-conditional models, 1 by default.

        Example:
            >>> x = model.synthesize(kind="torch")[0].requires_grad_()
            >>> model.energy(x).backward()  # x.grad is the gradient by gray levels
        """
        return self._evaluate(lambda density, x: density.score(x), image, noise_level)

    def energy(self, image: LinkedImages, noise_level: float | None = None) -> Tensor:
        """U(I) = |I|^2 / (2 sigma^2) - f(I): a tensor of one value, or (N,) for a batch.

        As `score` in all else.
        """
        return self._evaluate(energy, image, noise_level)

    def _evaluate(
        self,
        function: Callable[[GenerativeModel, Tensor], Tensor],
        images: LinkedImages,
        noise_level: float | None,
    ) -> Tensor:
        """A function (N, C, H, W) -> (N,) of an image or of every image of a batch."""
        batch = split_batch(images)
        pixels = [
            reconstruction.fit_to_model(
                self.checkpoint, differentiable_images(image, self.maps), noise_level
            )
            for image in ([images] if batch is None else batch)
        ]
        x = torch.cat([self.checkpoint.to_model(each) for each in pixels])
        # Each image of a regular pattern has a lattice of its own.
        parts = [x] if self.checkpoint.pattern is None else torch.split(x, 1)
        values = torch.cat(
            [function(self.checkpoint.density(p.detach(), noise_level), p) for p in parts]
        )
        return values[0] if batch is None else values

    def image_facts(self, image: LinkedImages, noise_level: float | None = None) -> dict[str, Any]:
        """score, energy, energy_per_pixel, and open_gates: the share of open gates by layer."""
        pixels = reconstruction.fit_to_model(self.checkpoint, image, noise_level)
        return analysis.image_facts(self.checkpoint, pixels, noise_level)

    def anomaly_map(self, image: LinkedImages, noise_level: float | None = None) -> AnomalyMap:
        """How unusual each pixel is, compared with the exemplar that the run keeps.

        Args:
            image: the image.
            noise_level: of the model, 1 by default.

        Example:
            >>> found = model.anomaly_map("photo.png")
            >>> found.share, found.place  # of unusual pixels; (x, y) of the most unusual one
            (0.013, (120, 80))
        """
        exemplar = grades.kept_exemplar(self.run)
        return analysis.anomaly_map(self.checkpoint, exemplar, image, noise_level)

    def level_reports(self, on_step: OnEvaluation | None = None) -> list[LevelReport]:
        """The denoiser D at every noise level of sampling, measured on the kept exemplar.

        Of each level: noise (deviations of the data); error, the mean squared error of D on the
        noisy exemplar; data_variance and chain_variance, of D of the noisy exemplar and of D of a
        chain. The last three are in variances of the data. on_step(done, total) counts evaluations.
        """
        exemplar = grades.kept_exemplar(self.run)
        return analysis.level_reports(self.checkpoint, exemplar, self.dtype, on_step)

    def filters(self, *, kind: OutputKind = "pillow") -> Any:
        """The filters of the first layer in a grid, an image of a `kind` as in `synthesize`."""
        return convert_output(analysis.filter_sheet(self.checkpoint), kind)

    @property
    def has_texture_metrics(self) -> bool:
        """Whether `quality` can measure samples: of a large enough texture with its exemplar.

        False for published models: their default number of steps is too small to start from noise.
        """
        large = min(self.checkpoint.image_size) >= SMALLEST_SIDE
        return self.config.is_texture and large and grades.has_exemplar(self.run)

    def texture_metrics(self, exemplar: LinkedImages | None = None) -> TextureMetrics:
        """Measures samples against an exemplar, by default the one that the run keeps."""
        return grades.texture_metrics(self.checkpoint, self.run, exemplar)

    def quality(
        self,
        images: LinkedImages | None = None,
        *,
        exemplar: LinkedImages | None = None,
        count: int = 3,
        seed: int = 0,
    ) -> dict[str, float]:
        """Texture metrics by name, the median over several images.

        `gcn_cli.metrics.DESCRIPTIONS` explains each metric; 1.00 of most is as close as another
        crop of the exemplar.

        Args:
            images: samples to measure, at the scale of the model: an image, a list of images, or a
                batch: a tensor (N, C, H, W) or an array (N, H, W, C). None makes new samples.
            exemplar: image to compare with; None is the one that the run keeps.
            count: number of new samples.
            seed: seed of new samples.

        Raises:
            InputError: without an exemplar, or for images that are too small.

        Example:
            >>> model.quality("tile.png")["quality"]
            1.07
        """
        check_rules(f"count {count}", count, {"low": 1})
        texture_metrics = self.texture_metrics(exemplar)
        if images is None:
            samples = self.samples(indices=range(count), seed=seed, fit=True, kind="torch")
        else:
            samples = iter(split_batch(images) or linked_list(images))
        try:
            return grades.median(
                [texture_metrics.measure(self._first_map(sample)) for sample in samples]
            )
        except ValueError as error:  # of a sample that is too small
            raise InputError(str(error)) from error

    def _first_map(self, image: ImageLike) -> Tensor:
        """Pixels (C, H, W) of the first map, of an image of it or a tensor of all maps."""
        if isinstance(image, Tensor) and len(image) == self.config.channel_count:
            image = image[: self.maps[0].channels]
        return to_pixels(image, self.maps[:1])

    # Research: tensors in model units

    def to_model(self, image: LinkedImages) -> Tensor:
        """An image in model units, (1, C, H, W) on the device of the model, or a batch (N, ...).

        Not resized or cut.
        """
        images = split_batch(image)
        parts = [to_pixels(part, self.maps) for part in ([image] if images is None else images)]
        return torch.cat([self.checkpoint.to_model(pixels) for pixels in parts])

    def to_image(self, x: Tensor, kind: OutputKind = "pillow") -> Any:
        """The image of a tensor (C, H, W) or (1, C, H, W) in model units, clipped to 0..255."""
        pixels = self.checkpoint.normalization.to_pixels(
            x.detach().cpu().float().reshape(x.shape[-3:])
        )
        return convert_output(pixels.clamp(0, 255), kind, self.maps[0].icc_profile)

    def at_level(
        self,
        noise_level: float | None = None,
        padding_mode: PaddingMode | None = None,
        phases: PhaseMap | None = None,
    ) -> GenerativeModel:
        """The generative model p_s of images with noise of level s, in float32.

        Its methods map x (N, C, H, W) in model units:

        - score(x): f, (N,), differentiable in x;
        - basis(x): B = df/dI, like x;
        - activation_pattern(x): the gates of each layer, (N, filters, h, w), in 0..1;
        - responses(x): the rectified responses of each layer, differentiable in x.

        A published model gives a `GenerativeConvNet`, a copy whose parameters may be trained, as by
        `gcn.research.cd_step`, without a change of this model.

        Args:
            noise_level: s, 1 by default; published models have no levels.
            padding_mode: that of training by default.
            phases: of the lattice in x, for a model of a regular pattern; see `phases`.

        Raises:
            InputError: for a level that is not a positive number.

        Example:
            >>> p, x = model.at_level(0.5), model.to_model("texture.jpg")
            >>> u = gcn.research.energy(p, x)
        """
        options = SampleOptions(padding_mode=padding_mode)
        return self.checkpoint.kind.at_level(noise_level, options.padding_mode, phases)

    def phases(self, x: Tensor) -> PhaseMap | None:
        """The phases of the model's pattern in an image x (1, C, H, W) in model units.

        None if the model has no pattern, or if the image does not show it.
        """
        return self.checkpoint.phases(x)

    def denoiser(
        self, padding_mode: PaddingMode | None = None, phases: PhaseMap | None = None
    ) -> Denoiser:
        """D(x, s): the mean of the clean images given x (N, C, H, W) with noise of level s.

        In model units. grad log p_s(x) = (D(x, s) - x) / s^2, with p_s of `at_level` for the same
        padding_mode; below noise_min it is that of noise_min. Sides are multiples of the stride.
        Parameters are copied. D raises InputError for levels above noise_max, or not above 0.

        Args:
            padding_mode: that of training by default; `synthesize` uses "circular" for textures.
            phases: of the lattice in x, for a model of a regular pattern; see `phases`.

        Raises:
            InputError: for published models, which have no noise levels.

        Example:
            >>> clean = model.denoiser()(x + 0.5 * torch.randn_like(x), 0.5)
        """
        config, plan = self.config, TilingPlan(self.checkpoint.image_size)
        options = SampleOptions(padding_mode=padding_mode or config.padding_mode)
        learned = self.checkpoint.kind.denoiser(options, plan, self.dtype, phases)
        assert isinstance(config, NoiseConditionalConfig)  # other kinds have no denoiser
        lowest, highest = config.noise_min, config.noise_max
        extrapolated = reconstruction.extrapolated_denoiser(learned, lowest)

        def denoise(x: Tensor, noise: float) -> Tensor:
            if not 0 < noise <= highest:
                raise InputError(f"noise level {noise:g}: must be above 0, and {highest:g} or less")
            return extrapolated(x, noise)

        return denoise


@public
def load(run: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> Model:
    """A trained model.

    Its parameters need no gradient: score(x) and responses(x) of `at_level` are differentiable in x
    alone, basis(x) is not differentiable.

    Args:
        run: a run folder or model file; None is the newest run under runs/.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, float32 or bf16.

    Raises:
        InputError: if there is no such model, or the device cannot be used.

    Example:
        >>> model = gcn.load("runs/texture")
    """
    chosen, path = choose_device(device), model_path(None if run is None else str(run))
    checkpoint = checkpoint_file.load(path, chosen)
    checkpoint.kind.net.requires_grad_(False)
    smooth_gates = checkpoint.config.smooth_gates
    return Model(checkpoint, choose_precision(precision, chosen, smooth_gates=smooth_gates), path)
