"""B again, rearranged to what hardware likes; equal to `GenerativeConvNet.basis` within rounding.

Three changes, none of which alters a filter: a strided first layer becomes an unstrided one on
space-to-depth channels (15x15 / 3 on 3 channels is 5x5 on 27); maps are stored channels last;
the way down keeps gates as masks and builds no autograd graph. Maps may be bfloat16; images and
B stay float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.energy import Gradient
from gcn_cli.model.lattice import extend, fold
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.spec import Lattice

FEW_CHANNELS = 16  # below this a strided convolution starves the vector units


@dataclass(frozen=True)
class _Layer:
    weight: Tensor  # (filters, channels below * depth^2, k, k), channels last
    bias: Tensor
    stride: int
    depth: int  # space-to-depth factor, 1 where none
    before: int
    after: int
    lattice: Lattice
    kernel: int  # side of the filters before rearrangement, in pixels below

    def reach(self, side: int) -> int:
        """Rows of the extended map below that the (rearranged) filters look at."""
        step = self.stride * self.depth
        # The zero rows that fill a filter up to a multiple of the stride may look past the end.
        filled = self.weight.shape[-1] * self.depth
        return (side + self.before + self.after - self.kernel) // step * step + filled

    def up(self, below: Tensor) -> Tensor:
        """Filter responses before the ReLU."""
        x = extend(below, self.lattice, self.before, self.after)
        if self.depth > 1:
            bottom, right = (self.reach(side) - full for side, full in _sides(below, x))
            x = F.pixel_unshuffle(F.pad(x, (0, right, 0, bottom)), self.depth)
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, stride=self.stride)

    def down(self, coefficients: Tensor, size: tuple[int, int]) -> Tensor:
        """Filters placed by their coefficients on a map of `size`."""
        full = [side + self.before + self.after for side in size]
        if self.depth == 1:
            rest = [(side - self.kernel) % self.stride for side in full]
            u = F.conv_transpose2d(
                coefficients, self.weight, stride=self.stride, output_padding=(rest[0], rest[1])
            )
        else:
            u = F.conv_transpose2d(coefficients, self.weight)
            u = F.pixel_shuffle(u, self.depth)
            u = F.pad(u, (0, full[1] - u.shape[-1], 0, full[0] - u.shape[-2]))
        return fold(u, self.lattice, self.before, self.after)


def _sides(below: Tensor, extended: Tensor) -> list[tuple[int, int]]:
    return [(below.shape[axis], extended.shape[axis]) for axis in (-2, -1)]


def _rearrange(model: GenerativeConvNet, number: int, dtype: torch.dtype) -> _Layer:
    spec, weight = model.layers[number], model.weights[number].detach()
    before, after = model.borders()[number]
    depth = spec.stride if spec.stride > 1 and weight.shape[1] < FEW_CHANNELS else 1
    if depth > 1:
        fill = -spec.size % depth
        weight = F.pixel_unshuffle(F.pad(weight, (0, fill, 0, fill)), depth)
    return _Layer(
        weight=weight.to(dtype).contiguous(memory_format=torch.channels_last),
        bias=model.biases[number].detach().to(dtype),
        stride=spec.stride // depth,
        depth=depth,
        before=before,
        after=after,
        lattice=model.lattice,
        kernel=spec.size,
    )


def fast_basis(model: GenerativeConvNet, dtype: torch.dtype = torch.float32) -> Gradient:
    """B of the model as it is now, as a function (N, C, H, W) -> (N, C, H, W), float32.

    Parameters are copied: make it anew after they change. `dtype` is that of the maps.
    """
    layers = [_rearrange(model, number, dtype) for number in range(len(model.layers))]
    head = None if model.head is None else model.head.detach().to(dtype)

    @torch.no_grad()
    def basis(x: Tensor) -> Tensor:
        gates: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        below = x
        for layer in layers:
            sizes.append((below.shape[-2], below.shape[-1]))
            response = layer.up(below)
            gates.append(response > 0)
            below = response.relu_()
        coefficients = gates[-1].to(dtype)
        if head is not None:
            coefficients = coefficients * head
        for number in reversed(range(len(layers))):
            coefficients = layers[number].down(coefficients, sizes[number])
            if number:
                coefficients = coefficients.mul_(gates[number - 1])
        return coefficients.to(x.dtype)

    return basis
