"""The paper's network: filters and gates on the way up, the same filters as basis functions down.

F_k^(l) = ReLU(sum_i w_i^(l,k) * F_i^(l-1) + b_(l,k)),  F^(0) = I,  f = sum over F^(L) (equation 2
of Xie, Lu, Zhu, Wu 2016), or <head, F^(L)> with the fully connected filter of the object model.
B(I) = df/dI is computed without autograd, as the paper describes it (section 4): start from ones
on the top maps, multiply by the gates, deconvolve, layer by layer. This is the reference;
`fast.py` computes the same rearranged to what hardware likes.

Image tensors are (N, C, H, W) with 0 the mean color, in the units the model was made for.

The Gaussian pieces: p on the cells of images with one activation pattern.

On a cell f(I) = alpha + <I, B>, so that p is N(sigma^2 B, sigma^2 Id) cut to the cell: sigma^2 B,
the reconstruction of the auto-encoder, is the mean of the piece (theorem 2).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.energy import log_reference, spread_over_pixels, squared_norm
from gcn_cli.models.layers import LayerSpec, PaddingMode, layer_border
from gcn_cli.models.padding import pad, pad_transpose_


class GenerativeConvNet(nn.Module):
    """p(I; w) = exp(f(I; w)) q(I) / Z(w) with q = N(0, sigma^2 Id).

    `weights[l]` is (filters, channels below, size, size), `biases[l]` is (filters,). With a head,
    `head` is (filters, h, w) over the whole top map, and images have exactly `image_size`.
    """

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        *,
        channels: int = 3,
        lattice: PaddingMode = PaddingMode.ZERO,
        sigma: float = 1.0,
        head_for: tuple[int, int] | None = None,
    ) -> None:
        """`head_for` = (H, W) adds the fully connected head for images of that size."""
        super().__init__()
        if not layers:
            raise ValueError("a generative ConvNet needs at least one layer of filters")
        if not sigma > 0:
            raise ValueError(f"sigma {sigma}: the reference deviation must be positive")
        self.layers: tuple[LayerSpec, ...] = ()
        self.channels = channels
        self.lattice = PaddingMode(lattice)
        self.sigma = sigma
        self.image_size = head_for
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.head: nn.Parameter | None = None
        for spec in layers:
            self._append(spec)
        self._make_head()

    def _append(self, spec: LayerSpec) -> None:
        below = self.layers[-1].filters if self.layers else self.channels
        self.weights.append(nn.Parameter(torch.zeros(spec.filters, below, spec.size, spec.size)))
        self.biases.append(nn.Parameter(torch.zeros(spec.filters)))
        self.layers = (*self.layers, spec)

    def _make_head(self) -> None:
        if self.image_size is not None:
            top = self.map_sizes(*self.image_size)[-1]
            self.head = nn.Parameter(torch.zeros(self.layers[-1].filters, *top))

    def grow(self, spec: LayerSpec, std: float, generator: torch.Generator) -> None:
        """Put a layer of new filters N(0, std^2) on top; a head is made anew for the new top."""
        self._append(spec)
        self._make_head()
        newest = [self.weights[-1]] + ([self.head] if self.head is not None else [])
        _draw(newest, std, generator)
        self.to(self.weights[0].device, self.weights[0].dtype)

    def initialize(self, std: float, generator: torch.Generator) -> None:
        """Filters (and head) ~ N(0, std^2), biases 0, as published with std = 0.01."""
        _draw([*self.weights, *([self.head] if self.head is not None else [])], std, generator)
        for bias in self.biases:
            bias.data.zero_()

    def on(self, lattice: PaddingMode) -> "GenerativeConvNet":
        """The same parameters on another lattice."""
        other = copy.copy(self)
        other.lattice = lattice
        return other

    def borders(self) -> list[tuple[int, int]]:
        """(before, after) of each layer's border, in pixels of the map below."""
        return [layer_border(self.lattice, layer) for layer in self.layers]

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of every layer's map for an image of height x width.

        Raises ValueError where an image is too small, or does not close on the torus.
        """
        sizes = []
        for spec, (before, after) in zip(self.layers, self.borders(), strict=True):
            sides = []
            for side in (height, width):
                if self.lattice is PaddingMode.CIRCULAR and side % spec.stride:
                    raise ValueError(
                        f"a side of {side} does not close on a torus sub-sampled by {spec.stride}: "
                        f"sides must be multiples of {self.total_stride}"
                    )
                sides.append((side + before + after - spec.size) // spec.stride + 1)
            height, width = sides
            if min(height, width) < 1:
                raise ValueError("the image is smaller than the receptive field of one filter")
            sizes.append((height, width))
        return sizes

    @property
    def total_stride(self) -> int:
        """Pixels from one position of the top map to the next."""
        return math.prod(spec.stride for spec in self.layers)

    def receptive_fields(self) -> list[int]:
        """Side in pixels that one filter response of each layer looks at."""
        fields, field, jump = [], 1, 1
        for spec in self.layers:
            field += (spec.size - 1) * jump
            jump *= spec.stride
            fields.append(field)
        return fields

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """The largest (H, W) within that maps close on: any, since what is left over is padded."""
        return height, width

    def layer_parameters(self, layer: int) -> int:
        """How many a layer has."""
        return int(self.weights[layer].numel() + self.biases[layer].numel())

    @property
    def head_parameters(self) -> int:
        """How many the head has, as a layer of its own."""
        return 0 if self.head is None else self.head.numel()

    @property
    def first_filters(self) -> Tensor:
        """The first layer's filters in pixels, (filters, channels, size, size)."""
        filters: Tensor = self.weights[0].detach()
        return filters

    def pre_activations(self, x: Tensor) -> list[Tensor]:
        """Filter responses before the ReLU, layer by layer: (N, filters, h, w) each."""
        responses, below = [], x
        for spec, weight, bias, (before, after) in zip(
            self.layers, self.weights, self.biases, self.borders(), strict=True
        ):
            below = pad(below, self.lattice, before, after)
            responses.append(F.conv2d(below, weight, bias, stride=spec.stride))
            below = F.relu(responses[-1])
        return responses

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified filter responses, layer by layer: (N, filters, h, w) each."""
        return [F.relu(response) for response in self.pre_activations(x)]

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, H, W), whose sum is U.

        A top response counts where it is, evenly over the pixels it stands for.
        """
        top = self.responses(x)[-1]
        counted = (top if self.head is None else top * self.head).sum(dim=1)
        own = x.square().sum(dim=1) / (2 * self.sigma**2)
        return own - spread_over_pixels(counted, (x.shape[-2], x.shape[-1]))

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """delta(I): which ReLUs are open, layer by layer, bool (N, filters, h, w)."""
        return [response > 0 for response in self.pre_activations(x)]

    def score(self, x: Tensor) -> Tensor:
        """f(I; w), one number an image: (N, C, H, W) -> (N,)."""
        top = F.relu(self.pre_activations(x)[-1])
        return (top if self.head is None else top * self.head).sum(dim=(1, 2, 3))

    def deconvolve(self, layer: int, coefficients: Tensor, below: tuple[int, int]) -> Tensor:
        """A layer's filters placed by `coefficients`: (N, filters, h, w) -> (N, C, *below)."""
        spec = self.layers[layer]
        before, after = self.borders()[layer]
        # Rows that the stride steps over at the far end get no basis function: output padding.
        rest = [(side + before + after - spec.size) % spec.stride for side in below]
        written = F.conv_transpose2d(
            coefficients, self.weights[layer], stride=spec.stride, output_padding=(rest[0], rest[1])
        )
        return pad_transpose_(written, self.lattice, before, after)

    def coefficients(self, gates: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """What places each layer's filters on the way down: (N, filters, h, w), bottom layer first.

        `gates` as of `activation_pattern`, `size` the (H, W) of the image. Gates need not be those
        of any image: the recursion is linear in what starts it.
        """
        sizes = [size, *self.map_sizes(*size)]
        top = gates[-1].to(self.weights[0].dtype)
        placed = [top if self.head is None else top * self.head]
        for layer in reversed(range(1, len(self.layers))):
            written = self.deconvolve(layer, placed[0], sizes[layer])
            placed.insert(0, written * gates[layer - 1].to(written.dtype))
        return placed

    def top_down(self, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """B for a given activation pattern: (N, C, H, W)."""
        return self.deconvolve(0, self.coefficients(gates, size)[0], size)

    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI at the images x themselves: (N, C, H, W) -> (N, C, H, W)."""
        return self.top_down(self.activation_pattern(x), (x.shape[-2], x.shape[-1]))

    def intercept(self, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """alpha of f(I) = alpha + <I, B> on the cell of `gates`: (N,).

        A coefficient that places a filter also counts that filter's bias, at every position.
        """
        per_layer = zip(self.coefficients(gates, size), self.biases, strict=True)
        return torch.stack([c.sum(dim=(2, 3)) @ bias for c, bias in per_layer]).sum(dim=0)


def _draw(parameters: list[nn.Parameter], std: float, generator: torch.Generator) -> None:
    for parameter in parameters:
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.data.copy_(std * values)


@dataclass(frozen=True)
class GaussianPiece:
    """The density on one cell: exp(log_weight) N(mean, variance Id), cut to the cell, over Z(w).

    mean: (N, C, H, W), sigma^2 B; variance: sigma^2; log_weight: (N,), alpha + sigma^2 |B|^2 / 2.
    """

    mean: Tensor
    variance: float
    log_weight: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """log of the piece at x, inside its cell, but for log Z(w): (N, C, H, W) -> (N,)."""
        return self.log_weight + log_reference(x - self.mean, math.sqrt(self.variance))


def gaussian_piece(model: GenerativeConvNet, x: Tensor) -> GaussianPiece:
    """The Gaussian piece of p on the cell that each image of x lies in (theorem 2)."""
    gates, size = model.activation_pattern(x), (x.shape[-2], x.shape[-1])
    slope = model.top_down(gates, size)
    alpha = model.intercept(gates, size)
    variance = model.sigma**2
    return GaussianPiece(variance * slope, variance, alpha + variance * squared_norm(slope) / 2)
