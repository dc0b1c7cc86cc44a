"""The gate of a ladder's filters: ReLU, exactly or smoothed by a box.

A generative ConvNet for every level of noise: the ladder.

At noise deviation s (data of unit variance) the model is p_s(I) = exp(f(I; w, s)) q_s(I) / Z,
q_s = N(0, (s^2 + 1) Id), with one set of filters for all levels:

    f(I; w, s) = F(c I; s) / s + <I, Q_s I> / 2,    c = 1 / sqrt(s^2 + 1),
    F(z; s) = sum over layers l, filters k, places x of  r_k^l stride_l F_k^l(x; z, s).

Every layer reads out into the score; the level enters through a gain and a bias per filter; Q_s is
fixed by the data's power spectrum, about the mean image where images are aligned (`spectrum.py`).
At high levels ladders of the same picture at lower resolutions stand for it (`octaves.py`).
This is F as it is written, for automatic differentiation; `passes.py` computes it and its gradient
rearranged to what hardware likes, `level.py` has p_s with the names of the paper's model.
"""

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import LayerSpec, PaddingMode, circular_border
from gcn_cli.models.padding import pad


@dataclass(frozen=True)
class SmoothReLU:
    """ReLU convolved with a uniform density of half width w, in units of that box.

    Smoothed it is quadratic on [-w, w] and the ReLU itself outside, so gates grow from 0 to 1
    over the box and biases near a kink get a gradient. With `exact` the gates are the ReLU's,
    the model is piecewise Gaussian, and the box lends only its second derivative to learning.

    A response a is handed over as a / (2 w) + 1/2, 0 and 1 at the ends of the box, and what comes
    back is ReLU / (2 w): so each of the functions below is one or two passes over the maps.
    """

    width: float
    exact: bool = False

    @property
    def span(self) -> float:
        """The unit, 2 w."""
        return 2 * self.width

    def gate(self, a: Tensor) -> Tensor:
        """First derivative, in 0..1."""
        return (a > 0.5).to(a.dtype) if self.exact else a.clamp(0, 1)

    def value(self, a: Tensor, gate: Tensor, out: Tensor | None = None) -> Tensor:
        """The rectified response, from `gate(a)`: a^2 / 2 in the box, a - 1/2 beyond it."""
        return torch.mul(torch.sub(a, gate, alpha=0.5, out=out), gate, out=out)

    def bend(self, a: Tensor, by: Tensor) -> Tensor:
        """`by` times the second derivative: `by` in the box, 0 outside."""
        # What passes back through a clamp.
        passed: Tensor = torch.ops.aten.hardtanh_backward(by, a, 0.0, 1.0)
        return passed


FREQUENCIES = 8  # of the level's description: 1/4, 3/4, 5/4 ... radians a unit of log s
LEVEL_FEATURES = 2 * FREQUENCIES


