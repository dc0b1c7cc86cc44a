"""Coarser ladders: what is large is settled on the picture at 1/2, 1/4 ... of its resolution.

Filters see no further than their receptive field, and a crop shows few of the largest things whole.
But where noise is strong enough to hide all details, these need not be looked at. So above a level,
the handover, pixels are taken four by four. With P the mean of every block of 2x2 pixels, P+ = 4 P'
laying a value on its block, and J = g P I of unit variance, whose noise is t = g s / 2,

    U_s(I) = U_t(J) + <I', (C + s^2 Id)^-1 I'> / 2,    I' = I - P+ P I,

U_t the energy of another generative ConvNet, the ladder of J, and the details I' Gaussian with the
data's spectrum. By Tweedie's identity, with K_s Wiener's filter and D_t that of the coarser ladder,

    D_s(I) = P+ D_t(J) / g + (Id - P+ P) K_s I'.

A coarser ladder may have another above it.

One level of a ladder, with the names of the paper's model: p_s, its score, B and gates.

D of a ladder, the mean of the clean image given the noisy one: Tweedie's identity.

    D(I) = I + s^2 grad log p_s(I) = K_s I + s c grad F(c I; s),    c = 1 / sqrt(s^2 + 1),

K_s Wiener's filter of the spectrum. It is R, the reconstruction of the auto-encoder, rescaled:
D = (I + s^2 R) / (s^2 + 1), R = (s^2 + 1) B.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.backprop import PackedNet, backward, forward, pack
from gcn_cli.models.chunks import Allocator
from gcn_cli.models.cuda_graph import GraphedFunction, image_by_image
from gcn_cli.models.energy import GenerativeModel, energy, spread_over_pixels, squared_norm
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet


def downsample(x: Tensor) -> Tensor:
    """P: the mean of every block of 2x2 pixels, (N, C, H, W) -> (N, C, H / 2, W / 2).

    A torus with an odd side goes on at its other side to the end of the last block.
    """
    beyond = (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)
    return F.avg_pool2d(F.pad(x, beyond, mode="circular") if any(beyond) else x, 2)


def add_upsampled_(x: Tensor, coarse: Tensor, times: float = 1.0) -> Tensor:
    """x (N, C, H, W) and P+ of a coarse image `times` so much, in place."""
    height, width = x.shape[-2:]
    whole = x[..., : height // 2 * 2, : width // 2 * 2]
    shape = (*x.shape[:-2], height // 2, 2, width // 2, 2)
    blocks = whole.view(shape)
    blocks.add_(coarse[..., : height // 2, None, : width // 2, None], alpha=times)
    if width % 2:
        x[..., :, -1].add_(coarse[..., -1].repeat_interleave(2, -1)[..., :height], alpha=times)
    if height % 2:
        last = coarse[..., -1, :].repeat_interleave(2, -1)[..., : width // 2 * 2]
        x[..., -1, : width // 2 * 2].add_(last, alpha=times)
    return x


def remove_lowpass_(x: Tensor) -> Tensor:
    """I' = I - P+ P I, in place."""
    return add_upsampled_(x, downsample(x), -1.0)


def cascade_mean(
    spectrum: SpectralGaussian,
    x: Tensor,
    noise: float,
    coarse: Tensor,
    contrast: float,
    lattice: PaddingMode,
    room: Allocator | None = None,
) -> Tensor:
    """D_s of images (N, C, H, W) at a level above the handover, from D_t of `coarse` J."""
    details = remove_lowpass_(x.clone() if room is None else room(x.shape, x.dtype).copy_(x))
    made = spectrum.mean(details, x.new_full((len(x),), noise), lattice, room)
    return add_upsampled_(remove_lowpass_(made), coarse, 1 / contrast)


