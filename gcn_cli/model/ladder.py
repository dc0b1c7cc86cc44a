"""A generative ConvNet for every level of noise: the ladder.

At noise deviation s (data of unit variance) the model is p_s(I) = exp(f(I; w, s)) q_s(I) / Z,
q_s = N(0, (s^2 + 1) Id), with one set of filters for all levels:

    f(I; w, s) = F(c I; s) / s,    c = 1 / sqrt(s^2 + 1),
    F(z; s) = sum over layers l, filters k, places x of  r_k^l stride_l F_k^l(x; z, s).

Every layer reads out into the score; the level enters through a gain and a bias per filter. The
auto-encoder R = (s^2 + 1) B gives the mean of the clean image given the noisy one (Tweedie):

    D(I) = I + s^2 grad log p_s(I) = (I + s^2 R) / (s^2 + 1) = c^2 I + s c grad F(c I; s).
"""

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.model.lattice import extend, fold
from gcn_cli.model.spec import Lattice, LayerSpec, closing_border

FREQUENCIES = torch.arange(8) * 0.5 + 0.25  # of the level's description, in cycles of log s
LEVEL_FEATURES = 2 * len(FREQUENCIES)


@dataclass(frozen=True)
class Rectifier:
    """ReLU, exactly or smoothed by a box: relu convolved with a uniform density of half width w.

    Smoothed it is quadratic on [-w, w] and the ReLU itself outside, so gates grow from 0 to 1
    over the box and biases near a kink get a gradient. With `exact` the gates are the ReLU's,
    the model is piecewise Gaussian, and the box lends only its second derivative to learning.
    """

    width: float
    exact: bool = False

    def gate(self, a: Tensor) -> Tensor:
        """First derivative, in 0..1."""
        if self.exact:
            return (a > 0).to(a.dtype)
        return (a * (0.5 / self.width)).add_(0.5).clamp_(0, 1)

    def value(self, a: Tensor, gate: Tensor) -> Tensor:
        """The rectified response, from `gate(a)`."""
        if self.exact:
            return F.relu(a)
        return (a - self.width).clamp_min_(0).addcmul_(gate, gate, value=self.width)

    def bend(self, a: Tensor, by: Tensor) -> Tensor:
        """`by` times the second derivative, which is 1 / (2 w) on the box and 0 outside."""
        # What passes back through a clamp, in one pass over the maps.
        passed: Tensor = torch.ops.aten.hardtanh_backward(by, a, -self.width, self.width)
        return passed.mul_(0.5 / self.width)


@dataclass(frozen=True)
class Ascent:
    """The way up at one set of images: what the way down, and learning, need of it."""

    filters: list[Tensor]  # of every layer, in the maps' format
    features: Tensor  # of the levels, (N, LEVEL_FEATURES)
    gains: list[Tensor]  # (N, filters, 1, 1)
    gates: list[Tensor]
    sizes: list[tuple[int, int]]  # of the maps each layer looked at, border excluded
    # Kept for learning only:
    below: list[Tensor]  # maps each layer looked at, border included
    raw: list[Tensor]  # filter responses before gain and bias
    responses: list[Tensor]  # and after