class NoiseConditionalNet(nn.Module):
    """F(z; s): filters, gains and biases by level, readouts.

    weights[l] (filters, below, size, size); biases[l] (filters,); levels[l] (2 filters,
    LEVEL_FEATURES) gives gains and biases by level; readouts[l] (filters, 1, 1), or
    (filters, h, w) for aligned images of `image_size`. coarser are the ladders at 1/2, 1/4 ... of
    the resolution; contrasts, what each of their pictures is multiplied by to have variance 1;
    handovers, the level above which each answers, in deviations of the next finer one's data.
    """

    contrasts: Tensor | None
    handovers: Tensor | None

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        *,
        channels: int = 3,
        depth: int = 2,
        lattice: PaddingMode = PaddingMode.CIRCULAR,
        rectifier: SmoothReLU,
        head_for: tuple[int, int] | None = None,
        octaves: int = 1,
        coarser_layers: int | None = None,
    ) -> None:
        """`depth` is the space-to-depth factor that the filters see pixels through.

        `octaves` counts this ladder and the coarser ones, which have the lowest `coarser_layers`
        only, None: all.
        """
        super().__init__()
        self.layers = tuple(layers)
        self.channels, self.depth, self.rectifier = channels, depth, rectifier
        self.lattice = PaddingMode(lattice)
        self.image_size = head_for
        self.spectrum = SpectralGaussian(channels, head_for)
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
        alike = partial(
            NoiseConditionalNet, self.layers[:coarser_layers], channels=channels, depth=depth
        )
        self.coarser = nn.ModuleList(
            alike(lattice=lattice, rectifier=rectifier) for _ in range(octaves - 1)
        )
        for name in ("contrasts", "handovers"):
            self.register_buffer(name, torch.ones(octaves - 1) if octaves > 1 else None)

    def octaves(self) -> list["NoiseConditionalNet"]:
        """This ladder and the coarser ones."""
        return [self, *self.coarser]

    def handed_over(self) -> list[tuple[float, float]]:
        """Of every coarser ladder the level above which it answers, and the contrast."""
        if self.contrasts is None or self.handovers is None:
            return []
        return list(zip(self.handovers.tolist(), self.contrasts.tolist(), strict=True))

    def levels_up_to(self, noise: float) -> list[float]:
        """A level as the noise of every ladder from this one to the one that answers."""
        found = [noise]
        for handover, contrast in self.handed_over():
            if found[-1] <= handover:
                break
            found.append(found[-1] * contrast / 2)
        return found

    @property
    def whole_stride(self) -> int:
        """Sides of images that coarser ladders see too must be multiples of this."""
        return max(net.total_stride << number for number, net in enumerate(self.octaves()))

    def initialize(self, generator: torch.Generator) -> None:
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

    def reach(self) -> int:
        """Pixels around a block, both in whole total strides, that grad F in it depends on."""
        left, right, jump = 0, self.depth - 1, self.depth
        for spec in self.layers:
            before = circular_border(spec)[0]
            left += before * jump
            right += (spec.size - 1 - before) * jump
            jump *= spec.stride
        # A unit at x looks at x - left .. x + right: those that see the block, and all they see.
        low = right // jump * jump + left
        high = (left - 1) // jump * jump + right + 1
        return -(-max(low, high) // jump) * jump

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """The largest (H, W) within, of multiples of the total stride."""
        stride = self.total_stride
        return height // stride * stride, width // stride * stride

    def layer_parameters(self, layer: int) -> int:
        """How many a layer has."""
        own = (self.weights, self.biases, self.levels, self.readouts)
        return sum(parameters[layer].numel() for parameters in own)

    @property
    def head_parameters(self) -> int:
        """None as a layer of its own: places count in the readouts."""
        return 0

    @property
    def first_filters(self) -> Tensor:
        """The first layer's filters in pixels, (filters, channels, size depth, size depth)."""
        return F.pixel_shuffle(self.weights[0].detach(), self.depth)

    def level_features(self, log_noise: Tensor) -> Tensor:
        """What gains and biases by level are linear in: (N,) -> (N, LEVEL_FEATURES)."""
        # Made where it is used: a copy from the host cannot be part of a captured step.
        steps = torch.arange(FREQUENCIES, dtype=log_noise.dtype, device=log_noise.device)
        angles = log_noise[:, None] * (steps * 0.5 + 0.25)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def gain_and_shift(self, layer: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """What a layer's filter responses are multiplied by, and what is added: (N, filters)."""
        scale, shift = (features @ self.levels[layer].T).chunk(2, dim=1)
        gain = 1 + scale
        return gain, shift + self.biases[layer] * gain

    def readout(self, layer: int) -> Tensor:
        """What each response of a layer counts for in F: (1, filters, h or 1, w or 1)."""
        weighted: Tensor = self.readouts[layer][None] * self.strides[layer]
        return weighted

    def total(self, z: Tensor, log_noise: Tensor) -> Tensor:
        """F(z; s) of scaled images (N, C, H, W) at levels (N,): (N,)."""
        responses = enumerate(self.responses(z, log_noise))
        values = [(self.readout(layer) * own).sum(dim=(1, 2, 3)) for layer, own in responses]
        return torch.stack(values).sum(dim=0)

    def responses(self, z: Tensor, log_noise: Tensor) -> list[Tensor]:
        """Rectified responses of scaled images at levels, layer by layer: (N, filters, h, w)."""
        features, span = self.level_features(log_noise), self.rectifier.span
        below, found = F.pixel_unshuffle(z, self.depth), []
        for layer, spec in enumerate(self.layers):
            gain, shift = self.gain_and_shift(layer, features)
            below = pad(below, self.lattice, *circular_border(spec))
            raw = F.conv2d(below, self.weights[layer], stride=spec.stride)
            response = raw * gain[:, :, None, None] + shift[:, :, None, None]
            boxed = response / span + 0.5
            below = span * self.rectifier.value(boxed, self.rectifier.gate(boxed))
            found.append(below)
        return found