@dataclass(frozen=True)
class CoarseStageModel:
    """p_s above the handover, with the names of the paper's model: U_t(J) and the details'."""

    above: GenerativeModel  # of J, at noise g s / 2
    spectrum: SpectralGaussian  # of the data at full resolution
    contrast: float  # g
    noise: float  # s, in deviations of the data
    lattice: PaddingMode

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,)."""
        details = self._details(x).sum(dim=(1, 2, 3))
        return squared_norm(x) / (2 * self.sigma**2) - energy(self.above, self._seen(x)) - details

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        seen, details = self._seen(x), remove_lowpass_(x.clone())
        slope = details / self.sigma**2 - self.spectrum.slope(details, self._noise(x), self.lattice)
        slope = remove_lowpass_(slope)
        towards = seen / self.above.sigma**2 - self.above.basis(seen)
        return x / self.sigma**2 - add_upsampled_(slope, towards, self.contrast / 4)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses to J, layer by layer, differentiable: (N, filters, h, w)."""
        return self.above.responses(self._seen(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, C, H, W) -> (N, H, W), whose sum is U."""
        coarse = spread_over_pixels(
            self.above.energy_map(self._seen(x)), (x.shape[-2], x.shape[-1])
        )
        return coarse + self._details(x).sum(dim=1)

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates, layer by layer, in 0..1: (N, filters, h, w)."""
        return self.above.activation_pattern(self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        """J."""
        return self.contrast * downsample(x)

    def _details(self, x: Tensor) -> Tensor:
        """What every value counts in the energy of the details."""
        own = x - F.interpolate(downsample(x), scale_factor=2.0, mode="nearest")
        gaussian = self.spectrum.score_map(own, self._noise(x), self.lattice)
        return own.square() / (2 * self.sigma**2) - gaussian

    def _noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self.noise)


@dataclass(frozen=True)
class NoiseLevelModel:
    """p_s(I) = exp(f(I; w, s)) q_s(I) / Z, the generative ConvNet at noise deviation s.

    `denoiser.py` has D, the mean of the clean image given the noisy one.
    """

    net: NoiseConditionalNet
    noise: float  # s, in deviations of the data
    dtype: torch.dtype = torch.float32  # of the maps on the way to B

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,)."""
        own = self.net.total(x / self.sigma, self._log_noise(x)) / self.noise
        return own + self._gaussian(self.net.spectrum.score_map, x).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        prepared = pack(self.net, self.dtype)
        up = forward(self.net, x / self.sigma, self._log_noise(x), prepared)
        own = backward(self.net, up).slope.to(x.dtype) / (self.noise * self.sigma)
        return own + self._gaussian(self.net.spectrum.slope, x)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses, layer by layer, differentiable: (N, filters, h, w)."""
        return self.net.responses(x / self.sigma, self._log_noise(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, C, H, W) -> (N, H, W), whose sum is U.

        A response counts where it is, evenly over the pixels it stands for.
        """
        gaussian = self._gaussian(self.net.spectrum.score_map, x)
        own = (x.square() / (2 * self.sigma**2) - gaussian).sum(dim=1)
        for layer, responses in enumerate(self.responses(x)):
            counted = (self.net.readout(layer) * responses).sum(dim=1) / self.noise
            own -= spread_over_pixels(counted, (x.shape[-2], x.shape[-1]))
        return own

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates, layer by layer, in 0..1: (N, filters, h, w)."""
        prepared = pack(self.net, self.dtype)
        return forward(self.net, x / self.sigma, self._log_noise(x), prepared).gates

    def _gaussian(self, part: Callable[[Tensor, Tensor, PaddingMode], Tensor], x: Tensor) -> Tensor:
        """What the spectrum alone says, at this level."""
        return part(x, x.new_full((len(x),), self.noise), self.net.lattice)

    def _log_noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), math.log(self.noise))


def model_at(
    net: NoiseConditionalNet, noise: float, dtype: torch.dtype = torch.float32
) -> GenerativeModel:
    """p_s of a ladder, or of the coarser one that answers at that level."""
    nets, levels = net.octaves(), net.levels_up_to(noise)
    level: GenerativeModel = NoiseLevelModel(nets[len(levels) - 1], levels[-1], dtype)
    for number in reversed(range(len(levels) - 1)):
        finer, (_, contrast) = nets[number], net.handed_over()[number]
        level = CoarseStageModel(level, finer.spectrum, contrast, levels[number], finer.lattice)
    return level


def add_score_(linear: Tensor, outward: Tensor, slope: Tensor) -> Tensor:
    """D from K_s I: add s c grad F in place; from K_s I less anything, D less the same.

    linear: (N, C, H, W); outward: s c, (N, 1, 1, 1); slope: grad F at c I, (N, C, H, W).
    """
    return linear.addcmul_(outward, slope.to(linear.dtype))


@torch.no_grad()
def denoise_batch(
    net: NoiseConditionalNet,
    x: Tensor,
    noise: Tensor,
    prepared: PackedNet,
    block: int | None = None,
    room: Allocator | None = None,
    on_block: Callable[[], None] | None = None,
) -> Tensor:
    """D(I), each image at its own level: (N, C, H, W), deviations (N,) -> (N, C, H, W).

    `block`: on a torus the filters look at blocks of that side, one after the other, with all that
    they can see around it: the same D, less memory. Must be a multiple of the total stride.
    `room` is where D is laid, `on_block` is called after every block.
    """
    wide = noise[:, None, None, None]
    sigma = (wide.square() + 1).sqrt()
    mean = net.spectrum.mean(x, noise, prepared.lattice, room)
    outward, log_noise = wide / sigma, noise.log()
    if prepared.lattice is not PaddingMode.CIRCULAR:
        slope = backward(net, forward(net, x / sigma, log_noise, prepared)).slope
        return add_score_(mean, outward, slope)
    for up, across in _tiles(x, block, net.total_stride, net.reach()):
        seen = across.taken(up.taken(x, -2), -1) / sigma
        slope = backward(net, forward(net, seen, log_noise, prepared)).slope
        own = mean[:, :, up.own, across.own]
        add_score_(own, outward, slope[:, :, up.inside, across.inside])
        if on_block is not None:
            on_block()
    return mean


