"""The gradient of a gradient: d/dw <v, grad F>, by hand, for learning by denoising.

<v, grad F> is the derivative of F along v. It is computed by a tangent pass up (how responses
change along v) and one pass down; the first way down, already made for grad F, is used again.
Counted in convolutions of one layer: up 1, down 1, tangent up 1, down 1, filters 2. The floor is
these six; automatic differentiation does the same six and many more element-wise passes.

dF/dw of the same images rides along in the same six: both are linear in what flows down. Alone,
`score_gradient`, it takes down 1 and filters 1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.ladder import Ascent, LadderNet
from gcn_cli.model.lattice import extend
from gcn_cli.model.spec import closing_border


@torch.no_grad()
def directional_gradient(
    net: LadderNet, up: Ascent, asked: list[Tensor], along: Tensor, times: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradients of <along, grad F> + sum of `times` F, by parameter name.

    `up` and `asked` are those of `LadderNet.ascend` and `descend`; `along` is (N, C, H, W),
    `times` (N,). Gradients are float32 (float64 for float64 models).
    """
    wide = net.weights[0].dtype
    tangents, raw_tangents, tangents_below, gradients = _tangent_pass(net, up, along)
    above: Tensor | None = None
    for layer in reversed(range(len(net.layers))):
        gain = up.gains[layer]
        sensitivity = net.rectifier.bend(up.responses[layer], tangents[layer]).mul_(asked[layer])
        if times is not None:
            above = _with_readout(net, up, layer, times, above)
            gradients[f"readouts.{layer}"] += _readout_gradient(net, up, layer, times)
        if above is not None:
            sensitivity.addcmul_(up.gates[layer], above)
        slope = up.gates[layer] * asked[layer]
        gradients |= _level_gradients(
            net, up, layer, sensitivity, (slope * raw_tangents[layer]).sum(dim=(2, 3)).to(wide)
        )
        # Both products of maps with filters in one call: images and tangents side by side.
        outputs = torch.cat([sensitivity, slope]).mul_(torch.cat([gain, gain]))
        inputs = torch.cat([up.below[layer], tangents_below[layer]])
        stride = net.layers[layer].stride
        gradient = _filter_gradient(up.filters[layer], stride, outputs, inputs)
        gradients[f"weights.{layer}"] = gradient.to(wide)
        if layer:
            above = net.deconvolve(up, layer, sensitivity * gain)
    return gradients


@torch.no_grad()
def score_gradient(net: LadderNet, up: Ascent, times: Tensor) -> dict[str, Tensor]:
    """Gradients of the sum of `times` F by parameter name; `up` of `ascend`, `times` (N,)."""
    wide = net.weights[0].dtype
    gradients: dict[str, Tensor] = {}
    above: Tensor | None = None
    for layer in reversed(range(len(net.layers))):
        sensitivity = up.gates[layer] * _with_readout(net, up, layer, times, above)
        gradients |= _level_gradients(net, up, layer, sensitivity)
        gradients[f"readouts.{layer}"] = _readout_gradient(net, up, layer, times)
        outputs = sensitivity.mul_(up.gains[layer])
        stride = net.layers[layer].stride
        gradient = _filter_gradient(up.filters[layer], stride, outputs, up.below[layer])
        gradients[f"weights.{layer}"] = gradient.to(wide)
        if layer:
            above = net.deconvolve(up, layer, outputs)
    return gradients


def _with_readout(
    net: LadderNet, up: Ascent, layer: int, times: Tensor, above: Tensor | None
) -> Tensor:
    """dF/d(rectified response) times `times`: what the layers above ask, and the readout."""
    dtype = up.gates[layer].dtype
    own = net.readout(layer, dtype) * times[:, None, None, None].to(dtype)
    return own if above is None else above.add_(own)


def _readout_gradient(net: LadderNet, up: Ascent, layer: int, times: Tensor) -> Tensor:
    response = net.rectifier.value(up.responses[layer], up.gates[layer])
    weighted = response * times[:, None, None, None].to(response.dtype)
    return _by_readout(net, layer, weighted)


def _by_readout(net: LadderNet, layer: int, maps: Tensor) -> Tensor:
    """Maps (N, filters, h, w) summed over all that one weight of the readout serves."""
    summed = maps.sum(dim=0) if net.image_size else maps.sum(dim=(0, 2, 3))[:, None, None]
    return summed.to(net.weights[0].dtype) * net.strides[layer]


def _tangent_pass(
    net: LadderNet, up: Ascent, along: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor], dict[str, Tensor]]:
    """How responses change along a direction of the image; readout gradients come on the way."""
    dtype = up.responses[0].dtype
    tangents, raw_tangents, tangents_below = [], [], []
    gradients: dict[str, Tensor] = {}
    moving = F.pixel_unshuffle(along, net.depth).to(dtype)
    moving = moving.contiguous(memory_format=torch.channels_last)
    for layer, spec in enumerate(net.layers):
        tangents_below.append(extend(moving, net.lattice, *closing_border(spec)))
        raw_tangents.append(F.conv2d(tangents_below[-1], up.filters[layer], stride=spec.stride))
        tangents.append(raw_tangents[-1] * up.gains[layer])
        moving = up.gates[layer] * tangents[-1]
        gradients[f"readouts.{layer}"] = _by_readout(net, layer, moving)
    return tangents, raw_tangents, tangents_below, gradients


def _level_gradients(
    net: LadderNet,
    up: Ascent,
    layer: int,
    sensitivity: Tensor,
    from_tangents: Tensor | float = 0.0,
) -> dict[str, Tensor]:
    """Gradients of biases and of the level terms (gain = 1 + scale, shift + bias gain)."""
    wide = net.weights[0].dtype
    gain = up.gains[layer][:, :, 0, 0].to(wide)
    shift = sensitivity.sum(dim=(2, 3)).to(wide)
    scale = (sensitivity * up.raw[layer]).sum(dim=(2, 3)).to(wide) + from_tangents
    scale = scale + shift * net.biases[layer]
    return {
        f"biases.{layer}": (shift * gain).sum(dim=0),
        f"levels.{layer}": torch.cat([scale, shift], dim=1).T @ up.features,
    }


def _filter_gradient(filters: Tensor, stride: int, outputs: Tensor, inputs: Tensor) -> Tensor:
    gradient: Tensor = torch.ops.aten.convolution_backward(
        outputs,
        inputs,
        filters,
        None,
        [stride, stride],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [False, True, False],
    )[1]
    return gradient
