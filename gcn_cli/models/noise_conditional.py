"""A generative ConvNet with one set of filters for all noise levels.

At noise level s (the noise deviation, in deviations of the data) the model of noisy images I is

    p_s(I) = exp(f(I; w, s)) q_s(I) / Z,    q_s = N(0, (s^2 + 1) Id),
    f(I; w, s) = F(c I; s) / s + <I, Q_s I> / 2,    c = 1 / sqrt(s^2 + 1),
    F(z; s) = sum over layers l, filters k, positions x of  r_k^l stride_l F_k^l(x; z, s).

Each layer has a readout r into the potential F. The noise level enters through a scale and a shift
of each filter. Q_s is fixed by the power spectrum of the data (`gaussian.py`).

The net of a regular pattern also sees the phase phi of the lattice at each position: the responses
of its first layer have one more linear term, V e(phi), with e the Fourier features of the phase.
The network then knows where in the repeated unit it is, and for each phase the model is the same
generative ConvNet of the image.

This module has the parameters, and F for automatic differentiation. `backprop.py` computes F and
its gradient faster; `cascade.py` has p_s and the denoiser.
"""

import copy
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import LayerSpec, PaddingMode, circular_border
from gcn_cli.models.padding import pad


@dataclass(frozen=True)
class SmoothReLU:
    """ReLU convolved with a uniform density on [-width, width].

    It is quadratic on that interval and equals the ReLU outside, so that gates open gradually and
    biases near a kink get a gradient. With `exact` the gates are those of the ReLU: the model is
    piecewise Gaussian, and only learning uses the second derivative of the smooth function.

    Responses are given as a / (2 width) + 1/2, which maps the interval to [0, 1]; values are
    returned divided by 2 width. So each method takes one or two passes over the maps.
    """

    width: float
    exact: bool = False

    @property
    def span(self) -> float:
        """The length of the interval, 2 width."""
        return 2 * self.width

    def gate(self, a: Tensor) -> Tensor:
        """First derivative, in 0..1."""
        return (a > 0.5).to(a.dtype) if self.exact else a.clamp(0, 1)

    def value(self, a: Tensor, gate: Tensor, out: Tensor | None = None) -> Tensor:
        """Rectified response, from `gate(a)`: a^2 / 2 on the interval, a - 1/2 above it."""
        return torch.mul(torch.sub(a, gate, alpha=0.5, out=out), gate, out=out)

    def gate_backward(self, a: Tensor, gradient: Tensor) -> Tensor:
        """The gradient passed back through the smooth gate: on the interval; 0 outside."""
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, a, 0.0, 1.0)
        return passed


PhaseMap = Callable[[Tensor, Tensor], Tensor]
"""The phase of a lattice in cycles, (N, axes, h, w), at positions down (h,) and across (w,).

Positions are in pixels, 0 at the center of the first pixel. N is 1 or the number of images.
"""


def block_centers(start: int, stop: int, step: int, device: torch.device) -> Tensor:
    """Centers of the blocks of `step` pixels in a range of pixels, (n,)."""
    return torch.arange(start, stop, step, device=device) + (step - 1) / 2


HARMONICS: dict[int, tuple[tuple[int, ...], ...]] = {
    0: (),
    1: ((1,), (2,), (3,)),
    2: ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (3, 0), (0, 3)),
}
"""The waves of which a net sees cosine and sine, as multiples of the phases, by lattice axes."""


def phase_features(phases: Tensor) -> Tensor:
    """e(phi): cosine and sine of the harmonics, (N, axes, h, w) -> (N, features, h, w)."""
    # Sums of products by Python numbers: a CUDA graph cannot contain a copy from the host.
    waves = [
        sum(factor * phases[:, axis] for axis, factor in enumerate(factors) if factor)
        for factors in HARMONICS[phases.shape[1]]
    ]
    angles = 2 * math.pi * torch.stack([torch.as_tensor(wave) for wave in waves], dim=1)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