class _AxisTile(NamedTuple):
    """A part of one axis: which pixels it is, what is looked at for it, where it lies in that."""

    own: slice
    inside: slice
    seen: range | None  # places on the endless axis; None for the axis as it is

    def taken(self, x: Tensor, axis: int) -> Tensor:
        """What is looked at, of an image."""
        if self.seen is None:
            return x
        # Made where it is used: a copy from the host cannot be part of a captured step.
        places = torch.arange(self.seen.start, self.seen.stop, device=x.device)
        return x.index_select(axis, places % x.shape[axis])


def _tiles(
    x: Tensor, block: int | None, stride: int, reach: int
) -> Iterator[tuple[_AxisTile, _AxisTile]]:
    """Rows and columns of every block of images (N, C, H, W)."""
    rows, columns = (_axis_tiles(side, block, stride, reach) for side in x.shape[-2:])
    return itertools.product(rows, columns)


def _axis_tiles(side: int, block: int | None, stride: int, reach: int) -> list[_AxisTile]:
    """An axis of a torus in blocks; by default, and where a block holds all, in one piece.

    Maps close on a torus whose sides are multiples of the total stride: such an axis is taken as it
    is. Any other, and any block, is laid out further by `reach`, the axis again and again, until no
    pixel is reached by the end: each gets the F of the endless pattern. It costs the margin.
    """
    length = side if block is None else min(block, side)
    if length == side and side % stride == 0:
        return [_AxisTile(slice(0, side), slice(0, side), None)]
    parts = []
    for first in range(0, side, length):
        own = min(length, side - first)
        whole = -(-(own + 2 * reach) // stride) * stride
        seen = range(first - reach, first - reach + whole)
        parts.append(_AxisTile(slice(first, first + own), slice(reach, reach + own), seen))
    return parts


def make_denoiser(
    net: NoiseConditionalNet,
    dtype: torch.dtype = torch.float32,
    lattice: PaddingMode | None = None,
    block: int | None = None,
    room: Allocator | None = None,
    on_block: Callable[[], None] | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """D of the ladder as it is now, as a function (N, C, H, W), noise -> (N, C, H, W).

    Parameters are copied: make it anew after they change. `dtype` is that of the maps, `lattice`
    by default that of the net; `block`, `room` and `on_block` as in `denoise_batch`. Coarser
    ladders answer at their levels. On a GPU images are looked at one by one.
    """
    nets, handed = net.octaves(), net.handed_over()
    made = _one_ladder(nets[-1], dtype, lattice, block, room, None if handed else on_block)
    for number in reversed(range(len(handed))):
        counted = on_block if number == 0 else None
        own = _one_ladder(nets[number], dtype, lattice, block, room, counted)
        above, spectrum = _Above(made, *handed[number]), nets[number].spectrum
        made = _handing_over(own, above, spectrum, lattice or net.lattice, room, block, counted)
    return image_by_image(made, net.weights[0].device)


class _Above(NamedTuple):
    """D of the coarser ladder, the level above which it answers, the contrast of its data."""

    denoise: Callable[[Tensor, float], Tensor]
    handover: float
    contrast: float


def _handing_over(
    denoise: Callable[[Tensor, float], Tensor],
    above: _Above,
    spectrum: SpectralGaussian,
    lattice: PaddingMode,
    room: Allocator | None,
    block: int | None,
    on_block: Callable[[], None] | None,
) -> Callable[[Tensor, float], Tensor]:
    """D of a ladder up to the handover, from there on that of the coarser one."""
    contrast = above.contrast

    def composed(x: Tensor, noise: float) -> Tensor:
        if noise <= above.handover:
            return denoise(x, noise)
        coarse = above.denoise(contrast * downsample(x), contrast * noise / 2)
        made = cascade_mean(spectrum, x, noise, coarse, contrast, lattice, room)
        if on_block is not None and block is not None:  # as many as are counted on
            for _ in range(math.prod(-(-side // block) for side in x.shape[-2:])):
                on_block()
        return made

    return composed


def _one_ladder(
    net: NoiseConditionalNet,
    dtype: torch.dtype,
    lattice: PaddingMode | None,
    block: int | None,
    room: Allocator | None,
    on_block: Callable[[], None] | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """`make_denoiser` of a ladder by itself."""
    prepared = replace(pack(net, dtype, repeatable=True), lattice=lattice or net.lattice)
    if block is not None:  # few large steps, which nothing is gained by recording
        return lambda x, noise: denoise_batch(
            net, x, x.new_full((len(x),), noise), prepared, block, room, on_block
        )
    run = GraphedFunction(lambda x, noise: denoise_batch(net, x, noise, prepared))

    def denoise(x: Tensor, noise: float) -> Tensor:
        mean = run(x, x.new_full((len(x),), noise))
        return mean.clone() if run.recorded else mean

    return denoise
