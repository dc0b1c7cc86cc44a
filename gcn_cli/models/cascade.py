"""The resolution cascade: noise-conditional nets at 1, 1/2, 1/4 ... of the resolution.

A net sees no further than its receptive field. But where noise is strong enough to hide all
details, a coarser image is enough: above a transition noise level each stage is replaced by the
next coarser one. With P the mean of every block of 2x2 pixels, P+ = 4 P' the nearest-neighbor
upsampling, and J = g P I the coarse image, of unit variance by the gain g and with noise t = g s/2,

    U_s(I) = U_t(J) + <I', (C + s^2 Id)^-1 I'> / 2,    I' = I - P+ P I.

U_t is the energy of the coarser stage. The details I' are Gaussian with the spectrum C of the data.

The denoiser D, the posterior mean of the clean image given the noisy one, follows from Tweedie's
formula. K_s = C (C + s^2 Id)^-1 is the Wiener filter; D_t is the denoiser of the coarser stage:

    D_s(I) = I + s^2 grad log p_s(I) = K_s I + s c grad F(c I; s),    c = 1 / sqrt(s^2 + 1),
    D_s(I) = P+ D_t(J) / g + (Id - P+ P) K_s I'                      above the transition.

The auto-encoder's reconstruction is R = (s^2 + 1) B, and D = (I + s^2 R) / (s^2 + 1).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.backprop import ForwardPass, PackedNet, backward, forward, pack
from gcn_cli.models.chunks import Allocator
from gcn_cli.models.cuda_graph import GraphedFunction, image_by_image
from gcn_cli.models.energy import (
    Denoiser,
    GenerativeModel,
    energy,
    spread_over_pixels,
    squared_norm,
)
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import LayerSpec, PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet, PhaseMap


class Cascade(nn.Module):
    """The nets of all stages, the finest first; a model without coarser stages has one net.

    gains (N - 1,): the factor g of each coarser stage. transitions (N - 1,): the noise level above
    which each coarser stage replaces the finer one, in deviations of the finer stage's data.
    """

    gains: Tensor
    transitions: Tensor

    def __init__(self, nets: Sequence[NoiseConditionalNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.register_buffer("gains", torch.ones(len(nets) - 1))
        self.register_buffer("transitions", torch.ones(len(nets) - 1))

    @property
    def stages(self) -> list[NoiseConditionalNet]:
        """The nets, the finest first."""
        return cast(list[NoiseConditionalNet], list(self.nets))

    @property
    def finest(self) -> NoiseConditionalNet:
        """The net at full resolution."""
        return self.stages[0]

    def links(self) -> list[tuple[float, float]]:
        """(transition, gain) of each coarser stage."""
        return list(zip(self.transitions.tolist(), self.gains.tolist(), strict=True))

    def levels_up_to(self, noise: float) -> list[float]:
        """A noise level in the units of each stage, down to the stage in charge of it."""
        levels = [noise]
        for transition, gain in self.links():
            if levels[-1] <= transition:
                break
            levels.append(levels[-1] * gain / 2)
        return levels

    def stage_at(self, noise: float) -> int:
        """The index of the stage in charge of a noise level."""
        return len(self.levels_up_to(noise)) - 1

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self.finest.device

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Of the finest stage."""
        return self.finest.layers

    @property
    def first_filters(self) -> Tensor:
        """Of the finest stage, in pixels: (filters, channels, side, side)."""
        return self.finest.first_filters

    @property
    def head_parameters(self) -> int:
        """0: a model of aligned images has its positions in the readouts, not in a head layer."""
        return 0

    def layer_parameters(self, layer: int) -> int:
        """The number of parameters of a layer of the finest stage."""
        net = self.finest
        lists = (net.weights, net.biases, net.modulations, net.readouts)
        return sum(parameters[layer].numel() for parameters in lists)

    def stage_stride(self, stage: int = 0) -> int:
        """Sides of images that a stage evaluates are multiples of this, at full resolution."""
        return self.stages[stage].total_stride << stage

    @property
    def total_stride(self) -> int:
        """Sides of images that all stages evaluate are multiples of this."""
        return max(self.stage_stride(stage) for stage in range(len(self.nets)))

    def fitting(self, height: int, width: int, stage: int = 0) -> tuple[int, int]:
        """The largest size, at most (H, W), that a stage can evaluate, by default the finest."""
        stride = self.stage_stride(stage)
        return height // stride * stride, width // stride * stride

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of the finest stage's maps. Raises ValueError for sides that do not divide."""
        return self.finest.map_sizes(height, width)

    def receptive_fields(self, stage: int = 0) -> list[int]:
        """Side of the receptive field of each layer of a stage, in pixels of full resolution."""
        return [field << stage for field in self.stages[stage].receptive_fields()]


