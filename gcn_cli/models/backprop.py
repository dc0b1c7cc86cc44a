"""The ladder's way up and way down, rearranged to what hardware likes: F and grad F by hand.

No automatic differentiation, maps stored channels last, borders filled in place, responses in
units of the rectifier's box so that a gate takes one pass over the maps. Maps may be bfloat16;
images and parameters stay float32. Equal to `LadderNet.total` and its gradient within rounding.

The gradient of a gradient: d/dw <v, grad F>, by hand, for learning by denoising.

<v, grad F> is the derivative of F along v. It is computed by a tangent pass up (how responses
change along v) and one pass down; the first way down, already made for grad F, is used again.
Counted in convolutions of one layer: up 1, down 1, tangent up 1, down 1, filters 2. The floor is
these six; automatic differentiation does the same six and many more element-wise passes.

dF/dw of the same images rides along in the same six: both are linear in what flows down. Alone,
`potential_gradient`, it takes down 1 and filters 1.

Responses are in units of the rectifier's box, F / span of images / span: slopes and gradients of
filters, gains and readouts are the same in both units, those of shifts are divided by the span.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.layers import LayerSpec, PaddingMode, circular_border
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.models.padding import empty_maps, fill_border_, interior, pad_transpose_


@dataclass(frozen=True)
class PackedNet:
    """A ladder's parameters as they are now, in the number format of the maps."""

    lattice: PaddingMode
    filters: list[Tensor]  # channels last
    readouts: list[Tensor]  # (1, filters, h or 1, w or 1)
    # Of all layers together, in their own format:
    scales: Tensor  # by level, (all filters, LEVEL_FEATURES)
    shifts: Tensor
    biases: Tensor  # (all filters,)
    turned: list[Tensor] = field(default_factory=list)  # filters of the way down; see `prepare`

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps."""
        return self.filters[0].dtype

    def level_terms(self, features: Tensor, span: float) -> tuple[list[Tensor], list[Tensor]]:
        """Gains, and offsets in units of the box, layer by layer: (N, filters, 1, 1) each."""
        gains = 1 + features @ self.scales.T
        offsets = (features @ self.shifts.T + self.biases * gains) / span + 0.5
        widths = [len(weight) for weight in self.filters]
        each = [
            list(torch.split(terms.to(self.dtype)[:, :, None, None], widths, dim=1))
            for terms in (gains, offsets)
        ]
        return each[0], each[1]


@dataclass(frozen=True)
class ForwardPass:
    """The way up at one batch of images: what the way down, and learning, need of it."""

    prepared: PackedNet
    features: Tensor  # of the levels, (N, LEVEL_FEATURES)
    gains: list[Tensor]  # (N, filters, 1, 1)
    gates: list[Tensor] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of maps looked at, borderless
    # For learning only:
    rooms: list[Tensor] = field(default_factory=list)  # (2 N, ...): maps each layer looked at,
    # border included, and as much room again for what learning puts beside them
    raw: list[Tensor] = field(default_factory=list)  # filter responses before gain and shift
    responses: list[Tensor] = field(default_factory=list)  # after, in units of the box


@dataclass(frozen=True)
class BackwardPass:
    """The way down. What each layer was asked for is for learning only, bottom layer first."""

    slope: Tensor  # grad F, (N, C, H, W), in the maps' format
    asked: list[Tensor]  # dF / d(rectified response)
    passed: list[Tensor]  # dF / d(response): the same through the gates
    placed: list[Tensor]  # (2 N, ...): room for as much again, then dF / d(raw response)


@torch.no_grad()
def pack(net: NoiseConditionalNet, dtype: torch.dtype, *, repeatable: bool = False) -> PackedNet:
    """Do once what stays the same while parameters do.

    `repeatable`: on a torus a pixel of grad F has the same bits wherever it lies and however large
    the image is, for as much as the library's convolutions allow it: turned ones of stride 1 on the
    way down, and no sums across the border. In float32 on a processor; not for learning.
    """
    by_level = [level.chunk(2) for level in net.levels]
    exact = repeatable and dtype is torch.float32 and net.weights[0].device.type == "cpu"
    return PackedNet(
        net.lattice,
        [weight.to(dtype, memory_format=torch.channels_last) for weight in net.weights],
        [net.readout(layer).to(dtype) for layer in range(len(net.layers))],
        torch.cat([scale for scale, _ in by_level]),
        torch.cat([shift for _, shift in by_level]),
        torch.cat(list(net.biases)),
        [_turned(weight) for weight in net.weights] if exact else [],
    )


def _turned(weight: Tensor) -> Tensor:
    """Filters with which a convolution of stride 1 is the transpose of that with `weight`."""
    turned = weight.detach().flip(-1, -2).transpose(0, 1)
    return turned.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def forward(
    net: NoiseConditionalNet,
    z: Tensor,
    log_noise: Tensor,
    prepared: PackedNet,
    *,
    learning: bool = False,
) -> ForwardPass:
    """The way up for scaled images z (N, C, H, W) at levels (N,).

    Without `learning` only what the way down needs is kept, and maps are used again.
    """
    count, span = len(z), net.rectifier.span
    features = net.level_features(log_noise)
    gains, offsets = prepared.level_terms(features, span)
    up = ForwardPass(prepared, features, gains)
    below, gate = F.pixel_unshuffle(z / span, net.depth).to(prepared.dtype), None
    for layer, spec in enumerate(net.layers):
        border = circular_border(spec)
        up.sizes.append((below.shape[-2], below.shape[-1]))
        room = empty_maps(2 * count if learning else count, below, *border)
        looked_at = room[:count]
        if gate is None:
            interior(looked_at, *border).copy_(below)
        else:
            net.rectifier.value(below, gate, out=interior(looked_at, *border))
        fill_border_(looked_at, prepared.lattice, *border)
        raw = F.conv2d(looked_at, prepared.filters[layer], stride=spec.stride)
        below = torch.addcmul(offsets[layer], raw, gains[layer], out=None if learning else raw)
        gate = net.rectifier.gate(below)
        up.gates.append(gate)
        if learning:
            up.rooms.append(room)
            up.raw.append(raw)
            up.responses.append(below)
    return up


@torch.no_grad()
def backward(net: NoiseConditionalNet, up: ForwardPass) -> BackwardPass:
    """grad F: each layer's gates let through what its readout and the layers above ask for."""
    learning = bool(up.rooms)
    asked: list[Tensor] = []
    passed: list[Tensor] = []
    placed: list[Tensor] = []
    above: Tensor | None = None
    for layer in reversed(range(len(net.layers))):
        gate, gain = up.gates[layer], up.gains[layer]
        readout = up.prepared.readouts[layer]
        wanted = readout if above is None else above.add_(readout)
        through = gate * wanted if learning else gate.mul_(wanted)
        if learning:
            count = len(gate)
            both = empty_maps(2 * count, gate)
            coefficients = torch.mul(through, gain, out=both[count:])
            asked.insert(0, wanted)
            passed.insert(0, through)
            placed.insert(0, both)
        else:
            coefficients = through.mul_(gain)
        above = deconvolve(net, up, layer, coefficients)
    assert above is not None
    return BackwardPass(F.pixel_shuffle(above, net.depth), asked, passed, placed)


