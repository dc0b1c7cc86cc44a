"""The public Python API: `train`, `load`, `compare`, and the `Model` that they return.

Nothing is printed (messages go to the logger "gcn_cli"), nothing exits, no signal is caught. Errors
are those of `gcn_cli.errors`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcn_cli import analysis, inpaint, reconstruction, synthesis
from gcn_cli import checkpoint as checkpoint_file
from gcn_cli.analysis import AnomalyMap, Comparison, LevelReport
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import Config, NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap, split_maps
from gcn_cli.images.color import ColorMatch
from gcn_cli.inputs import (
    ImageLike,
    LinkedImages,
    OutputKind,
    TrainingImages,
    convert_output,
    linked_list,
    load_training_images,
    open_image,
    output_kind_of,
    to_pixels,
)
from gcn_cli.kinds import TilingPlan
from gcn_cli.metrics import SMALLEST_SIDE, TextureMetrics
from gcn_cli.models.energy import Denoiser, GenerativeModel
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import PhaseMap
from gcn_cli.options import ReconstructOptions, SampleOptions, TrainOptions
from gcn_cli.presets import build_config, read_toml
from gcn_cli.runs import grades
from gcn_cli.runs.folder import model_path
from gcn_cli.runs.job import OnStep, run_training
from gcn_cli.runs.session import Session
from gcn_cli.runtime import choose_device, choose_precision
from gcn_cli.synthesis import OnEvaluation
from gcn_cli.training.distributed import current_group
from gcn_cli.training.loop import Metrics

__all__ = ["Model", "compare", "forecast", "load", "train"]


class Model:
    """A trained model.

    Images go in as paths, Pillow images, arrays (H, W, C) or tensors (C, H, W), in 0..255; a model
    of linked maps takes a list with one image for each map. Noise levels are in deviations of the
    data; model units have mean 0 and, for noise-conditional models, deviation 1.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, path: Path | None = None
    ) -> None:
        """`dtype` is the number format of activations, `path` the model file if there is one."""
        self.checkpoint, self.dtype, self.path = checkpoint, dtype, path

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
        size: tuple[int, int] | None = None,
        count: int = 1,
        seed: int = 0,
        steps: int | None = None,
        *,
        kind: OutputKind = "pillow",
        **options: Any,
    ) -> list[Any]:
        """New images of `size` (width, height); `kind`: "pillow", "numpy" or "torch" (C, H, W).

        Image k of a seed does not depend on the count. `options` are fields of `SampleOptions`, and
        on_step and on_state of `samples`. Raises InputError for an option that the model does
        not support, DivergedError if a chain diverges.
        """
        options |= {"size": size, "seed": seed, "steps": steps, "indices": range(count)}
        profile = self.maps[0].icc_profile
        return [convert_output(pixels, kind, profile) for pixels in self.samples(**options)]

    def samples(
        self,
        options: SampleOptions | None = None,
        *,
        indices: Sequence[int] = (0,),
        on_step: OnEvaluation | None = None,
        on_state: Callable[[Tensor], None] | None = None,
        **changes: Any,
    ) -> Iterator[Tensor]:
        """Samples one by one, (C, H, W) in 0..255, not rounded.

        `changes` are fields of `SampleOptions` that differ from `options`; `blend` may be a `Model`
        or a path. indices: which samples of the seed. on_step(done, total) counts evaluations over
        all images and blocks. on_state gets the chains (N, C, H, W) in model units.
        """
        options = (options or SampleOptions()).with_changes(**changes)
        if options.blend is not None:
            blend = options.blend
            other = blend if isinstance(blend, Model) else load(blend, device=str(self.device))
            options = replace(options, blend=other.checkpoint)
        return synthesis.samples(
            self.checkpoint, options, indices, self.dtype, on_step=on_step, on_state=on_state
        )

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
        self, image: LinkedImages, steps: int = 1, noise_level: float | None = None
    ) -> Any:
        """Auto-encode an image: sigma^2 B(I), in the type of the image (Pillow for a file).

        With several steps, a descent to a mode of the energy. The result has the size that the
        model sees: shrunk as in training and cut to the stride.
        """
        pixels, _ = self.auto_encode(image, steps, noise_level)
        return convert_output(pixels, output_kind_of(image), self.maps[0].icc_profile)

    def auto_encode(
        self, image: LinkedImages, steps: int = 1, noise_level: float | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """`reconstruct` as (C, H, W) in 0..255, and the metrics of `reconstruction.auto_encode`."""
        pixels = reconstruction.fit_to_model(self.checkpoint, image, noise_level)
        density = self.checkpoint.density(self.checkpoint.to_model(pixels), noise_level, self.dtype)
        return reconstruction.auto_encode(self.checkpoint, density, pixels, steps)

    def repair(
        self,
        image: LinkedImages,
        mask: ImageLike | None = None,
        *,
        on_step: OnEvaluation | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Variants of an image, (C, H, W) in 0..255, with a part sampled and the rest kept exactly.

        mask: a gray image or boolean array of the same size, white or True where to repair, or
        "alpha" for transparent parts. `options` are fields of `ReconstructOptions`: extend or
        make_seamless in place of a mask; seamless, count, seed, steps, resampling_steps. Files are
        converted to the color profile of the model, and back.
        """
        chosen = ReconstructOptions().with_changes(mask=mask, **options)
        colors = ColorMatch.of([open_image(p) for p in linked_list(image)], self.maps)
        drop_alpha = isinstance(mask, str) and mask == "alpha"
        variants = inpaint.repair(self.checkpoint, colors.images, chosen, self.dtype, on_step)
        for variant in variants:
            yield colors.restore(variant, sides=chosen.extend, drop_alpha=drop_alpha)

    def denoise(self, image: LinkedImages, sigma: float | None = None) -> Tensor:
        """An image without its white noise, (C, H, W) in 0..255.

        sigma: deviation of the noise in gray levels; None estimates it. Transparency that the model
        does not know is kept.
        """
        colors = ColorMatch.of([open_image(p) for p in linked_list(image)], self.maps)
        source = inpaint.SourceImages.of(colors.images, self.maps, drop_alpha=False)
        clean, _ = reconstruction.denoise_image(self.checkpoint, source.pixels, sigma, self.dtype)
        return colors.restore(source.restore(clean, (0, 0, 0, 0)))

    # Evaluation

    def score(self, image: LinkedImages, noise_level: float | None = None) -> float:
        """f(I; w), of noise-conditional models at a noise level (1 by default).

        The image is resized as in training and cut to the stride; no noise is added.
        """
        return float(self.image_facts(image, noise_level)["score"])

    def energy(self, image: LinkedImages, noise_level: float | None = None) -> float:
        """U(I) = |I|^2 / (2 sigma^2) - f(I), of noise-conditional models at a noise level.

        The image is resized as in training and cut to the stride; no noise is added.
        """
        return float(self.image_facts(image, noise_level)["energy"])

    def image_facts(self, image: LinkedImages, noise_level: float | None = None) -> dict[str, Any]:
        """score, energy, energy_per_pixel, and open_gates: the share of open gates by layer."""
        pixels = reconstruction.fit_to_model(self.checkpoint, image, noise_level)
        return analysis.image_facts(self.checkpoint, pixels, noise_level)

    def anomaly_map(self, image: LinkedImages, noise_level: float | None = None) -> AnomalyMap:
        """How unusual each pixel is, compared with the exemplar that the run keeps."""
        exemplar = grades.kept_exemplar(self.run)
        return analysis.anomaly_map(self.checkpoint, exemplar, image, noise_level)

    def level_reports(self) -> list[LevelReport]:
        """The denoiser D at every noise level of sampling, measured on the kept exemplar.

        Of each level: noise (deviations of the data); error, the mean squared error of D on the
        noisy exemplar; data_variance and chain_variance, of D of the noisy exemplar and of D of a
        chain. The last three are in variances of the data.
        """
        exemplar = grades.kept_exemplar(self.run)
        return analysis.level_reports(self.checkpoint, exemplar, self.dtype)

    def filters(self) -> Tensor:
        """The filters of the first layer in a grid, (C, H, W) in 0..255."""
        return analysis.filter_sheet(self.checkpoint)

    @property
    def has_texture_metrics(self) -> bool:
        """Whether `quality` can measure samples: of a large enough texture with its exemplar.

        False for published models: their default number of steps is too small to start from noise.
        """
        large = min(self.checkpoint.image_size) >= SMALLEST_SIDE
        return self.config.is_texture and large and grades.kept_exemplar(self.run) is not None

    def texture_metrics(self, exemplar: LinkedImages | None = None) -> TextureMetrics:
        """Measures samples against an exemplar, by default the one that the run keeps."""
        return grades.texture_metrics(self.checkpoint, self.run, exemplar)

    def quality(
        self,
        sample: Tensor | None = None,
        *,
        exemplar: LinkedImages | None = None,
        count: int = 3,
        seed: int = 0,
    ) -> dict[str, float]:
        """Texture metrics of a sample (C, H, W) in 0..255, or the median over `count` new samples.

        `metrics.DESCRIPTIONS` explains each metric. Raises InputError without an exemplar.
        """
        texture_metrics = self.texture_metrics(exemplar)
        if sample is None:
            samples = self.samples(indices=range(count), seed=seed, fit=True)
        else:
            samples = iter([sample])
        first_map = self.maps[0].channels
        return grades.median([texture_metrics.measure(pixels[:first_map]) for pixels in samples])

    # Research: tensors in model units

    def to_model(self, image: LinkedImages) -> Tensor:
        """An image in model units, (1, C, H, W) on the device of the model, not resized or cut."""
        return self.checkpoint.to_model(to_pixels(image, self.maps))

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
        """The generative model p_s of images with noise of level s, 1 by default, in float32.

        It maps x (N, C, H, W) in model units: score(x) -> f, (N,); basis(x) -> B = df/dI, like x;
        activation_pattern(x) -> gates of each layer, (N, filters, h, w), in 0..1; responses(x), the
        same for rectified responses. score and responses are differentiable in x, basis is not.
        Its energy is `gcn_cli.research.energy(p, x)`. padding_mode is that of training by default.
        phases: of the lattice in x, for a model of a regular pattern; see `phases`.

        A published model has no levels: leave it out. It gives a `GenerativeConvNet`, a copy whose
        parameters may be trained, as by `gcn_cli.research.cd_step`, without a change of this model.
        Raises InputError for a level that is not a positive number.
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

        Model units; grad log p_s(x) = (D(x, s) - x) / s^2, with p_s of `at_level` for the same
        padding_mode. It is that of training by default; `synthesize` uses "circular" for textures.
        phases: of the lattice in x, for a model of a regular pattern; see `phases`.
        Sides are multiples of the stride. Parameters are copied. Below noise_min, grad log p_s is
        that of noise_min. D raises InputError for levels above noise_max, or not above 0; this
        method raises it for published models, which have no noise levels.
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


def load(run: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> Model:
    """The model of a run folder or model file; None is the newest under runs/.

    device: auto, cpu, cuda, cuda:1, mps; precision: auto, float32, bf16. The parameters need no
    gradient: score(x) and responses(x) of `at_level` are differentiable in x alone, basis(x) is not
    differentiable. Raises InputError.
    """
    chosen, path = choose_device(device), model_path(None if run is None else str(run))
    checkpoint = checkpoint_file.load(path, chosen)
    checkpoint.kind.net.requires_grad_(False)
    smooth_gates = checkpoint.config.smooth_gates
    return Model(checkpoint, choose_precision(precision, chosen, smooth_gates=smooth_gates), path)


def train(
    images: ImageLike | Sequence[ImageLike],
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    **options: Any,
) -> Model:
    """Train a model on one image, several, or a folder of images.

    `options` are fields of `TrainOptions` (preset, output, max_time, device ...) and settings of
    the config (iterations, learning_rate ...). Without `output` the model stays in memory; with it,
    training in that folder is resumed. on_step(iteration, last_iteration, metrics) is called after
    every iteration; training is saved and ends early if should_stop() is true. Raises InputError,
    DivergedError.
    """
    request = _training_request(images, options)
    session = run_training(*request, on_step=on_step, should_stop=should_stop)
    output = request[2].output
    path = None if output is None else model_path(str(output))
    return Model(session.checkpoint(), session.dtype, path)


def forecast(images: ImageLike | Sequence[ImageLike], **options: Any) -> dict[str, Any]:
    """Resolved config, iterations, seconds and MiB of `train` with the same arguments.

    Times a few iterations; writes nothing. Raises InputError as `train` does.
    """
    return grades.training_forecast(Session.begin(*_training_request(images, options)))


def compare(
    models: Sequence[Model | str | Path], image: LinkedImages, *, device: str = "auto"
) -> list[Comparison]:
    """Which of several noise-conditional texture models made an image, with equal priors.

    Returns a `Comparison` for each model. Raises InputError for other models.
    """
    loaded = [m if isinstance(m, Model) else load(m, device=device) for m in models]
    opened = open_image(image) if isinstance(image, str | Path) else image
    return analysis.compare_models([m.checkpoint for m in loaded], opened, torch.float32)


def _training_request(
    images: ImageLike | Sequence[ImageLike], keywords: dict[str, Any]
) -> tuple[TrainingImages, Config, TrainOptions]:
    """The images, the requested config and the options of a training."""
    options = TrainOptions.from_keywords(keywords)
    file = read_toml(str(options.config)) if options.config else {}
    config = build_config(options.settings, file, options.preset)
    options = replace(options, settings={**file, **options.settings}, config=None)
    with current_group().synchronized():
        training_images = load_training_images(images, options, config)
    return training_images, config, options