def downsample(x: Tensor) -> Tensor:
    """P: the mean of every block of 2x2 pixels, (N, C, H, W) -> (N, C, H / 2, W / 2).

    At an odd side the last block is completed circularly.
    """
    beyond = (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)
    return F.avg_pool2d(F.pad(x, beyond, mode="circular") if any(beyond) else x, 2)


def add_upsampled_(x: Tensor, coarse: Tensor, factor: float = 1.0) -> Tensor:
    """Add `factor` P+ of a coarse image to x (N, C, H, W), in place."""
    height, width = x.shape[-2:]
    whole = x[..., : height // 2 * 2, : width // 2 * 2]
    blocks = whole.view(*x.shape[:-2], height // 2, 2, width // 2, 2)
    blocks.add_(coarse[..., : height // 2, None, : width // 2, None], alpha=factor)
    if width % 2:
        x[..., :, -1].add_(coarse[..., -1].repeat_interleave(2, -1)[..., :height], alpha=factor)
    if height % 2:
        last = coarse[..., -1, :].repeat_interleave(2, -1)[..., : width // 2 * 2]
        x[..., -1, : width // 2 * 2].add_(last, alpha=factor)
    return x


def remove_lowpass_(x: Tensor) -> Tensor:
    """I' = I - P+ P I, in place."""
    return add_upsampled_(x, downsample(x), -1.0)


@dataclass(frozen=True)
class NoiseLevelModel:
    """p_s of one net, the generative ConvNet at a noise level s."""

    net: NoiseConditionalNet
    noise: float  # s, in deviations of the data
    dtype: torch.dtype = torch.float32  # of the maps on the way to B
    phases: PhaseMap | None = None  # of the lattice of a regular pattern in the images

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,). Differentiable in I."""
        potential = self.net.potential(x / self.sigma, self._log_noise(x), self._phases(x))
        potential = potential / self.noise
        return potential + self._gaussian(self.net.spectrum.score_map, x).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W). Without automatic differentiation."""
        passed = self._forward(x)
        gradient = backward(passed).input_gradient.to(x.dtype)
        gradient = gradient / (self.noise * self.sigma)
        return gradient + self._gaussian(self.net.spectrum.score_gradient, x)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses of each layer: (N, filters, h, w). Differentiable in I."""
        return self.net.responses(x / self.sigma, self._log_noise(x), self._phases(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """The contribution of each pixel to U(I): (N, C, H, W) -> (N, H, W), whose sum is U.

        A response is spread evenly over the pixels of its position.
        """
        gaussian = self._gaussian(self.net.spectrum.score_map, x)
        total = (x.square() / (2 * self.sigma**2) - gaussian).sum(dim=1)
        for layer, responses in enumerate(self.responses(x)):
            contribution = (self.net.readout(layer) * responses).sum(dim=1) / self.noise
            total -= spread_over_pixels(contribution, (x.shape[-2], x.shape[-1]))
        return total

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """Gates of each layer, 0..1: (N, filters, h, w). They are 0 or 1 with exact gates."""
        return self._forward(x).gates

    def _forward(self, x: Tensor) -> ForwardPass:
        packed = pack(self.net, self.dtype)
        return forward(packed, x / self.sigma, self._log_noise(x), self._phases(x))

    def _gaussian(self, part: Callable[[Tensor, Tensor, PaddingMode], Tensor], x: Tensor) -> Tensor:
        """A quantity of the Gaussian part at this noise level."""
        return part(x, x.new_full((len(x),), self.noise), self.net.padding_mode)

    def _log_noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), math.log(self.noise))

    def _phases(self, x: Tensor) -> Tensor | None:
        if self.phases is None:
            return None
        return self.net.phases_at(self.phases, x.shape[-2], x.shape[-1], x.device)


@dataclass(frozen=True)
class CoarseStageModel:
    """p_s above the transition: U_t(J) of the coarser stage plus the energy of the details."""

    coarser: GenerativeModel  # of J, at noise g s / 2
    spectrum: SpectralGaussian  # of the data at the finer resolution
    gain: float  # g
    noise: float  # s, in deviations of the data
    padding_mode: PaddingMode

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I) = |I|^2 / (2 sigma^2) - U_s(I): (N, C, H, W) -> (N,). Differentiable in I."""
        details = self._detail_energy(x).sum(dim=(1, 2, 3))
        coarse = energy(self.coarser, self._coarse(x))
        return squared_norm(x) / (2 * self.sigma**2) - coarse - details

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W). Without automatic differentiation."""
        coarse, details = self._coarse(x), remove_lowpass_(x.clone())
        prior = self.spectrum.score_gradient(details, self._noise(x), self.padding_mode)
        gradient = remove_lowpass_(details / self.sigma**2 - prior)
        coarse_gradient = coarse / self.coarser.sigma**2 - self.coarser.basis(coarse)
        return x / self.sigma**2 - add_upsampled_(gradient, coarse_gradient, self.gain / 4)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses of each layer of the coarser stage: (N, filters, h, w)."""
        return self.coarser.responses(self._coarse(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """The contribution of each pixel to U(I): (N, C, H, W) -> (N, H, W), whose sum is U."""
        coarse = self.coarser.energy_map(self._coarse(x))
        details = self._detail_energy(x).sum(dim=1)
        return spread_over_pixels(coarse, (x.shape[-2], x.shape[-1])) + details

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """Gates of each layer of the coarser stage, 0..1: (N, filters, h, w)."""
        return self.coarser.activation_pattern(self._coarse(x))

    def _coarse(self, x: Tensor) -> Tensor:
        """J."""
        return self.gain * downsample(x)

    def _detail_energy(self, x: Tensor) -> Tensor:
        """The contribution of each value to the energy of the details: (N, C, H, W)."""
        details = x - F.interpolate(downsample(x), scale_factor=2.0, mode="nearest")
        gaussian = self.spectrum.score_map(details, self._noise(x), self.padding_mode)
        return details.square() / (2 * self.sigma**2) - gaussian

    def _noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self.noise)


def stage_phases(phases: PhaseMap, stage: int) -> PhaseMap:
    """The phases that a coarser stage sees, at positions in its pixels."""
    scale, center = 1 << stage, ((1 << stage) - 1) / 2
    return lambda rows, columns: phases(scale * rows + center, scale * columns + center)


def model_at(
    cascade: Cascade,
    noise: float,
    dtype: torch.dtype = torch.float32,
    padding_mode: PaddingMode | None = None,
    phases: PhaseMap | None = None,
) -> GenerativeModel:
    """p_s at a noise level: of the stage in charge, with the details of the finer stages.

    Shares the parameters. padding_mode: by default that of the nets. phases: of the lattice in the
    images, at full resolution.
    """
    levels, links, stages = cascade.levels_up_to(noise), cascade.links(), cascade.stages
    if padding_mode is not None:
        stages = [net.with_padding(padding_mode) for net in stages]
    stage = len(levels) - 1
    phases = phases and stage_phases(phases, stage)
    model: GenerativeModel = NoiseLevelModel(stages[stage], levels[-1], dtype, phases)
    for finer in reversed(range(stage)):
        net, (_, gain) = stages[finer], links[finer]
        model = CoarseStageModel(model, net.spectrum, gain, levels[finer], net.padding_mode)
    return model


def add_potential_gradient_(linear: Tensor, factor: Tensor, gradient: Tensor) -> Tensor:
    """D from K_s I (N, C, H, W): adds s c grad F in place. Works as well on K_s I - I.

    factor: s c, (N, 1, 1, 1). gradient: grad F at c I, (N, C, H, W).
    """
    return linear.addcmul_(factor, gradient.to(linear.dtype))


@torch.no_grad()
def denoise_batch(
    net: NoiseConditionalNet,
    x: Tensor,
    noise: Tensor,
    packed: PackedNet,
    block: int | None = None,
    allocator: Allocator | None = None,
    on_block: Callable[[], None] | None = None,
    phases: PhaseMap | None = None,
) -> Tensor:
    """D(I) of one net, each image at its own noise level: (N, C, H, W), (N,) -> (N, C, H, W).

    block: with circular padding, evaluate F tile by tile of this side (a multiple of the total
    stride), each with all the pixels it depends on: the same D in less memory. `on_block` is
    called after each tile. allocator: where D is allocated. phases: of the lattice in the images,
    at positions in this net's pixels.
    """
    noise_column = noise[:, None, None, None]
    sigma = (noise_column.square() + 1).sqrt()
    mean = net.spectrum.posterior_mean(x, noise, packed.padding_mode, allocator)
    factor, log_noise = noise_column / sigma, noise.log()
    if packed.padding_mode is not PaddingMode.CIRCULAR:
        height, width = x.shape[-2:]
        seen = None if phases is None else net.phases_at(phases, height, width, x.device)
        passed = forward(packed, x / sigma, log_noise, seen)
        return add_potential_gradient_(mean, factor, backward(passed).input_gradient)
    axes = (_axis_tiles(side, block, net.total_stride, net.reach()) for side in x.shape[-2:])
    for rows, columns in itertools.product(*axes):
        tile = columns.extract(rows.extract(x, -2), -1) / sigma
        seen = None
        if phases is not None:
            seen = phases(*(axis.phase_positions(net, x.device) for axis in (rows, columns)))
        gradient = backward(forward(packed, tile, log_noise, seen)).input_gradient
        inner = gradient[:, :, rows.inner, columns.inner]
        add_potential_gradient_(mean[:, :, rows.output, columns.output], factor, inner)
        if on_block is not None:
            on_block()
    return mean


class _AxisTile(NamedTuple):
    """One axis of a tile: its pixels in the image, and where they are in what is evaluated."""

    side: int  # of the image
    output: slice
    inner: slice
    positions: range | None  # evaluated pixels, modulo the side; None for the whole axis

    def extract(self, x: Tensor, axis: int) -> Tensor:
        """The evaluated part of images along an axis."""
        if self.positions is None:
            return x
        # Created on the device: a CUDA graph cannot contain a copy from the host.
        positions = torch.arange(self.positions.start, self.positions.stop, device=x.device)
        return x.index_select(axis, positions % self.side)

    def phase_positions(self, net: NoiseConditionalNet, device: torch.device) -> Tensor:
        """Where in the image a net needs the phases of the evaluated part, (n,)."""
        pixels = self.positions or range(self.side)
        return net.phase_positions(pixels.start, pixels.stop, device) % self.side


def _axis_tiles(side: int, block: int | None, stride: int, reach: int) -> list[_AxisTile]:
    """The tiles of a periodic axis, each `block` pixels long; by default one tile.

    An axis of whole strides is evaluated as it is. Any other axis, and each part of one, is
    extended periodically by `reach`, so that no pixel of the tile depends on the ends.
    """
    length = side if block is None else min(block, side)
    if length == side and side % stride == 0:
        return [_AxisTile(side, slice(0, side), slice(0, side), None)]
    tiles = []
    for first in range(0, side, length):
        kept = min(length, side - first)
        evaluated = -(-(kept + 2 * reach) // stride) * stride
        positions = range(first - reach, first - reach + evaluated)
        output, inner = slice(first, first + kept), slice(reach, reach + kept)
        tiles.append(_AxisTile(side, output, inner, positions))
    return tiles


def make_denoiser(
    cascade: Cascade,
    dtype: torch.dtype = torch.float32,
    padding_mode: PaddingMode | None = None,
    block: int | None = None,
    allocator: Allocator | None = None,
    on_block: Callable[[], None] | None = None,
    phases: PhaseMap | None = None,
) -> Denoiser:
    """D of a cascade, as a function (N, C, H, W), noise level -> (N, C, H, W).

    Copies the parameters: make it again after they change. dtype: of the maps. padding_mode: by
    default that of the nets. block, allocator: as in `denoise_batch`; `on_block` is called
    once for each block of the finest stage, also when a coarser stage is evaluated. phases: of the
    lattice, the same for all images. On a GPU images are evaluated one by one.
    """
    links, mode = cascade.links(), padding_mode or cascade.finest.padding_mode
    stages = [
        _stage_denoiser(
            net,
            dtype,
            mode,
            block,
            allocator,
            None if stage else on_block,
            phases and stage_phases(phases, stage),
        )
        for stage, net in enumerate(cascade.stages)
    ]

    def denoise(x: Tensor, noise: float, stage: int = 0) -> Tensor:
        if stage == len(links) or noise <= links[stage][0]:
            return stages[stage](x, noise)
        _, gain = links[stage]
        coarse = denoise(gain * downsample(x), gain * noise / 2, stage + 1)
        details = x.clone() if allocator is None else allocator(x.shape, x.dtype).copy_(x)
        remove_lowpass_(details)
        level, spectrum = x.new_full((len(x),), noise), cascade.stages[stage].spectrum
        mean = remove_lowpass_(spectrum.posterior_mean(details, level, mode, allocator))
        if on_block is not None and block is not None and stage == 0:
            for _ in range(math.prod(-(-side // block) for side in x.shape[-2:])):
                on_block()
        return add_upsampled_(mean, coarse, 1 / gain)

    return image_by_image(denoise, cascade.device)


def _stage_denoiser(
    net: NoiseConditionalNet,
    dtype: torch.dtype,
    padding_mode: PaddingMode,
    block: int | None,
    allocator: Allocator | None,
    on_block: Callable[[], None] | None,
    phases: PhaseMap | None,
) -> Denoiser:
    """D of one net."""
    packed = replace(pack(net, dtype, tile_invariant=True), padding_mode=padding_mode)
    if block is not None:  # few large kernels: a CUDA graph would not be faster
        return lambda x, noise: denoise_batch(
            net, x, x.new_full((len(x),), noise), packed, block, allocator, on_block, phases
        )
    run = GraphedFunction(lambda x, noise: denoise_batch(net, x, noise, packed, phases=phases))

    def denoise(x: Tensor, noise: float) -> Tensor:
        mean = run(x, x.new_full((len(x),), noise))
        return mean.clone() if run.captured else mean

    return denoise
