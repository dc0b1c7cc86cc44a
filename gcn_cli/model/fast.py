"""B and D prepared for chains: equal to the reference within rounding, fast, parameters fixed.

For `GenerativeConvNet.basis` three changes, none of which alters a filter: a strided first layer
becomes an unstrided one on space-to-depth channels (15x15 / 3 on 3 channels is 5x5 on 27); maps
are stored channels last, each in a room that already has the border its reader needs; on the way
down filters are turned about, so that it is convolutions too. Maps may be bfloat16; images, B and
D stay float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.capture import Captured
from gcn_cli.model.energy import Gradient
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.lattice import close_, extend, fold_, inside
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.passes import denoise_each, empty_maps, prepare
from gcn_cli.model.spec import Lattice

FEW_CHANNELS = 16  # below this a strided convolution starves the vector units

Border = tuple[int, int]  # rows before and after


@dataclass(frozen=True)
class _Layer:
    weight: Tensor  # (filters, channels below * depth^2, k, k), channels last
    turned: Tensor | None  # the same about, (channels below * depth^2, filters, k, k); stride 1
    bias: Tensor
    stride: int
    depth: int  # space-to-depth factor, 1 where none
    border: Border
    lattice: Lattice
    kernel: int  # side of the filters before rearrangement, in pixels below

    @property
    def way_back(self) -> Border | None:
        """The border of coefficients with which a convolution writes just the map below.

        None where it has to write the map's border too, which is then folded.
        """
        reach, (before, after) = self.weight.shape[-1] - 1, self.border
        if self.turned is None or self.depth > 1 or max(before, after) > reach:
            return None
        return (reach - before, reach - after) if self.lattice is not Lattice.REFLECT else None

    def lowest(self, image: Tensor) -> Tensor:
        """The map that a first layer looks at: channels made of depth x depth pixels."""
        x = extend(image.to(self.weight.dtype), self.lattice, *self.border)
        step = self.stride * self.depth
        # The zero rows that fill a filter up to a multiple of the stride may look past the end.
        filled = self.weight.shape[-1] * self.depth
        bottom, right = (
            (side - self.kernel) // step * step + filled - side for side in x.shape[-2:]
        )
        x = F.pixel_unshuffle(F.pad(x, (0, right, 0, bottom)), self.depth)
        return x.contiguous(memory_format=torch.channels_last)

    def up(self, below: Tensor) -> Tensor:
        """Filter responses before the ReLU, from a map with its border."""
        return F.conv2d(below, self.weight, self.bias, stride=self.stride)

    def down(self, coefficients: Tensor, size: tuple[int, int]) -> Tensor:
        """Filters placed by their coefficients on a map of `size`."""
        if self.turned is not None and self.way_back is not None:
            return F.conv2d(coefficients, self.turned)
        full = [side + sum(self.border) for side in size]
        if self.depth == 1:
            rest = [(side - self.kernel) % self.stride for side in full]
            u = F.conv_transpose2d(
                coefficients, self.weight, stride=self.stride, output_padding=(rest[0], rest[1])
            )
        else:
            u = F.pixel_shuffle(F.conv_transpose2d(coefficients, self.weight), self.depth)
            u = F.pad(u, (0, full[1] - u.shape[-1], 0, full[0] - u.shape[-2]))
        return fold_(u, self.lattice, *self.border)


def _rearrange(model: GenerativeConvNet, number: int, dtype: torch.dtype) -> _Layer:
    spec, weight = model.layers[number], model.weights[number].detach()
    narrow = number == 0 and weight.shape[1] < FEW_CHANNELS
    depth = spec.stride if narrow else 1
    if depth > 1:
        fill = -spec.size % depth
        weight = F.pixel_unshuffle(F.pad(weight, (0, fill, 0, fill)), depth)
    weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
    turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    return _Layer(
        weight=weight,
        turned=turned if spec.stride == depth else None,
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
    layers = [_rearrange(model, number, dtype) for number in range(len(model.layers))]
    head = None if model.head is None else model.head.detach().to(dtype)[None]
    ones = torch.ones((), dtype=dtype, device=model.weights[0].device)

    def gated(asked: Tensor, opened: Tensor, layer: _Layer) -> Tensor:
        """Coefficients: what the layers above ask of a layer, through its gates."""
        border = layer.way_back or (0, 0)
        room = empty_maps(len(opened), opened, *border)
        # What passes back through a ReLU, in one pass over the maps: 0 where `opened` is 0.
        torch.ops.aten.threshold_backward.grad_input(
            asked.expand_as(opened), opened, 0, grad_input=inside(room, *border)
        )
        return close_(room, layer.lattice, *border)

    @torch.no_grad()
    def basis(x: Tensor) -> Tensor:
        opened: list[Tensor] = []  # rectified responses: gates are open where they are not 0
        sizes: list[tuple[int, int]] = []
        below, seen = layers[0].lowest(x), x
        for number, layer in enumerate(layers):
            sizes.append((seen.shape[-2], seen.shape[-1]))
            response = layer.up(below)
            border = layers[number + 1].border if number + 1 < len(layers) else (0, 0)
            room = empty_maps(len(x), response, *border)
            seen = torch.clamp_min(response, 0, out=inside(room, *border))
            below = close_(room, layer.lattice, *border)
            opened.append(seen)
        asked = ones if head is None else head
        for number in reversed(range(len(layers))):
            coefficients = gated(asked, opened[number], layers[number])
            asked = layers[number].down(coefficients, sizes[number])
        return asked.to(x.dtype)

    return basis


def fast_denoiser(
    net: LadderNet, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor, float], Tensor]:
    """D of the ladder as it is now, as a function (N, C, H, W), noise -> (N, C, H, W).

    Parameters are copied: make it anew after they change. `dtype` is that of the maps.
    """
    prepared = prepare(net, dtype)
    run = Captured(lambda x, noise: denoise_each(net, x, noise, prepared))

    def denoise(x: Tensor, noise: float) -> Tensor:
        return run(x, x.new_full((len(x),), noise)).clone()

    return denoise