def deconvolve(
    net: NoiseConditionalNet, up: ForwardPass, layer: int, coefficients: Tensor
) -> Tensor:
    """A layer's filters placed by `coefficients` on the map below it."""
    spec = net.layers[layer]
    before, after = circular_border(spec)
    if up.prepared.turned and up.prepared.lattice is PaddingMode.CIRCULAR:
        return _on_torus(up.prepared, layer, spec, coefficients)
    rest = [(side + before + after - spec.size) % spec.stride for side in up.sizes[layer]]
    written = F.conv_transpose2d(
        coefficients,
        up.prepared.filters[layer],
        stride=spec.stride,
        output_padding=(rest[0], rest[1]),
    )
    return pad_transpose_(written, up.prepared.lattice, before, after)


def _on_torus(prepared: PackedNet, layer: int, spec: LayerSpec, coefficients: Tensor) -> Tensor:
    """`deconvolve` with the coefficients laid out past the border, in place of sums across it."""
    (before, after), stride = circular_border(spec), spec.stride
    low, high = (after, before) if stride == 1 else (
        (spec.size - 1 - before) // stride,
        (stride - 1 + before) // stride,
    )  # fmt: skip
    room = empty_maps(len(coefficients), coefficients, low, high)
    interior(room, low, high).copy_(coefficients)
    fill_border_(room, prepared.lattice, low, high)
    if stride == 1:
        return F.conv2d(room, prepared.turned[layer])
    written = F.conv_transpose2d(room, prepared.filters[layer], stride=stride)
    for axis in (-2, -1):
        written = written.narrow(axis, before + low * stride, coefficients.shape[axis] * stride)
    return written


def potential(net: NoiseConditionalNet, up: ForwardPass) -> Tensor:
    """F(z; s) of a way up made for learning: (N,)."""
    values = [
        sum_positions(net, rectified(net, up, layer) * readout).sum(dim=1)
        for layer, readout in enumerate(up.prepared.readouts)
    ]
    return net.rectifier.span * torch.stack(values).sum(dim=0)