FREQUENCIES = 8  # of the noise embedding: 1/4, 3/4, 5/4 ... radians per unit of log s
EMBEDDING_SIZE = 2 * FREQUENCIES


class NoiseConditionalNet(nn.Module):
    """The parameters of F(z; s).

    weights[l]: (filters, inputs, size, size). biases[l]: (filters,). modulations[l]:
    (2 filters, EMBEDDING_SIZE), from the noise embedding to scales and shifts. readouts[l]:
    (filters, 1, 1), or (filters, h, w) with an `image_size` (aligned images, a weight a position).
    phase_weights: V, (filters of the first layer, phase features); None without a lattice.
    """

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        *,
        channels: int = 3,
        space_to_depth: int = 2,
        padding_mode: PaddingMode = PaddingMode.CIRCULAR,
        rectifier: SmoothReLU,
        image_size: tuple[int, int] | None = None,
        lattice_axes: int = 0,
    ) -> None:
        """`space_to_depth`: side of the blocks of pixels that the first layer sees as channels.

        `lattice_axes`: axes along which the images repeat, 0 to 2.
        """
        super().__init__()
        self.layers = tuple(layers)
        self.channels, self.space_to_depth = channels, space_to_depth
        self.padding_mode, self.rectifier = PaddingMode(padding_mode), rectifier
        self.image_size = image_size
        self.spectrum = SpectralGaussian(channels, image_size)
        sizes = self.map_sizes(*image_size) if image_size else [(1, 1)] * len(self.layers)
        inputs = [channels * space_to_depth**2, *(layer.filters for layer in self.layers)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.modulations, self.readouts = nn.ParameterList(), nn.ParameterList()
        for spec, below, size in zip(self.layers, inputs, sizes, strict=False):
            filters = spec.filters
            self.weights.append(nn.Parameter(torch.zeros(filters, below, spec.size, spec.size)))
            self.biases.append(nn.Parameter(torch.zeros(filters)))
            self.modulations.append(nn.Parameter(torch.zeros(2 * filters, EMBEDDING_SIZE)))
            self.readouts.append(nn.Parameter(torch.zeros(filters, *size)))
        features = 2 * len(HARMONICS[lattice_axes])
        shape = (self.layers[0].filters, features)
        self.phase_weights = nn.Parameter(torch.zeros(shape)) if features else None

    def initialize(self, generator: torch.Generator) -> None:
        """Draw uniform filters and biases of variance 1 / (3 fan-in), small modulations."""
        for weight, bias, modulation, readout in zip(
            self.weights, self.biases, self.modulations, self.readouts, strict=True
        ):
            bound = weight[0].numel() ** -0.5
            weight.data.copy_(bound * (2 * torch.rand(weight.shape, generator=generator) - 1))
            bias.data.copy_(bound * (2 * torch.rand(bias.shape, generator=generator) - 1))
            modulation.data.copy_(0.02 * torch.randn(modulation.shape, generator=generator))
            column = torch.randn(len(bias), 1, 1, generator=generator) / len(bias) ** 0.5
            readout.data.copy_(column.expand(readout.shape))
        if self.phase_weights is not None:
            shape = self.phase_weights.shape
            draw = 2 * torch.rand(shape, generator=generator) - 1
            self.phase_weights.data.copy_(shape[1] ** -0.5 * draw)

    def with_padding(self, padding_mode: PaddingMode) -> "NoiseConditionalNet":
        """A net with another padding mode that shares the parameters."""
        other = copy.copy(self)
        other.padding_mode = padding_mode
        return other

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        device: torch.device = self.weights[0].device
        return device

    @property
    def strides(self) -> list[int]:
        """Positions of the space-to-depth image between neighbors in each layer's map."""
        return list(itertools.accumulate((s.stride for s in self.layers), operator.mul))

    @property
    def total_stride(self) -> int:
        """Pixels between neighbors in the top map; sides of images are multiples of this."""
        return self.space_to_depth * self.strides[-1]

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of each layer's map. Raises ValueError for sides that do not divide."""
        if height % self.total_stride or width % self.total_stride:
            raise ValueError(f"sides must be multiples of {self.total_stride}")
        steps = [self.space_to_depth * stride for stride in self.strides]
        return [(height // step, width // step) for step in steps]

    def receptive_fields(self) -> list[int]:
        """Side in pixels of the receptive field of each layer's filters."""
        fields, field, jump = [], self.space_to_depth, self.space_to_depth
        for spec in self.layers:
            field += (spec.size - 1) * jump
            jump *= spec.stride
            fields.append(field)
        return fields

    def reach(self) -> int:
        """Pixels around a tile that grad F in the tile depends on, in whole total strides.

        The tile itself is a multiple of the total stride too.
        """
        left, right, jump = 0, self.space_to_depth - 1, self.space_to_depth
        for spec in self.layers:
            before = circular_border(spec)[0]
            left += before * jump
            right += (spec.size - 1 - before) * jump
            jump *= spec.stride
        # A unit at x depends on x - left .. x + right: count units that see the tile, and all they
        # see.
        low = right // jump * jump + left
        high = (left - 1) // jump * jump + right + 1
        return -(-max(low, high) // jump) * jump

    @property
    def first_filters(self) -> Tensor:
        """The first layer's filters in pixels: (filters, channels, side, side)."""
        return F.pixel_shuffle(self.weights[0].detach(), self.space_to_depth)

    def phases_at(self, phases: PhaseMap, height: int, width: int, device: torch.device) -> Tensor:
        """Phases at the positions of the first layer's map of an image: (N, axes, h, w)."""
        rows, columns = (self.phase_positions(0, side, device) for side in (height, width))
        return phases(rows, columns)

    def phase_positions(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Centers in pixels of the first layer's positions in a range of pixels, (n,)."""
        return block_centers(start, stop, self.space_to_depth * self.strides[0], device)

    def noise_embedding(self, log_noise: Tensor) -> Tensor:
        """Fourier features of log s: (N,) -> (N, EMBEDDING_SIZE)."""
        # Created on the device: a CUDA graph cannot contain a copy from the host.
        steps = torch.arange(FREQUENCIES, dtype=log_noise.dtype, device=log_noise.device)
        angles = log_noise[:, None] * (steps * 0.5 + 0.25)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def readout(self, layer: int) -> Tensor:
        """Weights of a layer's responses in F: (1, filters, h or 1, w or 1)."""
        weights: Tensor = self.readouts[layer][None] * self.strides[layer]
        return weights

    def potential(self, z: Tensor, log_noise: Tensor, phases: Tensor | None = None) -> Tensor:
        """F(z; s) of scaled images (N, C, H, W) at noise levels (N,): (N,).

        phases: of the lattice, as `phases_at` returns them; None leaves their term out.
        """
        responses = enumerate(self.responses(z, log_noise, phases))
        values = [(self.readout(layer) * maps).sum(dim=(1, 2, 3)) for layer, maps in responses]
        return torch.stack(values).sum(dim=0)

    def responses(self, z: Tensor, log_noise: Tensor, phases: Tensor | None = None) -> list[Tensor]:
        """Rectified responses of each layer to scaled images: (N, filters, h, w) each."""
        embedding, span = self.noise_embedding(log_noise), self.rectifier.span
        below, responses = F.pixel_unshuffle(z, self.space_to_depth), []
        for layer, spec in enumerate(self.layers):
            change, shift = (embedding @ self.modulations[layer].T).chunk(2, dim=1)
            scale = 1 + change
            shift = shift + self.biases[layer] * scale
            below = pad(below, self.padding_mode, *circular_border(spec))
            raw = F.conv2d(below, self.weights[layer], stride=spec.stride)
            if layer == 0 and phases is not None and self.phase_weights is not None:
                raw = raw + F.conv2d(phase_features(phases), self.phase_weights[:, :, None, None])
            response = raw * scale[:, :, None, None] + shift[:, :, None, None]
            boxed = response / span + 0.5
            below = span * self.rectifier.value(boxed, self.rectifier.gate(boxed))
            responses.append(below)
        return responses
