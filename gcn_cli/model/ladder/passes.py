"""The ladder's way up and way down, rearranged to what hardware likes: F and grad F by hand.

No automatic differentiation, maps stored channels last, borders filled in place, responses in
units of the rectifier's box so that a gate takes one pass over the maps. Maps may be bfloat16;
images and parameters stay float32. Equal to `LadderNet.total` and its gradient within rounding.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.lattice import close_, empty_maps, fold_, inside
from gcn_cli.model.spec import Lattice, LayerSpec, closing_border


@dataclass(frozen=True)
class Prepared:
    """A ladder's parameters as they are now, in the number format of the maps."""

    lattice: Lattice
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
class Ascent:
    """The way up at one batch of images: what the way down, and learning, need of it."""

    prepared: Prepared
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
class Descent:
    """The way down. What each layer was asked for is for learning only, bottom layer first."""

    slope: Tensor  # grad F, (N, C, H, W), in the maps' format
    asked: list[Tensor]  # dF / d(rectified response)
    passed: list[Tensor]  # dF / d(response): the same through the gates
    placed: list[Tensor]  # (2 N, ...): room for as much again, then dF / d(raw response)


@torch.no_grad()
def prepare(net: LadderNet, dtype: torch.dtype, *, repeatable: bool = False) -> Prepared:
    """Do once what stays the same while parameters do.

    `repeatable`: on a torus a pixel of grad F has the same bits wherever it lies and however large
    the image is, for as much as the library's convolutions allow it: turned ones of stride 1 on the
    way down, and no sums across the border. In float32 on a processor; not for learning.
    """
    by_level = [level.chunk(2) for level in net.levels]
    exact = repeatable and dtype is torch.float32 and net.weights[0].device.type == "cpu"
    return Prepared(
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
def ascend(
    net: LadderNet,
    z: Tensor,
    log_noise: Tensor,
    prepared: Prepared,
    *,
    learning: bool = False,
) -> Ascent:
    """The way up for scaled images z (N, C, H, W) at levels (N,).

    Without `learning` only what the way down needs is kept, and maps are used again.
    """
    count, span = len(z), net.rectifier.span
    features = net.level_features(log_noise)
    gains, offsets = prepared.level_terms(features, span)
    up = Ascent(prepared, features, gains)
    below, gate = F.pixel_unshuffle(z / span, net.depth).to(prepared.dtype), None
    for layer, spec in enumerate(net.layers):
        border = closing_border(spec)
        up.sizes.append((below.shape[-2], below.shape[-1]))
        room = empty_maps(2 * count if learning else count, below, *border)
        looked_at = room[:count]
        if gate is None:
            inside(looked_at, *border).copy_(below)
        else:
            net.rectifier.value(below, gate, out=inside(looked_at, *border))
        close_(looked_at, prepared.lattice, *border)
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
def descend(net: LadderNet, up: Ascent) -> Descent:
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
    return Descent(F.pixel_shuffle(above, net.depth), asked, passed, placed)


def deconvolve(net: LadderNet, up: Ascent, layer: int, coefficients: Tensor) -> Tensor:
    """A layer's filters placed by `coefficients` on the map below it."""
    spec = net.layers[layer]
    before, after = closing_border(spec)
    if up.prepared.turned and up.prepared.lattice is Lattice.CIRCULAR:
        return _on_torus(up.prepared, layer, spec, coefficients)
    rest = [(side + before + after - spec.size) % spec.stride for side in up.sizes[layer]]
    written = F.conv_transpose2d(
        coefficients,
        up.prepared.filters[layer],
        stride=spec.stride,
        output_padding=(rest[0], rest[1]),
    )
    return fold_(written, up.prepared.lattice, before, after)


def _on_torus(prepared: Prepared, layer: int, spec: LayerSpec, coefficients: Tensor) -> Tensor:
    """`deconvolve` with the coefficients laid out past the border, in place of sums across it."""
    (before, after), stride = closing_border(spec), spec.stride
    low, high = (after, before) if stride == 1 else (
        (spec.size - 1 - before) // stride,
        (stride - 1 + before) // stride,
    )  # fmt: skip
    room = empty_maps(len(coefficients), coefficients, low, high)
    inside(room, low, high).copy_(coefficients)
    close_(room, prepared.lattice, low, high)
    if stride == 1:
        return F.conv2d(room, prepared.turned[layer])
    written = F.conv_transpose2d(room, prepared.filters[layer], stride=stride)
    for axis in (-2, -1):
        written = written.narrow(axis, before + low * stride, coefficients.shape[axis] * stride)
    return written


def total(net: LadderNet, up: Ascent) -> Tensor:
    """F(z; s) of a way up made for learning: (N,)."""
    values = [
        sum_places(net, rectified(net, up, layer) * readout).sum(dim=1)
        for layer, readout in enumerate(up.prepared.readouts)
    ]
    return net.rectifier.span * torch.stack(values).sum(dim=0)


def rectified(net: LadderNet, up: Ascent, layer: int) -> Tensor:
    """A layer's rectified responses: those in the room of the layer above; of the top, made."""
    if layer + 1 == len(net.layers):
        return net.rectifier.value(up.responses[layer], up.gates[layer])
    room = up.rooms[layer + 1][: len(up.gates[layer])]
    return inside(room, *closing_border(net.layers[layer + 1]))


def sum_places(net: LadderNet, maps: Tensor) -> Tensor:
    """(N, filters, h, w) -> (N, filters), in the parameters' format."""
    # Asked for another format, sum would first copy the maps to it.
    return maps.sum(dim=(2, 3)).to(net.weights[0].dtype)