def rectified(net: NoiseConditionalNet, up: ForwardPass, layer: int) -> Tensor:
    """A layer's rectified responses: those in the room of the layer above; of the top, made."""
    if layer + 1 == len(net.layers):
        return net.rectifier.value(up.responses[layer], up.gates[layer])
    room = up.rooms[layer + 1][: len(up.gates[layer])]
    return interior(room, *circular_border(net.layers[layer + 1]))


def sum_positions(net: NoiseConditionalNet, maps: Tensor) -> Tensor:
    """(N, filters, h, w) -> (N, filters), in the parameters' format."""
    # Asked for another format, sum would first copy the maps to it.
    return maps.sum(dim=(2, 3)).to(net.weights[0].dtype)


@torch.no_grad()
def double_backward(
    net: NoiseConditionalNet,
    up: ForwardPass,
    down: BackwardPass,
    along: Tensor,
    times: Tensor | None = None,
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
        from_tangents = sum_positions(net, raw_tangents[layer].mul_(down.passed[layer]))
        gradients |= _level_gradients(net, up, layer, sensitivity, from_tangents)
        outputs = down.placed[layer]
        torch.mul(sensitivity, up.gains[layer], out=outputs[:count])
        # Both products of maps with filters in one call: images and tangents side by side.
        gradients[f"weights.{layer}"] = _filter_gradient(net, up, layer, outputs, up.rooms[layer])
        if layer:
            above = deconvolve(net, up, layer, outputs[:count])
    return gradients


@torch.no_grad()
def potential_gradient(
    net: NoiseConditionalNet, up: ForwardPass, times: Tensor
) -> dict[str, Tensor]:
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
    net: NoiseConditionalNet, up: ForwardPass, layer: int, times: Tensor, above: Tensor | None
) -> Tensor:
    """dF/d(rectified response) times `times`: what the layers above ask, and the readout."""
    counted = (net.rectifier.span * times)[:, None, None, None].to(up.prepared.dtype)
    own = up.prepared.readouts[layer] * counted
    return own if above is None else above.add_(own)


def _readout_gradient(
    net: NoiseConditionalNet, up: ForwardPass, layer: int, times: Tensor
) -> Tensor:
    counted = (net.rectifier.span * times)[:, None, None, None].to(up.prepared.dtype)
    return _by_readout(net, layer, rectified(net, up, layer) * counted)


def _by_readout(net: NoiseConditionalNet, layer: int, maps: Tensor) -> Tensor:
    """Maps (N, filters, h, w) summed over all that one weight of the readout serves."""
    if net.image_size:
        return maps.sum(dim=0).to(net.weights[0].dtype) * net.strides[layer]
    return sum_positions(net, maps).sum(dim=0)[:, None, None] * net.strides[layer]


def _tangent_pass(
    net: NoiseConditionalNet, up: ForwardPass, along: Tensor
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
        border, room = circular_border(spec), up.rooms[layer][count:]
        inner = interior(room, *border)
        if layer:
            torch.mul(up.gates[layer - 1], moving, out=inner)
            gradients[f"readouts.{layer - 1}"] = _by_readout(net, layer - 1, inner)
        else:
            inner.copy_(moving)
        fill_border_(room, up.prepared.lattice, *border)
        raw_tangents.append(F.conv2d(room, up.prepared.filters[layer], stride=spec.stride))
        moving = raw_tangents[-1] * up.gains[layer]
        tangents.append(moving)
    top = len(net.layers) - 1
    gradients[f"readouts.{top}"] = _by_readout(net, top, up.gates[top] * moving)
    return tangents, raw_tangents, gradients


def _level_gradients(
    net: NoiseConditionalNet,
    up: ForwardPass,
    layer: int,
    sensitivity: Tensor,
    from_tangents: Tensor | float = 0.0,
) -> dict[str, Tensor]:
    """Gradients of biases and of the level terms (gain = 1 + scale, shift + bias gain)."""
    gain = up.gains[layer][:, :, 0, 0].to(net.weights[0].dtype)
    shift = sum_positions(net, sensitivity) / net.rectifier.span
    scale = sum_positions(net, sensitivity * up.raw[layer]) + from_tangents
    scale = scale + shift * net.biases[layer]
    return {
        f"biases.{layer}": (shift * gain).sum(dim=0),
        f"levels.{layer}": torch.cat([scale, shift], dim=1).T @ up.features,
    }


def _filter_gradient(
    net: NoiseConditionalNet, up: ForwardPass, layer: int, outputs: Tensor, inputs: Tensor
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
