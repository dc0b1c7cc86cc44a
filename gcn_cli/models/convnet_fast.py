"""B of the paper's network for chains: fixed parameters, fast, equal to `convnet.py` to rounding.

Three rearrangements: a strided first layer becomes an unstrided one on space-to-depth channels
(15x15 / 3 on 3 channels is 5x5 on 27); maps are stored channels last; rectified responses serve as
gates of the backward pass, in place. Maps may be bfloat16; images and B stay float32.
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

FEW_CHANNELS = 16  # a strided convolution of fewer channels does not fill the vector units
VECTOR = 16  # channels in one vector of the processor


@dataclass(frozen=True)
class _Layer:
    weight: Tensor  # (filters, channels below * space_to_depth^2, k, k), channels last
    transposed_weight: Tensor  # the same, with zero channels up to a multiple of VECTOR
    bias: Tensor
    stride: int  # in positions of the space-to-depth map
    space_to_depth: int  # 1 for none
    border: tuple[int, int]
    padding_mode: PaddingMode
    size: int  # side of the filters before rearrangement, in pixels of the map below

    @property
    def padding(self) -> int | None:
        """Padding argument of the convolution where it can supply the border, else None."""
        if self.space_to_depth > 1:
            return None
        plain = self.padding_mode in (PaddingMode.ZEROS, PaddingMode.VALID)
        return self.border[0] if plain else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Filter responses before the ReLU."""
        if self.space_to_depth > 1:
            inputs = self._rearrange(inputs)
        elif self.padding is None:
            padded = empty_maps(len(inputs), inputs, *self.border)
            interior(padded, *self.border).copy_(inputs)
            inputs = fill_border_(padded, self.padding_mode, *self.border)
        return F.conv2d(inputs, self.weight, self.bias, self.stride, self.padding or 0)

    def _rearrange(self, image: Tensor) -> Tensor:
        """The padded image by space-to-depth."""
        x = pad(image, self.padding_mode, *self.border)
        step = self.stride * self.space_to_depth
        # Filters padded with zeros to a multiple of the stride may extend beyond the image.
        padded_size = self.weight.shape[-1] * self.space_to_depth
        bottom, right = (
            (side - self.size) // step * step + padded_size - side for side in x.shape[-2:]
        )
        x = F.pixel_unshuffle(F.pad(x, (0, right, 0, bottom)), self.space_to_depth)
        return x.contiguous(memory_format=torch.channels_last)

    def backward(self, gradient: Tensor, size: tuple[int, int]) -> Tensor:
        """Gradient with respect to the input, of `size` (h, w), from that of the responses."""
        padded_size = [side + sum(self.border) for side in size]
        if self.space_to_depth == 1:
            skipped = [(side - self.size) % self.stride for side in padded_size]
            u = F.conv_transpose2d(
                gradient,
                self.transposed_weight,
                stride=self.stride,
                padding=self.padding or 0,
                output_padding=(skipped[0], skipped[1]),
            )
            if self.padding is not None:
                return u
        else:
            u = F.conv_transpose2d(gradient, self.transposed_weight)[:, : self.weight.shape[1]]
            u = F.pixel_shuffle(u, self.space_to_depth)
            u = F.pad(u, (0, padded_size[1] - u.shape[-1], 0, padded_size[0] - u.shape[-2]))
        return pad_transpose_(u, self.padding_mode, *self.border)


def _prepare(model: GenerativeConvNet, index: int, dtype: torch.dtype) -> _Layer:
    spec, weight = model.layers[index], model.weights[index].detach().to(dtype)
    few = index == 0 and weight.shape[1] < FEW_CHANNELS
    space_to_depth = spec.stride if few else 1
    transposed_weight = weight
    if space_to_depth > 1:
        zeros = -spec.size % space_to_depth
        weight = F.pixel_unshuffle(F.pad(weight, (0, zeros, 0, zeros)), space_to_depth)
        transposed_weight = F.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % VECTOR))
    return _Layer(
        weight=weight.contiguous(memory_format=torch.channels_last),
        transposed_weight=transposed_weight.contiguous(memory_format=torch.channels_last),
        bias=model.biases[index].detach().to(dtype),
        stride=spec.stride // space_to_depth,
        space_to_depth=space_to_depth,
        border=model.borders()[index],
        padding_mode=model.padding_mode,
        size=spec.size,
    )


def fast_basis(model: GenerativeConvNet, dtype: torch.dtype = torch.float32) -> Gradient:
    """B of the model: a function (N, C, H, W) -> (N, C, H, W) in float32.

    Parameters are copied: call again after they change. `dtype` is that of the maps.
    """
    layers = [_prepare(model, index, dtype) for index in range(len(model.layers))]
    head = layers[0].weight.new_ones((1, 1, 1, 1))
    if model.head is not None:
        head = model.head.detach()[None].to(dtype)

    @torch.no_grad()
    def basis(x: Tensor) -> Tensor:
        maps = [x.to(dtype).contiguous(memory_format=torch.channels_last)]
        for layer in layers:
            maps.append(layer.forward(maps[-1]).clamp_min_(0))
        gradient = head.expand_as(maps[-1])
        for layer, responses, inputs in zip(
            reversed(layers), reversed(maps[1:]), reversed(maps[:-1]), strict=True
        ):
            # Backward pass of a ReLU: 0 where the response is 0, in one pass over the maps.
            gated = torch.ops.aten.threshold_backward.grad_input(
                gradient, responses, 0, grad_input=responses
            )
            gradient = layer.backward(gated, (inputs.shape[-2], inputs.shape[-1]))
        return gradient.to(x.dtype)

    return basis


class FastNet(GenerativeConvNet):
    """A net for evaluation with fixed parameters, whose basis is the fast one."""

    def __init__(self, net: GenerativeConvNet, dtype: torch.dtype = torch.float32) -> None:
        """Shares the parameters of `net`, which must not change; `dtype` is that of the maps.

        On a GPU images are processed one by one.
        """
        self.__dict__.update(net.__dict__)
        basis = GraphedFunction(fast_basis(net, dtype))
        self._basis = image_by_image(basis, net.weights[0].device)

    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W). Without automatic differentiation."""
        return self._basis(x)
