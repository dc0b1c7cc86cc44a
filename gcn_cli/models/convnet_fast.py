"""B prepared for chains: equal to the reference within rounding, fast, parameters fixed.

Three changes, none of which alters a filter: a strided first layer
becomes an unstrided one on space-to-depth channels (15x15 / 3 on 3 channels is 5x5 on 27); maps
are stored channels last; rectified responses are the gates of the way down, each used in place.
Maps may be bfloat16; images and B stay float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.cuda_graph import GraphedFunction, image_by_image
from gcn_cli.models.energy import Gradient
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.padding import empty_maps, fill_border_, interior, pad, pad_transpose_

FEW_CHANNELS = 16  # below this a strided convolution starves the vector units
VECTOR = 16  # channels that are written at once


@dataclass(frozen=True)
class _Layer:
    weight: Tensor  # (filters, channels below * depth^2, k, k), channels last
    written: Tensor  # the same for the way down, with zero channels up to whole vectors
    bias: Tensor
    stride: int
    depth: int  # space-to-depth factor, 1 where none
    border: tuple[int, int]
    lattice: PaddingMode
    kernel: int  # side of the filters before rearrangement, in pixels below

    @property
    def padding(self) -> int | None:
        """The border where the convolution itself can supply it, else None."""
        plain = self.depth == 1 and self.lattice in (PaddingMode.ZERO, PaddingMode.VALID)
        return self.border[0] if plain else None

    def up(self, below: Tensor) -> Tensor:
        """Filter responses before the ReLU."""
        if self.depth > 1:
            below = self._rearranged(below)
        elif self.padding is None:
            room = empty_maps(len(below), below, *self.border)
            interior(room, *self.border).copy_(below)
            below = fill_border_(room, self.lattice, *self.border)
        return F.conv2d(below, self.weight, self.bias, self.stride, self.padding or 0)

    def _rearranged(self, image: Tensor) -> Tensor:
        """The image with its border, depth x depth pixels to a place."""
        x = pad(image, self.lattice, *self.border)
        step = self.stride * self.depth
        # The zero rows that fill a filter up to a multiple of the stride may look past the end.
        filled = self.weight.shape[-1] * self.depth
        bottom, right = (
            (side - self.kernel) // step * step + filled - side for side in x.shape[-2:]
        )
        x = F.pixel_unshuffle(F.pad(x, (0, right, 0, bottom)), self.depth)
        return x.contiguous(memory_format=torch.channels_last)

    def down(self, coefficients: Tensor, size: tuple[int, int]) -> Tensor:
        """Filters placed by their coefficients on a map of `size`."""
        full = [side + sum(self.border) for side in size]
        if self.depth == 1:
            rest = [(side - self.kernel) % self.stride for side in full]
            u = F.conv_transpose2d(
                coefficients,
                self.written,
                stride=self.stride,
                padding=self.padding or 0,
                output_padding=(rest[0], rest[1]),
            )
            if self.padding is not None:
                return u
        else:
            u = F.conv_transpose2d(coefficients, self.written)[:, : self.weight.shape[1]]
            u = F.pixel_shuffle(u, self.depth)
            u = F.pad(u, (0, full[1] - u.shape[-1], 0, full[0] - u.shape[-2]))
        return pad_transpose_(u, self.lattice, *self.border)


def _prepare(model: GenerativeConvNet, number: int, dtype: torch.dtype) -> _Layer:
    spec, weight = model.layers[number], model.weights[number].detach().to(dtype)
    narrow = number == 0 and weight.shape[1] < FEW_CHANNELS
    depth = spec.stride if narrow else 1
    written = weight
    if depth > 1:
        fill = -spec.size % depth
        weight = F.pixel_unshuffle(F.pad(weight, (0, fill, 0, fill)), depth)
        written = F.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % VECTOR))
    return _Layer(
        weight=weight.contiguous(memory_format=torch.channels_last),
        written=written.contiguous(memory_format=torch.channels_last),
        bias=model.biases[number].detach().to(dtype),
        stride=spec.stride // depth,
        depth=depth,
        border=model.borders()[number],
        lattice=model.lattice,
        kernel=spec.size,
    )


def fast_basis(model: GenerativeConvNet, dtype: torch.dtype = torch.float32) -> Gradient:
    """B of the model as it is now, as a function (N, C, H, W) -> (N, C, H, W), float32.

    Parameters are copied: make it anew after they change. `dtype` is that of the maps.
    """
    layers = [_prepare(model, number, dtype) for number in range(len(model.layers))]
    top = layers[0].weight.new_ones((1, 1, 1, 1))
    if model.head is not None:
        top = model.head.detach()[None].to(dtype)

    @torch.no_grad()
    def basis(x: Tensor) -> Tensor:
        maps = [x.to(dtype).contiguous(memory_format=torch.channels_last)]
        for layer in layers:
            maps.append(layer.up(maps[-1]).clamp_min_(0))
        asked = top.expand_as(maps[-1])
        for layer, opened, below in zip(
            reversed(layers), reversed(maps[1:]), reversed(maps[:-1]), strict=True
        ):
            # What passes back through a ReLU: 0 where its value is 0, in one pass over the maps.
            through = torch.ops.aten.threshold_backward.grad_input(
                asked, opened, 0, grad_input=opened
            )
            asked = layer.down(through, (below.shape[-2], below.shape[-1]))
        return asked.to(x.dtype)

    return basis


@dataclass(frozen=True)
class FastNet:
    """A network as it is now, for evaluation: the same names, its B the fast one."""

    net: GenerativeConvNet
    basis: Gradient

    @classmethod
    def of(cls, net: GenerativeConvNet, dtype: torch.dtype = torch.float32) -> "FastNet":
        """`dtype` is that of the maps on the way to B. On a GPU images are looked at one by one."""
        return cls(
            net, image_by_image(GraphedFunction(fast_basis(net, dtype)), net.weights[0].device)
        )

    @property
    def sigma(self) -> float:
        """Deviation of the reference q."""
        return self.net.sigma

    def score(self, x: Tensor) -> Tensor:
        """f(I; w): (N, C, H, W) -> (N,)."""
        return self.net.score(x)

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """delta(I), layer by layer, bool (N, filters, h, w)."""
        return self.net.activation_pattern(x)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified filter responses, layer by layer: (N, filters, h, w) each."""
        return self.net.responses(x)

    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, H, W), whose sum is U."""
        return self.net.energy_map(x)
