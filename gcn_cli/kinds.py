"""The kinds of models: how each is built, trained, evaluated and sampled.

`NoiseConditionalKind` is the resolution cascade of noise-conditional nets, `PublishedKind` the
generative ConvNet of the papers. They have the same methods, and `ModelKind` is either: other code
never tests which. Images are (N, C, H, W) in model units.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.config import Config, NoiseConditionalConfig, PublishedConfig, check_rules
from gcn_cli.errors import InputError
from gcn_cli.models.cascade import Cascade, make_denoiser, model_at
from gcn_cli.models.chunks import Allocator, allocator_like, chunks
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import FastNet
from gcn_cli.models.energy import Denoiser, GenerativeModel, energy_gradient
from gcn_cli.models.layers import LayerSpec, PaddingMode, responses_per_pixel
from gcn_cli.models.noise_conditional import NoiseConditionalNet, PhaseMap, SmoothReLU
from gcn_cli.options import SampleOptions
from gcn_cli.pattern import Pattern, PhaseField
from gcn_cli.samplers.annealed import anneal, count_evaluations, noise_levels, with_restarts
from gcn_cli.samplers.guidance import KnownMeans, KnownPixels
from gcn_cli.samplers.langevin import Callback, run_chain
from gcn_cli.samplers.rng import ImageNoise, named_generator
from gcn_cli.training.data import NormalMap, TrainingData
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Trainer
from gcn_cli.training.published import PublishedTrainer
from gcn_cli.training.trainer import CascadeTrainer


@dataclass(frozen=True)
class TilingPlan:
    """The size that chains run at, (height, width), and how an evaluation is split into blocks."""

    size: tuple[int, int]
    block: int | None = None  # side in pixels; None evaluates the whole image at once
    allocator: Allocator | None = None  # of the chains; None is memory of the model's device
    on_block: Callable[[], None] | None = None  # called after every block

    @property
    def blocks(self) -> int:
        """Number of blocks of one evaluation."""
        if self.block is None:
            return 1
        return (-(-self.size[0] // self.block)) * (-(-self.size[1] // self.block))


DenoiserWrapper = Callable[[Denoiser], Denoiser]
"""Turns a denoiser into a guided or constrained one."""

TEXTURE_STEPS = 25  # more evaluations hardly improve textures
OBJECT_STEPS = 60  # aligned objects improve up to here
RESTARTED = (0.5, 3.0)  # noise levels at which shapes are decided, sampled again by restarts
WORKING_BYTES = 400 * 2**20  # of the program and its temporary tensors
BYTES_PER_GATE_BYTE = 2.8  # memory of an evaluation over that of all gates, measured
FREE_BORDER = 64  # pixels that are cut off along axes that do not tile
DEFAULT_LEVEL = 1.0  # where noise is as strong as the data


@dataclass(frozen=True)
class NoiseConditionalKind:
    """A resolution cascade of generative ConvNets for all noise levels."""

    config: NoiseConditionalConfig
    net: Cascade
    keeps_known_pixels = True  # whether `sample` takes `known`

    def with_config(self, config: Config) -> "NoiseConditionalKind":
        """The same network under another config of this kind."""
        assert isinstance(config, type(self.config))
        return replace(self, config=config)

    def density(
        self,
        level: float | None,
        dtype: torch.dtype,
        padding_mode: PaddingMode | None = None,
        phases: PhaseMap | None = None,
    ) -> GenerativeModel:
        """The generative ConvNet p_s at a noise level, by default 1, with the padding of training.

        phases: of the lattice in the images. Raises InputError for a level that was not trained.
        """
        self._check_level(level)
        if padding_mode is not None:
            _check_padding(padding_mode)
        noise = DEFAULT_LEVEL if level is None else level
        return model_at(self.net, noise, dtype, padding_mode, phases)

    def _check_level(self, level: float | None) -> None:
        """Raise InputError for a noise level that is not positive, or above those of training."""
        shown = f"--noise-level {level}"
        check_rules(shown, level, {"above": 0, "high": self.config.noise_max})

    def at_level(
        self,
        level: float | None,
        padding_mode: PaddingMode | None = None,
        phases: PhaseMap | None = None,
    ) -> GenerativeModel:
        """`density` in float32, as the public API gives it."""
        return self.density(level, torch.float32, padding_mode, phases)

    @property
    def device(self) -> torch.device:
        return self.net.device

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """The largest usable size, at most (H, W), at a noise level, by default 1."""
        return self.net.fitting(height, width, self._stage(level))

    def stages(self) -> list[dict[str, float | str]]:
        """Of each stage: resolution, noise level above which it is used, receptive field.

        Noise levels and pixels are those of full resolution.
        """
        above, scale = [0.0], 1.0
        for transition, gain in self.net.links():
            above.append(round(transition * scale, 2))
            scale *= 2 / gain
        return [
            {
                "resolution": f"1/{1 << stage}" if stage else "1",
                "above": level,
                "receptive_field": max(self.net.receptive_fields(stage)),
            }
            for stage, level in enumerate(above)
        ]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels of the receptive field of each layer at a noise level, by default 1."""
        return self.net.receptive_fields(self._stage(level))

    def _stage(self, level: float | None) -> int:
        """The index of the stage in charge of a noise level."""
        return self.net.stage_at(DEFAULT_LEVEL if level is None else level)

    def sampling_size(self, options: SampleOptions, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that chains run at for images of `size`.

        Axes that do not tile have a border that is cut off. Raises InputError for an option that
        this kind does not support.
        """
        self._check(options)
        circular = self._padding_mode(options) is PaddingMode.CIRCULAR
        border, stride = FREE_BORDER if circular else 0, self.net.total_stride
        height, width = (
            side if periodic else -(-(side + border) // stride) * stride
            for side, periodic in zip(size, self.periodic_axes(options), strict=True)
        )
        return height, width

    def _check(self, options: SampleOptions) -> None:
        """Raise InputError for an option that noise-conditional models do not support."""
        for given, option in (
            (options.start_kind == "chains", "--start chains"),
            (options.step_size is not None, "--set step_size"),
            (not options.noise, "--set noise"),
        ):
            if given:
                raise InputError(f"{option}: only for published models; leave it out")
        if options.noise_level is not None and options.start_kind == "noise":
            raise InputError("--noise-level: needs --start IMAGE")
        self._check_level(options.noise_level)
        if options.steps is not None and options.steps < 1:
            raise InputError(f"--steps {options.steps}: must be 1 or more for this model")
        if options.seamless is None:
            return
        if self.config.head and options.seamless != "off":
            raise InputError(
                f"--seamless {options.seamless}: models of aligned objects do not tile"
            )
        if options.padding_mode not in (None, PaddingMode.CIRCULAR):
            raise InputError(
                f"--seamless: needs circular padding; leave padding_mode={options.padding_mode} out"
            )

    def periodic_axes(self, options: SampleOptions) -> tuple[bool, bool]:
        """Whether samples tile vertically and horizontally: by default both, as --seamless says."""
        if self._padding_mode(options) is not PaddingMode.CIRCULAR:
            return False, False
        return options.seamless in (None, "both", "y"), options.seamless in (None, "both", "x")

    def _padding_mode(self, options: SampleOptions) -> PaddingMode:
        """By default circular; that of training for models of aligned objects."""
        default = self.config.padding_mode if self.config.head else PaddingMode.CIRCULAR
        mode = options.padding_mode or default
        _check_padding(mode)
        return mode

    def evaluations(self, options: SampleOptions) -> int:
        """Evaluations of D for each sample."""
        levels = count_evaluations(self._noise_levels(options))
        return (levels - 1) * (options.resampling_steps or 1) + 1

    def _noise_levels(self, options: SampleOptions) -> list[float]:
        """Noise levels with restarts; dropped until `options.steps` evaluations suffice."""
        config, highest = self.config, self.config.noise_max
        if options.start_kind != "noise":
            highest = max(options.noise_level or DEFAULT_LEVEL, config.noise_min)
        default = OBJECT_STEPS if config.head else TEXTURE_STEPS
        count = most = default if options.steps is None else options.steps
        while True:
            levels = noise_levels(count, highest, config.noise_min)
            levels = with_restarts(levels, RESTARTED, options.restarts)
            if options.steps is None or count_evaluations(levels) <= most:
                return levels
            count -= 1

    def block(self, options: SampleOptions, side: int) -> tuple[int, int] | None:
        """A block side of at least `side` pixels, and the side of the input that it depends on.

        None if images can only be evaluated whole.
        """
        if self.config.head or self._padding_mode(options) is not PaddingMode.CIRCULAR:
            return None
        stride = self.net.stage_stride()
        block = -(-side // stride) * stride
        return block, block + 2 * self.net.finest.reach()

    def state_bytes(self, size: tuple[int, int]) -> int:
        """Estimated memory of a chain of `size` between two evaluations."""
        # The image, D and the D before; spectra of a color axis; details and coarser images.
        values = 12 + 7 * (len(self.net.nets) > 1)
        return (values * self.config.channel_count + 4) * size[0] * size[1] + WORKING_BYTES

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Estimated memory of an evaluation of an image of `size`, in addition to the chain."""
        # Gates of all layers, and temporary maps of the widest layer.
        values = responses_per_pixel(self.net.layers, self.config.space_to_depth) * dtype.itemsize
        return int(size[0] * size[1] * BYTES_PER_GATE_BYTE * values)

    def sample(
        self,
        options: SampleOptions,
        indices: Sequence[int],
        start: Tensor | None,
        plan: TilingPlan,
        dtype: torch.dtype,
        callback: Callback,
        *,
        known: KnownPixels | KnownMeans | None = None,
        guidance: DenoiserWrapper | None = None,
        phases: PhaseMap | None = None,
    ) -> Tensor:
        """Samples of these indices by annealed Langevin dynamics, (N, C, H, W) of `plan.size`.

        start: images (N, C, H, W) to which noise is added first; None starts from white noise.
        known: what is known of the images, on the device of the network. guidance: wraps the
        denoiser. phases: of the lattice of a regular pattern, the same for all samples.
        """
        levels = self._noise_levels(options)
        device = self.device
        allocate = plan.allocator or allocator_like(self.net.first_filters)
        x = allocate((len(indices), self.config.channel_count, *plan.size), torch.float32)
        initial_noise = ImageNoise(options.seed, "start", indices, device)
        for (part,) in chunks(x):
            part.copy_(initial_noise(part.shape))
        known_noise = None if known is None else levels[0] * x
        if start is None:
            x.mul_(math.sqrt(levels[0] ** 2 + 1))
        else:
            x.mul_(levels[0]).add_(start.to(device))
        denoise = self._denoiser(options, plan, dtype, phases)
        if guidance is not None:
            denoise = guidance(denoise)
        noise = ImageNoise(options.seed, "chain", indices, device).scaled(options.temperature)
        if known is None or known_noise is None:
            return anneal(x, denoise, levels, noise, callback)
        x, denoise = known.place(x, known_noise), known.constrain(denoise)
        resampling = options.resampling_steps or 1
        return anneal(x, denoise, levels, noise, callback, resampling=resampling)

    def denoiser(
        self,
        options: SampleOptions,
        plan: TilingPlan,
        dtype: torch.dtype,
        phases: PhaseMap | None = None,
    ) -> Denoiser:
        """D with the padding of the options; noise levels are clamped to those learned."""
        if plan.block is not None and plan.block % self.net.stage_stride():
            stride = self.net.stage_stride()
            raise InputError(f"--tile {plan.block}: must be a multiple of {stride}")
        denoise = self._denoiser(options, replace(plan, on_block=None), dtype, phases)
        lowest, highest = self.config.noise_min, self.config.noise_max
        return lambda x, noise: denoise(x, min(max(noise, lowest), highest))

    def _denoiser(
        self, options: SampleOptions, plan: TilingPlan, dtype: torch.dtype, phases: PhaseMap | None
    ) -> Denoiser:
        mode, block = self._padding_mode(options), plan.block
        return make_denoiser(self.net, dtype, mode, block, plan.allocator, plan.on_block, phases)


def _check_padding(padding_mode: PaddingMode) -> None:
    """Raise InputError for the padding mode that only published models have."""
    if padding_mode is PaddingMode.VALID:
        raise InputError("--set padding_mode=valid: only for published models; use another")


LANGEVIN_STEPS = 100


@dataclass(frozen=True)
class PublishedKind:
    """The generative ConvNet of the papers."""

    config: PublishedConfig
    net: GenerativeConvNet
    keeps_known_pixels = False

    @property
    def device(self) -> torch.device:
        return self.net.first_filters.device

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """The whole image: filters that do not divide it leave a border out."""
        return self.net.fitting(height, width)

    def stages(self) -> list[dict[str, float | str]]:
        """One network, at full resolution."""
        return [{"resolution": "1", "above": 0.0, "receptive_field": max(self.receptive_fields())}]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        return self.net.receptive_fields()

    def with_config(self, config: Config) -> "PublishedKind":
        assert isinstance(config, type(self.config))
        return replace(self, config=config)

    def density(
        self, level: float | None, dtype: torch.dtype, *, phases: PhaseMap | None = None
    ) -> FastNet:
        """The network with a fast basis; its parameters must not change. Raises for a level."""
        del phases
        if level is not None:
            raise _no_noise_levels("--noise-level")
        return FastNet(self.net, dtype)

    def at_level(
        self,
        level: float | None,
        padding_mode: PaddingMode | None = None,
        phases: PhaseMap | None = None,
    ) -> GenerativeConvNet:
        """A copy of the network that may be trained. Raises InputError for a level."""
        del phases
        if level is not None:
            raise _no_noise_levels("--noise-level")
        net = self.net.with_padding(padding_mode or self.config.padding_mode)
        return copy.deepcopy(net).requires_grad_(True)

    def sampling_size(self, options: SampleOptions, size: tuple[int, int]) -> tuple[int, int]:
        """The size itself, which has to fit the layers."""
        if options.noise_level is not None:
            raise _no_noise_levels("--noise-level")
        if options.restarts:
            raise _no_noise_levels("--restarts")
        if options.seamless is not None:
            raise InputError(
                "--seamless: only for noise-conditional models; use padding_mode=circular"
            )
        try:
            self._padded_net(options).map_sizes(*size)
        except ValueError as error:
            raise InputError(f"--size {size[1]}x{size[0]}: {error}") from error
        return size

    def periodic_axes(self, options: SampleOptions) -> tuple[bool, bool]:
        circular = self._padded_net(options).padding_mode is PaddingMode.CIRCULAR
        return circular, circular

    def evaluations(self, options: SampleOptions) -> int:
        return LANGEVIN_STEPS if options.steps is None else options.steps

    def block(self, options: SampleOptions, side: int) -> tuple[int, int] | None:
        """None: images have the size of training."""
        return None

    def state_bytes(self, size: tuple[int, int]) -> int:
        """The image, its gradient, noise."""
        return 12 * self.config.channel_count * size[0] * size[1]

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Gates of all layers, and the maps of one."""
        return int(size[0] * size[1] * responses_per_pixel(self.net.layers) * dtype.itemsize)

    def sample(
        self,
        options: SampleOptions,
        indices: Sequence[int],
        start: Tensor | None,
        plan: TilingPlan,
        dtype: torch.dtype,
        callback: Callback,
        *,
        known: KnownPixels | KnownMeans | None = None,
        guidance: DenoiserWrapper | None = None,
        phases: PhaseMap | None = None,
    ) -> Tensor:
        """Langevin chains from the reference distribution, or from `start`; it sees no lattice."""
        del phases
        if known is not None:
            raise InputError("a published model cannot repair images; train with --preset default")
        if guidance is not None:
            raise _no_noise_levels("--guide, --blend")
        net = self._padded_net(options)
        if start is None:
            shape = (len(indices), self.config.channel_count, *plan.size)
            start = net.sigma * ImageNoise(options.seed, "start", indices)(shape)
        noise = ImageNoise(options.seed, "chain", indices, self.device).scaled(options.temperature)
        return run_chain(
            start.to(self.device, copy=True),  # without steps it is returned and changed in place
            energy_gradient(net.sigma, FastNet(net, dtype).basis),
            steps=self.evaluations(options),
            step_size=options.step_size or self.config.step_size,
            noise=noise if options.noise else None,
            callback=callback,
        )

    def denoiser(
        self,
        options: SampleOptions,
        plan: TilingPlan,
        dtype: torch.dtype,
        phases: PhaseMap | None = None,
    ) -> Denoiser:
        """Raises InputError: there is no noise to remove."""
        raise _no_noise_levels()

    def _padded_net(self, options: SampleOptions) -> GenerativeConvNet:
        """The network with the padding of the options."""
        return self.net.with_padding(options.padding_mode or self.config.padding_mode)


def _no_noise_levels(option: str = "") -> InputError:
    text = "a published model has no noise levels; train with --preset default"
    return InputError(f"{option}: {text}" if option else text)


ModelKind = NoiseConditionalKind | PublishedKind


def build_kind(
    config: Config,
    image_size: tuple[int, int],
    layers: Sequence[LayerSpec] | None = None,
    lattice_axes: int = 0,
) -> ModelKind:
    """The kind of a config, with a network of `layers` whose parameters are all zero.

    image_size: (H, W) of aligned images, which a model with a head has weights for. lattice_axes:
    along which the images repeat, for a noise-conditional model.
    """
    layers = config.layers if layers is None else layers
    head_size = image_size if config.head else None
    if isinstance(config, PublishedConfig):
        published = GenerativeConvNet(
            layers,
            channels=config.channel_count,
            padding_mode=config.padding_mode,
            sigma=config.sigma,
            image_size=head_size,
        )
        return PublishedKind(config, published)
    coarser = [layers[: config.stage_layers]] * ((config.stages or 1) - 1)
    nets = [
        NoiseConditionalNet(
            stage_layers,
            channels=config.channel_count,
            space_to_depth=config.space_to_depth,
            padding_mode=config.padding_mode,
            rectifier=SmoothReLU(config.gate_width, config.exact_gates),
            image_size=head_size,
            lattice_axes=lattice_axes,
        )
        for stage_layers in [layers, *coarser]
    ]
    return NoiseConditionalKind(config, Cascade(nets))


def make_trainer(
    config: Config,
    images: Sequence[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    known: Sequence[Tensor] | None = None,
    pattern: Pattern | None = None,
    phases: Sequence[PhaseField] | None = None,
    normals: Sequence[NormalMap] = (),
) -> tuple[ModelKind, Trainer]:
    """An initialized model on `device` and its trainer, for images (C, H, W) in model units.

    known: masks (H, W) of the pixels to learn from, by default all.
    dtype: of the maps. group: the processes that share the training. pattern, phases: of the
    images; None for irregular ones and for published models. normals: the normal maps among the
    channels. Raises ValueError if the images do not fit each other, the crop or the layers,
    InputError if there are fewer images than processes.
    """
    data = TrainingData(
        [image.to(device) for image in images],
        known=None if known is None else [mask.to(device) for mask in known],
        crop=config.crop,
        batch_size=config.batch_size,
        generator=named_generator(config.seed, "batches"),
        flips=config.flips,
        rotations=config.rotations,
        shifts=config.shifts,
        phases=phases and [field.to(device) for field in phases],
        phase_step=config.space_to_depth * config.layers[0].stride,
        normals=normals,
    )
    with torch.device("meta"):  # layers that are added later must fit too
        build_kind(config, data.image_size).net.map_sizes(*data.image_size)
    axes = 0 if pattern is None else pattern.axes
    kind = build_kind(config, data.image_size, config.initial_layers, axes)
    kind.net.to(device)
    if isinstance(kind, NoiseConditionalKind):
        group.require_images("--batch-size", data.batch_size)
        return kind, CascadeTrainer(kind.config, kind.net, data, dtype, group, pattern=pattern)
    generator = named_generator(config.seed, "layer", 0)
    kind.net.initialize(kind.config.init_deviation, generator)
    return kind, PublishedTrainer(kind.config, kind.net, data, dtype, group)