class LadderNet(nn.Module):
    """F(z; s): filters, gains and biases by level, readouts.

    weights[l] (filters, below, size, size); biases[l] (filters,); levels[l] (2 filters,
    LEVEL_FEATURES) gives gains and biases by level; readouts[l] (filters, 1, 1), or
    (filters, h, w) for aligned images of `image_size`.
    """

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        *,
        channels: int = 3,
        depth: int = 2,
        lattice: Lattice = Lattice.CIRCULAR,
        rectifier: Rectifier,
        head_for: tuple[int, int] | None = None,
    ) -> None:
        """`depth` is the space-to-depth factor that the filters see pixels through."""
        super().__init__()
        self.layers = tuple(layers)
        self.channels, self.depth, self.rectifier = channels, depth, rectifier
        self.lattice = Lattice(lattice)
        self.image_size = head_for
        sizes = self.map_sizes(*head_for) if head_for else [(1, 1)] * len(self.layers)
        below = [channels * depth**2, *(layer.filters for layer in self.layers)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.levels, self.readouts = nn.ParameterList(), nn.ParameterList()
        for spec, inputs, size in zip(self.layers, below, sizes, strict=False):
            shape = (spec.filters, inputs, spec.size, spec.size)
            self.weights.append(nn.Parameter(torch.zeros(shape)))
            self.biases.append(nn.Parameter(torch.zeros(spec.filters)))
            self.levels.append(nn.Parameter(torch.zeros(2 * spec.filters, LEVEL_FEATURES)))
            self.readouts.append(nn.Parameter(torch.zeros(spec.filters, *size)))

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform filters and biases of variance 1 / (3 fan-in), small level terms."""
        for spec, weight, bias, level, readout in zip(
            self.layers, self.weights, self.biases, self.levels, self.readouts, strict=True
        ):
            bound = weight[0].numel() ** -0.5
            weight.data.copy_(bound * (2 * torch.rand(weight.shape, generator=generator) - 1))
            bias.data.copy_(bound * (2 * torch.rand(bias.shape, generator=generator) - 1))
            level.data.copy_(0.02 * torch.randn(level.shape, generator=generator))
            column = torch.randn(spec.filters, 1, 1, generator=generator) / spec.filters**0.5
            readout.data.copy_(column.expand(readout.shape))

    @property
    def strides(self) -> list[int]:
        """Pixels of the space-to-depth image from one position of each layer to the next."""
        return list(itertools.accumulate((s.stride for s in self.layers), operator.mul))

    @property
    def total_stride(self) -> int:
        """Sides of images must be multiples of this."""
        return self.depth * self.strides[-1]

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of every layer's map. Raises ValueError for sides that do not divide."""
        if height % self.total_stride or width % self.total_stride:
            raise ValueError(f"sides must be multiples of {self.total_stride}")
        steps = [self.depth * stride for stride in self.strides]
        return [(height // step, width // step) for step in steps]

    def receptive_fields(self) -> list[int]:
        """Side in pixels that one filter response of each layer looks at."""
        fields, field, jump = [], self.depth, self.depth
        for spec in self.layers:
            field += (spec.size - 1) * jump
            jump *= spec.stride
            fields.append(field)
        return fields

    def filters(self, dtype: torch.dtype) -> list[Tensor]:
        """All filters in the number format of the maps, channels last."""
        return [w.to(dtype).contiguous(memory_format=torch.channels_last) for w in self.weights]

    def ascend(
        self, z: Tensor, log_noise: Tensor, dtype: torch.dtype, *, keep: bool = True
    ) -> Ascent:
        """The way up for scaled images z (N, C, H, W) at levels (N,); maps are of `dtype`.

        Without `keep` only what the way down needs is kept, and maps are used again.
        """
        filters = self.filters(dtype)
        angles = log_noise[:, None] * FREQUENCIES.to(log_noise)
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        up = Ascent(filters, features, [], [], [], [], [], [])
        below = F.pixel_unshuffle(z, self.depth).to(dtype)
        below = below.contiguous(memory_format=torch.channels_last)
        for layer, (spec, bias, level) in enumerate(
            zip(self.layers, self.biases, self.levels, strict=True)
        ):
            scale, shift = (features @ level.T).chunk(2, dim=1)
            gain = 1 + scale
            shift = shift + bias * gain
            up.sizes.append((below.shape[-2], below.shape[-1]))
            up.gains.append(gain[:, :, None, None].to(dtype))
            below = extend(below, self.lattice, *closing_border(spec))
            raw = F.conv2d(below, filters[layer], stride=spec.stride)
            offset = shift[:, :, None, None].to(dtype)
            if keep:
                up.below.append(below)
                up.raw.append(raw)
                up.responses.append(torch.addcmul(offset, raw, up.gains[-1]))
                response = up.responses[-1]
            else:
                response = torch.addcmul(offset, raw, up.gains[-1], out=raw)
            up.gates.append(self.rectifier.gate(response))
            below = self.rectifier.value(response, up.gates[-1])
        return up

    def readout(self, layer: int, dtype: torch.dtype) -> Tensor:
        """What each response of a layer counts for in F: (1, filters, h or 1, w or 1)."""
        weighted: Tensor = self.readouts[layer] * self.strides[layer]
        return weighted[None].to(dtype)

    def total(self, up: Ascent) -> Tensor:
        """F(z; s): (N,)."""
        dtype = up.responses[0].dtype
        values = [
            (self.readout(layer, dtype) * self.rectifier.value(a, gate)).sum(dim=(1, 2, 3))
            for layer, (a, gate) in enumerate(zip(up.responses, up.gates, strict=True))
        ]
        return torch.stack(values).sum(dim=0)

    def deconvolve(self, up: Ascent, layer: int, coefficients: Tensor) -> Tensor:
        """A layer's filters placed by `coefficients` on the map below it."""
        spec = self.layers[layer]
        before, after = closing_border(spec)
        rest = [(side + before + after - spec.size) % spec.stride for side in up.sizes[layer]]
        written = F.conv_transpose2d(
            coefficients, up.filters[layer], stride=spec.stride, output_padding=(rest[0], rest[1])
        )
        return fold(written, self.lattice, before, after)

    def descend(self, up: Ascent) -> tuple[Tensor, list[Tensor]]:
        """grad F (N, C, H, W) in the maps' dtype, and dF/d(rectified response) layer by layer.

        Each layer's gates multiply what its readout and the layers above ask of it.
        """
        asked: list[Tensor] = []
        above: Tensor | None = None
        for layer in reversed(range(len(self.layers))):
            wanted = self.readout(layer, up.gates[layer].dtype)
            wanted = wanted if above is None else above + wanted
            asked.insert(0, wanted)
            coefficients = up.gates[layer] * wanted * up.gains[layer]
            above = self.deconvolve(up, layer, coefficients)
        assert above is not None
        slope: Tensor = F.pixel_shuffle(above, self.depth)
        return slope, asked

    def at(self, noise: float, dtype: torch.dtype = torch.float32) -> "LadderLevel":
        """The generative ConvNet at noise deviation `noise`."""
        return LadderLevel(self, noise, dtype)


@dataclass(frozen=True)
class LadderLevel:
    """p_s: one rung, with the names of the paper's model."""

    net: LadderNet
    noise: float  # s, in deviations of the data
    dtype: torch.dtype = torch.float32

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,)."""
        return self.net.total(self._ascend(x, keep=True)) / self.noise

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        slope, _ = self.net.descend(self._ascend(x, keep=False))
        return slope.to(x.dtype) / (self.noise * self.sigma)

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates, layer by layer, in 0..1: (N, filters, h, w)."""
        return self._ascend(x, keep=False).gates

    def denoise(self, x: Tensor) -> Tensor:
        """D(I), the mean of the clean image given the noisy one: (N, C, H, W) -> the same."""
        return posterior_mean(x, self.sigma**2 * self.basis(x), self.noise)

    def _ascend(self, x: Tensor, *, keep: bool) -> Ascent:
        levels = x.new_full((len(x),), math.log(self.noise))
        return self.net.ascend(x / self.sigma, levels, self.dtype, keep=keep)


@torch.no_grad()
def denoise_each(net: LadderNet, x: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """D(I) of images (N, C, H, W), each at a noise deviation of its own, (N,)."""
    wide = noise[:, None, None, None]
    sigma = (wide.square() + 1).sqrt()
    slope, _ = net.descend(net.ascend(x / sigma, noise.log(), dtype, keep=False))
    return x / sigma.square() + wide / sigma * slope.to(x.dtype)


def posterior_mean(x: Tensor, reconstruction: Tensor, noise: float) -> Tensor:
    """E[clean | noisy x] = (I + s^2 R) / (s^2 + 1), Tweedie's identity in terms of R."""
    return (x + noise**2 * reconstruction) / (noise**2 + 1)
