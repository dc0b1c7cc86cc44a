"""The canvas of a sample: its size, and how one that is huge is gone through.

What differs between families of models, and is asked of the family, never of its type.

A ladder among the families: how it is made, learned, evaluated and sampled.

The published model among the families: how it is made, learned, evaluated and sampled.

From a config and pictures to a learner, ready for its first step or for a saved state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.config import Config, NoiseConditionalConfig, PublishedConfig
from gcn_cli.errors import InputError
from gcn_cli.models.cascade import NoiseLevelModel, make_denoiser, model_at
from gcn_cli.models.chunks import Allocator, allocator_like, chunks
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import FastNet
from gcn_cli.models.energy import GenerativeModel, energy_gradient
from gcn_cli.models.layers import LayerSpec, PaddingMode, responses_per_pixel
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.options import SampleOptions, check_positive, size_error
from gcn_cli.pattern import Pattern
from gcn_cli.samplers.annealed import (
    Denoiser,
    anneal,
    count_evaluations,
    noise_levels,
    with_restarts,
)
from gcn_cli.samplers.inpainting import KnownPixels
from gcn_cli.samplers.langevin import Callback, run_chain
from gcn_cli.samplers.rng import ImageNoise, named_generator
from gcn_cli.training.data import TrainingData
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Trainer
from gcn_cli.training.published import (
    ContrastiveChains,
    LangevinChains,
    PublishedTrainer,
    SynthesizedImages,
)
from gcn_cli.training.trainer import (
    REFINED_FULLY,
    REFINED_FULLY_ALIGNED,
    CascadeTrainer,
    StageTrainer,
    fit_spectrum,
)


@dataclass(frozen=True)
class TilingPlan:
    """What chains run at: `size` (H, W) in pixels."""

    size: tuple[int, int]
    block: int | None = None  # B is evaluated block by block of this side; None takes all at once
    room: Allocator | None = None  # where the state is laid; None is memory
    on_block: Callable[[], None] | None = None  # called after every block

    @property
    def blocks(self) -> int:
        """How many an evaluation takes."""
        if self.block is None:
            return 1
        return (-(-self.size[0] // self.block)) * (-(-self.size[1] // self.block))


Network = GenerativeConvNet | NoiseConditionalNet


class ModelKind(Protocol):
    """A network and the config it was made from. Images are (N, C, H, W) in model units."""

    @property
    def config(self) -> Config: ...

    @property
    def net(self) -> Network: ...

    @property
    def stride(self) -> int:
        """What sides of pictures that are evaluated at all levels are multiples of."""
        ...

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """The largest (H, W) within that can be evaluated at a level, by default the usual one."""
        ...

    def octaves(self) -> list[dict[str, float | str]]:
        """Of every network: resolution, the noise above which it answers, pixels it looks at."""
        ...

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at, at a level."""
        ...

    def with_config(self, config: Config) -> "ModelKind":
        """The same network under another config of its kind."""
        ...

    def learner(
        self,
        observed: TrainingData,
        device: torch.device,
        dtype: torch.dtype,
        ranks: ProcessGroup,
        *,
        pattern: Pattern | None,
    ) -> Trainer:
        """What trains the network, which moves to `device`; `ranks` share the work.

        `pattern` is that of the observed pictures, None where they have none.
        """
        ...

    def density(self, level: float | None, dtype: torch.dtype) -> GenerativeModel:
        """The generative ConvNet to evaluate, at a noise level where there are several."""
        ...

    def canvas(self, request: SampleOptions, trained: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that chains run at; `trained` is the default size of samples.

        Raises InputError for what the family cannot do or would ignore.
        """
        ...

    def closed(self, request: SampleOptions) -> tuple[bool, bool]:
        """Whether pictures go on at their own other side, down and across."""
        ...

    def steps(self, request: SampleOptions) -> int:
        """Evaluations of B that a picture takes."""
        ...

    def block(self, request: SampleOptions, side: int) -> tuple[int, int] | None:
        """A block of at least `side` pixels, and the side of what is looked at to evaluate B in it.

        None where B can only be evaluated at once.
        """
        ...

    def state_bytes(self, size: tuple[int, int]) -> int:
        """What a chain at `canvas` size keeps from one evaluation to the next, about."""
        ...

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """What an evaluation of all of `size` needs beside, about."""
        ...

    def sample(
        self,
        request: SampleOptions,
        numbers: Sequence[int],
        start: Tensor | None,
        canvas: TilingPlan,
        dtype: torch.dtype,
        callback: Callback,
        given: KnownPixels | None = None,
        bent: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Tensor:
        """The pictures of these numbers on a canvas; `start` (N, C, H, W), None for noise.

        `given` is what is known of them, on the device of the network; `bent` wraps D. Raises
        InputError where the family can do neither.
        """
        ...

    def denoiser(self, request: SampleOptions, canvas: TilingPlan, dtype: torch.dtype) -> Denoiser:
        """D, a level outside of those learned taken for the nearest. Raises InputError if none."""
        ...


TEXTURE_STEPS = 25  # where the quality of textures hardly rises with evaluations any more
OBJECT_STEPS = 60  # the same of aligned objects, which have to agree from end to end
RESTARTED = (0.5, 3.0)  # levels that chains may go through again: there parts of things settle
STRIPS = 400 * 2**20  # bytes: what is worked on at a time, and the program
MAPS_A_GATE = 2.8  # memory of an evaluation over that of all gates, measured
FREE_BORDER = 64  # pixels that are cut off where a picture is to end freely
DEFAULT_LEVEL = 1.0  # where noise is as strong as the data


@dataclass(frozen=True)
class NoiseConditionalKind:
    """One generative ConvNet for every level of noise."""

    config: NoiseConditionalConfig
    net: NoiseConditionalNet

    @classmethod
    def build(
        cls,
        config: NoiseConditionalConfig,
        image_size: tuple[int, int],
        layers: Sequence[LayerSpec],
    ) -> "NoiseConditionalKind":
        """With all parameters zero."""
        net = NoiseConditionalNet(
            layers,
            channels=config.bands,
            depth=config.depth,
            lattice=config.lattice,
            rectifier=SmoothReLU(config.smoothness, config.exact_gates),
            head_for=image_size if config.head else None,
            octaves=config.octaves or 1,
            coarser_layers=config.octave_layers,
        )
        return cls(config, net)

    def with_config(self, config: Config) -> "NoiseConditionalKind":
        """The same network under another config of its kind."""
        assert isinstance(config, type(self.config))
        return replace(self, config=config)

    def learner(
        self,
        observed: TrainingData,
        device: torch.device,
        dtype: torch.dtype,
        ranks: ProcessGroup,
        *,
        pattern: Pattern | None,
    ) -> Trainer:
        """First filters drawn, the spectrum measured, from here on the learner's.

        Chains follow `pattern`, that of the observed pictures, where they have one. Raises
        InputError where there are fewer images than `ranks` to share them.
        """
        ranks.refuse_fewer("--batch-size", observed.batch_size)
        if (self.config.octaves or 1) > 1:
            net, patterned = self.net.to(device), pattern is not None
            where = (device, dtype, ranks)
            return CascadeTrainer(self.config, net, observed, *where, patterned=patterned)
        self.net.initialize(named_generator(self.config.seed, "layer", 0))
        if self.config.head:
            turned = [one.flip(-1) for one in observed.pictures] if self.config.flips else []
            self.net.spectrum.fit_aligned([*observed.pictures, *turned])
        else:
            fit_spectrum(self.net, observed)
        return StageTrainer(
            self.config,
            self.net.to(device),
            observed,
            device,
            dtype,
            ranks,
            pattern=pattern,
            refined_fully=REFINED_FULLY_ALIGNED if self.config.head else REFINED_FULLY,
        )

    def density(self, level: float | None, dtype: torch.dtype) -> GenerativeModel:
        """p_s at `level`, by default where noise is as strong as the data."""
        if level is not None:
            check_positive("--level", level)
        return model_at(self.net, DEFAULT_LEVEL if level is None else level, dtype)

    @property
    def stride(self) -> int:
        """What sides of pictures that are evaluated at all levels are multiples of."""
        return self.net.whole_stride

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """Multiples of what the ladder of that level needs."""
        octave = self._octave(level)
        stride = self.net.octaves()[octave].total_stride << octave
        return height // stride * stride, width // stride * stride

    def octaves(self) -> list[dict[str, float | str]]:
        """Every ladder: its resolution, the noise above which it answers, how far it looks.

        Noise and pixels a side are those of full resolution.
        """
        above, scale = [0.0], 1.0
        for handover, contrast in self.net.handed_over():
            above.append(round(handover * scale, 2))
            scale *= 2 / contrast
        return [
            {
                "resolution": "1" if number == 0 else f"1/{1 << number}",
                "above": level,
                "looks_at": max(net.receptive_fields()) << number,
            }
            for number, (level, net) in enumerate(zip(above, self.net.octaves(), strict=True))
        ]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at, at a level."""
        octave = self._octave(level)
        return [field << octave for field in self.net.octaves()[octave].receptive_fields()]

    def _octave(self, level: float | None) -> int:
        """Which ladder answers at a level, 0 for that of full resolution."""
        return len(self.net.levels_up_to(DEFAULT_LEVEL if level is None else level)) - 1

    def canvas(self, request: SampleOptions, trained: tuple[int, int]) -> tuple[int, int]:
        """The size itself on a torus; without one, more, of which the border is cut off after."""
        for given, option in (
            (request.start == "chains", "--start chains"),
            (request.step_size is not None, "--step-size"),
            (not request.noise, "--no-noise"),
            (
                request.level is not None and request.start == "noise",
                "--level without --start PICTURE",
            ),
        ):
            if given:
                raise InputError(f"{option}: means nothing to a ladder model; leave it out")
        if request.steps is not None and request.steps < 1:
            raise InputError(f"--steps {request.steps}: a ladder needs one evaluation at least")
        size = request.size or trained
        if self.config.head and size != trained:
            raise size_error(trained)
        if self.config.head and request.seamless not in (None, "off"):
            raise InputError(
                f"--seamless {request.seamless}: this model has a head, by place; its pictures end"
            )
        if request.seamless is not None and request.lattice not in (None, PaddingMode.CIRCULAR):
            raise InputError(f"--lattice {request.lattice}: is no torus; leave --seamless out")
        stride = self.stride
        if self._lattice(request) is not PaddingMode.CIRCULAR:
            height, width = (-(-side // stride) * stride for side in size)
            return height, width
        height, width = (
            side if whole else -(-(side + FREE_BORDER) // stride) * stride
            for side, whole in zip(size, self.closed(request), strict=True)
        )
        return height, width

    def closed(self, request: SampleOptions) -> tuple[bool, bool]:
        """As --seamless says, on a torus."""
        if self._lattice(request) is not PaddingMode.CIRCULAR:
            return False, False
        named = {"x": (False, True), "y": (True, False), "off": (False, False)}
        return named.get(request.seamless or "both", (True, True))

    def _lattice(self, request: SampleOptions) -> PaddingMode:
        """What lies beyond the border: the picture again, but of models that know places."""
        return request.lattice or (
            self.config.lattice if self.config.head else PaddingMode.CIRCULAR
        )

    def steps(self, request: SampleOptions) -> int:
        """Evaluations of D, one a level; every level but the last several times in `rounds`."""
        levels = count_evaluations(self._way(request))
        return levels if request.rounds is None else (levels - 1) * request.rounds + 1

    def _way(self, request: SampleOptions) -> list[float]:
        """The levels of noise that a chain meets, in no more evaluations than asked for."""
        config, highest = self.config, self.config.noise_max
        if request.start != "noise":
            asked = DEFAULT_LEVEL if request.level is None else request.level
            highest = max(asked, config.noise_min)
        usual = OBJECT_STEPS if config.head else TEXTURE_STEPS
        count = most = usual if request.steps is None else request.steps
        while True:
            levels = noise_levels(count, highest, config.noise_min)
            way = with_restarts(levels, RESTARTED, request.restarts)
            if request.steps is None or count_evaluations(way) <= most:
                return way
            count -= 1

    def block(self, request: SampleOptions, side: int) -> tuple[int, int] | None:
        """Whole strides and their margins, on a torus; a head has the places of a whole image."""
        if self.config.head or self._lattice(request) is not PaddingMode.CIRCULAR:
            return None
        own = -(-side // self.net.total_stride) * self.net.total_stride
        return own, own + 2 * self.net.reach()

    def state_bytes(self, size: tuple[int, int]) -> int:
        """The image, D and the D before; the waves of a color axis; details and coarser images."""
        numbers = 12 + 7 * bool(self.net.coarser)
        return (numbers * self.config.bands + 4) * size[0] * size[1] + STRIPS

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Gates of all layers, and maps of the widest on the way."""
        values = responses_per_pixel(self.net.layers, self.net.depth) * dtype.itemsize
        return int(size[0] * size[1] * MAPS_A_GATE * values)

    def sample(
        self,
        request: SampleOptions,
        numbers: Sequence[int],
        start: Tensor | None,
        canvas: TilingPlan,
        dtype: torch.dtype,
        callback: Callback,
        given: KnownPixels | None = None,
        bent: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Tensor:
        """Annealed Langevin dynamics, from white noise or from a picture with noise put on."""
        levels = self._way(request)
        device = self.net.weights[0].device
        noise = ImageNoise(request.seed, "chain", numbers, device).at(request.temperature)
        shape = (len(numbers), self.config.bands, *canvas.size)
        room = canvas.room or allocator_like(self.net.weights[0])
        x = room(shape, torch.float32)
        drawn = ImageNoise(request.seed, "start", numbers, device)
        for (part,) in chunks(x):
            part.copy_(drawn(part.shape))
        if given is not None:
            beside = given.known + levels[0] * x
        if start is None:
            x.mul_(NoiseLevelModel(self.net, levels[0]).sigma)
        else:
            x.mul_(levels[0]).add_(start.to(device))
        denoise = self._denoise(request, canvas, dtype)
        if bent is not None:
            denoise = bent(denoise)
        if given is None:
            return anneal(x, denoise, levels, noise, callback)
        x = torch.where(given.anew, x, beside)
        held = given.holding(denoise)
        return anneal(x, held, levels, noise, callback, rounds=request.rounds or 1)

    def _denoise(self, request: SampleOptions, canvas: TilingPlan, dtype: torch.dtype) -> Denoiser:
        return make_denoiser(
            self.net,
            dtype,
            self._lattice(request),
            canvas.block,
            canvas.room,
            canvas.on_block,
        )

    def denoiser(self, request: SampleOptions, canvas: TilingPlan, dtype: torch.dtype) -> Denoiser:
        """D on the lattice asked for, a level outside of those learned taken for the nearest."""
        if canvas.block is not None and canvas.block % self.net.total_stride:
            raise InputError(f"--tile {canvas.block}: no multiple of {self.net.total_stride}")
        run, config = self._denoise(request, replace(canvas, on_block=None), dtype), self.config
        return lambda x, noise: run(x, min(max(noise, config.noise_min), config.noise_max))


LANGEVIN_STEPS = 100


@dataclass(frozen=True)
class PublishedKind:
    """The generative ConvNet as published."""

    config: PublishedConfig
    net: GenerativeConvNet

    @classmethod
    def build(
        cls, config: PublishedConfig, image_size: tuple[int, int], layers: Sequence[LayerSpec]
    ) -> "PublishedKind":
        """With all parameters zero."""
        net = GenerativeConvNet(
            layers,
            channels=config.bands,
            lattice=config.lattice,
            sigma=config.sigma,
            head_for=image_size if config.head else None,
        )
        return cls(config, net)

    @property
    def stride(self) -> int:
        """What sides of pictures are multiples of."""
        return self.net.total_stride

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """All of a picture, since what is left over is padded."""
        del level
        return self.net.fitting(height, width)

    def octaves(self) -> list[dict[str, float | str]]:
        """One network, at full resolution."""
        return [{"resolution": "1", "above": 0.0, "looks_at": max(self.receptive_fields())}]

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at."""
        del level
        return self.net.receptive_fields()

    def with_config(self, config: Config) -> "PublishedKind":
        """The same network under another config of its kind."""
        assert isinstance(config, type(self.config))
        return replace(self, config=config)

    def learner(
        self,
        observed: TrainingData,
        device: torch.device,
        dtype: torch.dtype,
        ranks: ProcessGroup,
        *,
        pattern: Pattern | None,
    ) -> PublishedTrainer:
        """First filters drawn; the learner adds the layers that are still to come.

        Published chains follow no `pattern`.
        """
        del pattern
        config = self.config
        self.net.initialize(config.init_std, named_generator(config.seed, "layer", 0))
        shape = (config.bands, *observed.image_size)
        chains = _published_chains(config, observed.batch_size, shape, device, ranks)
        return PublishedTrainer(config, self.net.to(device), observed, chains, dtype, ranks)

    def density(self, level: float | None, dtype: torch.dtype) -> FastNet:
        """The network itself. Raises InputError for a level."""
        if level is not None:
            raise InputError("--level: this model has one level of noise; leave it out")
        return FastNet.of(self.net, dtype)

    def canvas(self, request: SampleOptions, trained: tuple[int, int]) -> tuple[int, int]:
        """The size asked for, which the layers must fit on."""
        for given, option in (
            (request.level is not None, "--level"),
            (request.restarts > 0, "--restarts"),
        ):
            if given:
                raise InputError(f"{option}: this model has one level of noise; leave it out")
        if request.seamless is not None:
            raise InputError("--seamless: is for ladder models; use --lattice circular")
        size = request.size or trained
        if self.config.head and size != trained:
            raise size_error(trained)
        try:
            self._on(request).map_sizes(*size)
        except ValueError as error:
            raise InputError(f"--size {size[1]}x{size[0]}: {error}") from error
        return size

    def closed(self, request: SampleOptions) -> tuple[bool, bool]:
        """On a torus in both directions."""
        whole = self._on(request).lattice is PaddingMode.CIRCULAR
        return whole, whole

    def steps(self, request: SampleOptions) -> int:
        """Langevin steps."""
        return LANGEVIN_STEPS if request.steps is None else request.steps

    def block(self, request: SampleOptions, side: int) -> tuple[int, int] | None:
        """None: chains are made at the size of the exemplar."""
        return None

    def state_bytes(self, size: tuple[int, int]) -> int:
        """The image, its gradient, noise."""
        return 12 * self.config.bands * size[0] * size[1]

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """Gates of all layers, and the maps of one."""
        return int(size[0] * size[1] * responses_per_pixel(self.net.layers) * dtype.itemsize)

    def sample(
        self,
        request: SampleOptions,
        numbers: Sequence[int],
        start: Tensor | None,
        canvas: TilingPlan,
        dtype: torch.dtype,
        callback: Callback,
        given: KnownPixels | None = None,
        bent: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Tensor:
        """Langevin chains from the reference distribution, or from `start`."""
        if given is not None:
            raise InputError(
                "a published model forgets its start too slowly to repair pictures; use a ladder, "
                "as 'gcn train' learns by default"
            )
        if bent is not None:
            raise _one_level("--guide, --blend")
        net = self._on(request)
        device = net.weights[0].device
        if start is None:
            shape = (len(numbers), self.config.bands, *canvas.size)
            start = net.sigma * ImageNoise(request.seed, "start", numbers)(shape)
        chain = ImageNoise(request.seed, "chain", numbers, device).at(request.temperature)
        return run_chain(
            start.to(device, copy=True),  # with no steps it comes back, and is made pixels in place
            energy_gradient(net.sigma, FastNet.of(net, dtype).basis),
            steps=self.steps(request),
            step_size=request.step_size or self.config.step_size,
            noise=chain if request.noise else None,
            callback=callback,
        )

    def denoiser(self, request: SampleOptions, canvas: TilingPlan, dtype: torch.dtype) -> Denoiser:
        """None: there is one level."""
        raise _one_level("--blend")

    def _on(self, request: SampleOptions) -> GenerativeConvNet:
        """The network on the lattice asked for."""
        return self.net.on(request.lattice or self.config.lattice)


def _one_level(option: str) -> InputError:
    return InputError(f"{option}: a published model has no levels of noise; use a ladder")


def _published_chains(
    config: PublishedConfig,
    batch_size: int,
    shape: tuple[int, int, int],
    device: torch.device,
    ranks: ProcessGroup,
) -> SynthesizedImages:
    count = batch_size if config.learner == "cd" else config.chains or 1
    images = torch.zeros(count, *shape, device=device)
    noise = ImageNoise(config.seed, "chain", range(count), device)
    if config.learner == "cd":
        ranks.refuse_fewer("--batch-size", count)
        steps, step_size, sigma = config.langevin_steps, config.step_size, config.sigma
        return ContrastiveChains(images, noise, steps, step_size, sigma, ranks)
    ranks.refuse_fewer("--chains", count)
    return LangevinChains(images, noise, config.langevin_steps, config.step_size, ranks)


def build_kind(
    config: Config, image_size: tuple[int, int], layers: Sequence[LayerSpec] | None = None
) -> ModelKind:
    """The family of a config with a network of `layers`, by default its own, all zero."""
    chosen = config.layers if layers is None else layers
    if isinstance(config, NoiseConditionalConfig):
        return NoiseConditionalKind.build(config, image_size, chosen)
    return PublishedKind.build(config, image_size, chosen)


def make_trainer(
    config: Config,
    pictures: Sequence[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    ranks: ProcessGroup = SINGLE_PROCESS,
    *,
    pattern: Pattern | None = None,
) -> tuple[ModelKind, Trainer]:
    """The model of `config` and its learner, for pictures (C, H, W) in model units, on `device`.

    `pattern` is that of the pictures, None where they have none.

    Raises ValueError where the pictures do not fit one another, the crop or the layers, InputError
    where there is too little for all `ranks`.
    """
    batches = TrainingData(
        [picture.to(device) for picture in pictures],
        crop=config.crop,
        batch_size=config.batch_size,
        generator=named_generator(config.seed, "batches"),
        flips=config.flips,
        rotations=config.rotations,
        shifts=config.shifts,
    )
    build_kind(config, batches.image_size).net.map_sizes(*batches.image_size)
    family = build_kind(config, batches.image_size, config.first_layers)
    return family, family.learner(batches, device, dtype, ranks, pattern=pattern)
