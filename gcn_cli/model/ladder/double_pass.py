"""The gradient of a gradient: d/dw <v, grad F>, by hand, for learning by denoising.

<v, grad F> is the derivative of F along v. It is computed by a tangent pass up (how responses
change along v) and one pass down; the first way down, already made for grad F, is used again.
Counted in convolutions of one layer: up 1, down 1, tangent up 1, down 1, filters 2. The floor is
these six; automatic differentiation does the same six and many more element-wise passes.

dF/dw of the same images rides along in the same six: both are linear in what flows down. Alone,
`score_gradient`, it takes down 1 and filters 1.

Responses are in units of the rectifier's box, F / span of images / span: slopes and gradients of
filters, gains and readouts are the same in both units, those of shifts are divided by the span.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import Ascent, Descent, deconvolve, rectified, sum_places
from gcn_cli.model.lattice import close_, inside
from gcn_cli.model.spec import closing_border


@torch.no_grad()
def directional_gradient(
    net: LadderNet, up: Ascent, down: Descent, along: Tensor, times: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradients of <along, grad F> + sum of `times` F, by parameter name.

    `up` and `down` are those of `ascend`, for learning, and `descend`; what room they have is
    written to. `along` is (N, C, H, W), `times` (N,). Gradients are of the parameters' dtype.
    """
    tangents, raw_tangents, gradients = _tangent_pass(net, up, along)
    count = len(along)
    above: Tensor | None = None
    for layer in reversed(range(len(net.layers))):
        sensitivity = net.rectifier.bend(up.responses[layer], tangents[layer])
        sensitivity.mul_(down.asked[layer])
        if times is not None:
            above = _with_readout(net, up, layer, times, above)
            gradients[f"readouts.{layer}"] += _readout_gradient(net, up, layer, times)
        if above is not None:
            sensitivity.addcmul_(up.gates[layer], above)
        from_tangents = sum_places(net, raw_tangents[layer].mul_(down.passed[layer]))
        gradients |= _level_gradients(net, up, layer, sensitivity, from_tangents)
        outputs = down.placed[layer]
        torch.mul(sensitivity, up.gains[layer], out=outputs[:count])
        # Both products of maps with filters in one call: images and tangents side by side.
        gradients[f"weights.{layer}"] = _filter_gradient(net, up, layer, outputs, up.rooms[layer])
        if layer:
            above = deconvolve(net, up, layer, outputs[:count])
    return gradients


@torch.no_grad()
def score_gradient(net: LadderNet, up: Ascent, times: Tensor) -> dict[str, Tensor]:
    """Gradients of the sum of `times` F by parameter name; `up` for learning, `times` (N,)."""
    gradients: dict[str, Tensor] = {}
    above: Tensor | None = None
    for layer in reversed(range(len(net.layers))):
        sensitivity = up.gates[layer] * _with_readout(net, up, layer, times, above)
        gradients |= _level_gradients(net, up, layer, sensitivity)
        gradients[f"readouts.{layer}"] = _readout_gradient(net, up, layer, times)
        outputs = sensitivity.mul_(up.gains[layer])
        inputs = up.rooms[layer][: len(outputs)]
        gradients[f"weights.{layer}"] = _filter_gradient(net, up, layer, outputs, inputs)
        if layer:
            above = deconvolve(net, up, layer, outputs)
    return gradients


def _with_readout(
    net: LadderNet, up: Ascent, layer: int, times: Tensor, above: Tensor | None
) -> Tensor:
    """dF/d(rectified response) times `times`: what the layers above ask, and the readout."""
    counted = (net.rectifier.span * times)[:, None, None, None].to(up.prepared.dtype)
    own = up.prepared.readouts[layer] * counted
    return own if above is None else above.add_(own)


def _readout_gradient(net: LadderNet, up: Ascent, layer: int, times: Tensor) -> Tensor:
    counted = (net.rectifier.span * times)[:, None, None, None].to(up.prepared.dtype)
    return _by_readout(net, layer, rectified(net, up, layer) * counted)


def _by_readout(net: LadderNet, layer: int, maps: Tensor) -> Tensor:
    """Maps (N, filters, h, w) summed over all that one weight of the readout serves."""
    if net.image_size:
        return maps.sum(dim=0).to(net.weights[0].dtype) * net.strides[layer]
    return sum_places(net, maps).sum(dim=0)[:, None, None] * net.strides[layer]


def _tangent_pass(
    net: LadderNet, up: Ascent, along: Tensor
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """How responses change along a direction of the image, with gain and without.

    The maps go into the rooms beside those of the images; readout gradients come on the way.
    """
    count = len(along)
    tangents: list[Tensor] = []
    raw_tangents: list[Tensor] = []
    gradients: dict[str, Tensor] = {}
    moving = F.pixel_unshuffle(along, net.depth)
    for layer, spec in enumerate(net.layers):
        border, room = closing_border(spec), up.rooms[layer][count:]
        inner = inside(room, *border)
        if layer:
            torch.mul(up.gates[layer - 1], moving, out=inner)
            gradients[f"readouts.{layer - 1}"] = _by_readout(net, layer - 1, inner)
        else:
            inner.copy_(moving)
        close_(room, up.prepared.lattice, *border)
        raw_tangents.append(F.conv2d(room, up.prepared.filters[layer], stride=spec.stride))
        moving = raw_tangents[-1] * up.gains[layer]
        tangents.append(moving)
    top = len(net.layers) - 1
    gradients[f"readouts.{top}"] = _by_readout(net, top, up.gates[top] * moving)
    return tangents, raw_tangents, gradients


def _level_gradients(
    net: LadderNet,
    up: Ascent,
    layer: int,
    sensitivity: Tensor,
    from_tangents: Tensor | float = 0.0,
) -> dict[str, Tensor]:
    """Gradients of biases and of the level terms (gain = 1 + scale, shift + bias gain)."""
    gain = up.gains[layer][:, :, 0, 0].to(net.weights[0].dtype)
    shift = sum_places(net, sensitivity) / net.rectifier.span
    scale = sum_places(net, sensitivity * up.raw[layer]) + from_tangents
    scale = scale + shift * net.biases[layer]
    return {
        f"biases.{layer}": (shift * gain).sum(dim=0),
        f"levels.{layer}": torch.cat([scale, shift], dim=1).T @ up.features,
    }


def _filter_gradient(
    net: LadderNet, up: Ascent, layer: int, outputs: Tensor, inputs: Tensor
) -> Tensor:
    stride = net.layers[layer].stride
    gradient: Tensor = torch.ops.aten.convolution_backward(
        outputs,
        inputs,
        up.prepared.filters[layer],
        None,
        [stride, stride],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [False, True, False],
    )[1]
    return gradient.to(net.weights[0].dtype)
