"""The generative ConvNet of Xie, Lu, Zhu, Wu (2016), as the paper writes it.

    F_k^(l) = ReLU(sum_i w_i^(l,k) * F_i^(l-1) + b_(l,k)),  F^(0) = I,  f = sum over F^(L),

equation 2, or f = <head, F^(L)> with the fully connected head of the object model. B(I) = df/dI is
computed without autograd (section 4): ones on the top maps are multiplied by the gates and
deconvolved, layer by layer, with the filters as basis functions. This is the reference;
`convnet_fast.py` computes the same faster.

On the cell of images with one activation pattern, f(I) = alpha + <I, B>, so p is the Gaussian
N(sigma^2 B, sigma^2 Id) cut to the cell. Its mean sigma^2 B is the reconstruction of the
auto-encoder (theorem 2).

Images are (N, C, H, W), 0 is the mean color, in the units that the model was trained in.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcn_cli.models.energy import log_reference, spread_over_pixels, squared_norm
from gcn_cli.models.layers import LayerSpec, PaddingMode, layer_border, parse_layers
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
        padding_mode: PaddingMode = PaddingMode.ZEROS,
        sigma: float = 1.0,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """All parameters are 0; see `initialize`. `image_size` (H, W) adds the head.

        Raises ValueError without layers, or where sigma is not positive.
        """
        super().__init__()
        if not layers:
            raise ValueError("a generative ConvNet needs at least one layer of filters")
        if not sigma > 0:
            raise ValueError(f"sigma {sigma}: the reference deviation must be positive")
        self.layers: tuple[LayerSpec, ...] = ()
        self.channels = channels
        self.padding_mode = PaddingMode(padding_mode)
        self.sigma = sigma
        self.image_size = image_size
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.head: nn.Parameter | None = None
        for layer in layers:
            self._append(layer)
        self._make_head()

    def extra_repr(self) -> str:
        """The layers, and whether the parameters are still those of the constructor."""
        state = "" if bool(self.first_filters.any()) else "; all parameters are 0: call initialize"
        return (
            f"{','.join(map(str, self.layers))}; {self.padding_mode}, sigma {self.sigma:g}{state}"
        )

    def _append(self, layer: LayerSpec) -> None:
        inputs = self.layers[-1].filters if self.layers else self.channels
        shape = (layer.filters, inputs, layer.size, layer.size)
        self.weights.append(nn.Parameter(torch.zeros(shape)))
        self.biases.append(nn.Parameter(torch.zeros(layer.filters)))
        self.layers = (*self.layers, layer)

    def _make_head(self) -> None:
        if self.image_size is not None:
            top_size = self.map_sizes(*self.image_size)[-1]
            self.head = nn.Parameter(torch.zeros(self.layers[-1].filters, *top_size))

    def grow(self, layer: LayerSpec, std: float, generator: torch.Generator) -> None:
        """Add a layer of filters ~ N(0, std^2) on top; a head is drawn again for the new top."""
        self._append(layer)
        self._make_head()
        _draw([self.weights[-1], self.head], std, generator)
        self.to(self.weights[0].device, self.weights[0].dtype)

    def initialize(self, std: float, generator: torch.Generator | None) -> None:
        """Filters and head ~ N(0, std^2), biases 0; published with std = 0.01."""
        _draw([*self.weights, self.head], std, generator)
        for bias in self.biases:
            bias.data.zero_()

    def with_padding(self, padding_mode: PaddingMode) -> "GenerativeConvNet":
        """A net with another padding mode that shares the parameters."""
        other = copy.copy(self)
        other.padding_mode = padding_mode
        return other

    def borders(self) -> list[tuple[int, int]]:
        """Border (before, after) of each layer's input map."""
        return [layer_border(self.padding_mode, layer) for layer in self.layers]

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of every layer's map for an image of height x width.

        Raises ValueError where the image is too small, or its maps do not close on the torus.
        """
        sizes = []
        for layer, border in zip(self.layers, self.borders(), strict=True):
            if self.padding_mode is PaddingMode.CIRCULAR:
                for side in (height, width):
                    if side % layer.stride:
                        raise ValueError(
                            f"a side of {side} does not close on a torus sub-sampled by "
                            f"{layer.stride}: sides must be multiples of {self.total_stride}"
                        )
            height, width = (
                (side + sum(border) - layer.size) // layer.stride + 1 for side in (height, width)
            )
            if min(height, width) < 1:
                raise ValueError("the image is smaller than the receptive field of one filter")
            sizes.append((height, width))
        return sizes

    @property
    def total_stride(self) -> int:
        """Pixels from one position of the top map to the next."""
        return math.prod(layer.stride for layer in self.layers)

    def receptive_fields(self) -> list[int]:
        """Side in pixels of the receptive field of each layer's filters."""
        fields, field, stride = [], 1, 1
        for layer in self.layers:
            field += (layer.size - 1) * stride
            stride *= layer.stride
            fields.append(field)
        return fields

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """The largest usable (H, W) within an image: all of it, since borders are padded."""
        return height, width

    def layer_parameters(self, layer: int) -> int:
        return int(self.weights[layer].numel() + self.biases[layer].numel())

    @property
    def head_parameters(self) -> int:
        return 0 if self.head is None else self.head.numel()

    @property
    def first_filters(self) -> Tensor:
        """The first layer's filters in pixels, (filters, channels, size, size)."""
        filters: Tensor = self.weights[0].detach()
        return filters

    def pre_activations(self, x: Tensor) -> list[Tensor]:
        """Filter responses before the ReLU, layer by layer: (N, filters, h, w) each."""
        responses: list[Tensor] = []
        inputs = x
        for layer, weight, bias, border in zip(
            self.layers, self.weights, self.biases, self.borders(), strict=True
        ):
            padded = pad(inputs, self.padding_mode, *border)
            responses.append(F.conv2d(padded, weight, bias, stride=layer.stride))
            inputs = F.relu(responses[-1])
        return responses

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses of each layer: (N, filters, h, w). Differentiable in I."""
        return [F.relu(response) for response in self.pre_activations(x)]

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """delta(I): which ReLUs are active, layer by layer, bool (N, filters, h, w)."""
        return [response > 0 for response in self.pre_activations(x)]

    def _weighted(self, top: Tensor) -> Tensor:
        """Top maps multiplied by the head, where there is one."""
        return top if self.head is None else top * self.head

    def score(self, x: Tensor) -> Tensor:
        """f(I; w): (N, C, H, W) -> (N,). Differentiable in I and the parameters."""
        return self._weighted(F.relu(self.pre_activations(x)[-1])).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """Contribution of each pixel to U(I): (N, C, H, W) -> (N, H, W), with sum U.

        A response of the top map is distributed evenly over the pixels at its position.
        """
        scores = self._weighted(self.responses(x)[-1]).sum(dim=1)
        quadratic = x.square().sum(dim=1) / (2 * self.sigma**2)
        return quadratic - spread_over_pixels(scores, (x.shape[-2], x.shape[-1]))

    def deconvolve(self, layer: int, coefficients: Tensor, size: tuple[int, int]) -> Tensor:
        """Sum of a layer's filters, placed with `coefficients` (N, filters, h, w) on its input.

        `size` is the (h, w) of the input map: the result is (N, channels below, *size).
        """
        spec, border = self.layers[layer], self.borders()[layer]
        # Rows at the far end that the stride skips get no basis function.
        skipped = [(side + sum(border) - spec.size) % spec.stride for side in size]
        padded = F.conv_transpose2d(
            coefficients,
            self.weights[layer],
            stride=spec.stride,
            output_padding=(skipped[0], skipped[1]),
        )
        return pad_transpose_(padded, self.padding_mode, *border)

    def coefficients(self, gates: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Coefficients of each layer's basis functions: (N, filters, h, w), bottom layer first.

        `gates` as from `activation_pattern`; they need not come from an image. `size` is the
        image's (H, W).
        """
        sizes = [size, *self.map_sizes(*size)]
        coefficients = [self._weighted(gates[-1].to(self.weights[0].dtype))]
        for layer in reversed(range(1, len(self.layers))):
            maps = self.deconvolve(layer, coefficients[0], sizes[layer])
            coefficients.insert(0, maps * gates[layer - 1].to(maps.dtype))
        return coefficients

    def top_down(self, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """B for a given activation pattern: (N, C, H, W)."""
        return self.deconvolve(0, self.coefficients(gates, size)[0], size)

    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W). Differentiable in the parameters."""
        return self.top_down(self.activation_pattern(x), (x.shape[-2], x.shape[-1]))

    def intercept(self, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """alpha of f(I) = alpha + <I, B> on the cell of `gates`: (N,).

        It is the sum over layers of coefficients times biases.
        """
        layers = zip(self.coefficients(gates, size), self.biases, strict=True)
        return torch.stack([c.sum(dim=(2, 3)) @ bias for c, bias in layers]).sum(dim=0)


def published_net(generator: torch.Generator | None = None) -> GenerativeConvNet:
    """The paper's texture net with new filters: 100@15/3+2, 64@5+2, 30@3+2, zero padding, sigma 1.

    Images are RGB gray levels 0..255 minus the mean color. Without a generator, filters are drawn
    from torch's global one.
    """
    net = GenerativeConvNet(parse_layers("100@15/3+2,64@5+2,30@3+2"))
    net.initialize(0.01, generator)
    return net


def _draw(
    parameters: Sequence[nn.Parameter | None], std: float, generator: torch.Generator | None
) -> None:
    for parameter in parameters:
        if parameter is not None:
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.data.copy_(std * values)


@dataclass(frozen=True)
class GaussianPiece:
    """The density on one cell: exp(log_weight) N(mean, variance Id), cut to the cell, over Z(w).

    mean (N, C, H, W) is sigma^2 B; variance is sigma^2; log_weight (N,) is
    alpha + sigma^2 |B|^2 / 2.
    """

    mean: Tensor
    variance: float
    log_weight: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """log of the piece at x in its cell, without log Z(w): (N, C, H, W) -> (N,)."""
        return self.log_weight + log_reference(x - self.mean, math.sqrt(self.variance))


def gaussian_piece(model: GenerativeConvNet, x: Tensor) -> GaussianPiece:
    """The Gaussian piece of p on the cell of each image of x (theorem 2)."""
    gates, size = model.activation_pattern(x), (x.shape[-2], x.shape[-1])
    basis, alpha = model.top_down(gates, size), model.intercept(gates, size)
    variance = model.sigma**2
    return GaussianPiece(variance * basis, variance, alpha + variance * squared_norm(basis) / 2)
