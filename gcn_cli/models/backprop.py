"""Forward pass, backward pass and double backward of a noise-conditional network, by hand.

The potential F(z; s) and its gradients without automatic differentiation, equal to
`NoiseConditionalNet` under autograd to rounding. Maps are stored channels last and may be bfloat16;
images and parameters stay float32.

Learning by denoising needs the gradient of <v, grad F> with respect to the parameters, a double
backward. <v, grad F> is the derivative of F along v, so it takes a tangent pass (how responses
change along v) and one backward pass through both; the backward pass that gave grad F is used
again. In convolutions per layer: forward 1, backward 1, tangent 1, second backward 1, filter
gradients 2. Automatic differentiation needs the same six and many more element-wise passes. dF/dw
of the same images is linear in the same backward pass and takes no further convolution; alone
(`potential_gradient`) it takes a backward pass and one filter gradient.

Responses are in units of the rectifier's interval (`span`), so that a gate takes one pass over the
maps: images are z / span, and the potential is F / span. Gradients with respect to images, filters,
gains and readouts are the same in both units; those with respect to shifts are divided by the span.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.layers import PaddingMode, circular_border
from gcn_cli.models.noise_conditional import NoiseConditionalNet, phase_features
from gcn_cli.models.padding import empty_maps, fill_border_, interior, pad_transpose_

CHANNEL_GROUP = 8


@dataclass(frozen=True)
class PackedNet:
    """A net with a copy of its parameters in the dtype and memory format of the maps."""

    net: NoiseConditionalNet
    padding_mode: PaddingMode
    filters: list[Tensor]  # channels last; the first may have channels of zeros at the end
    readouts: list[Tensor]  # (1, filters, h or 1, w or 1)
    # Of all layers together, in the dtype of the parameters:
    scales: Tensor  # (all filters, embedding size)
    shifts: Tensor
    biases: Tensor  # (all filters,)
    flipped_filters: list[Tensor] = field(default_factory=list)  # see `pack`
    phase_weights: Tensor | None = None  # (filters of the first layer, features, 1, 1)

    @property
    def dtype(self) -> torch.dtype:
        """That of the maps."""
        return self.filters[0].dtype

    def first_input(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) as input maps of the first layer, in the dtype of the maps."""
        maps = F.pixel_unshuffle(x, self.net.space_to_depth).to(self.dtype)
        missing = self.filters[0].shape[1] - maps.shape[1]
        return F.pad(maps, (0, 0, 0, 0, 0, missing)) if missing else maps

    def gains_and_offsets(self, embedding: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gains, and offsets in units of the interval, by layer: (N, filters, 1, 1) each."""
        gains = 1 + embedding @ self.scales.T
        offsets = embedding @ self.shifts.T + self.biases * gains
        offsets = offsets / self.net.rectifier.span + 0.5
        counts = [len(weight) for weight in self.filters]
        by_layer = [
            list(torch.split(values.to(self.dtype)[:, :, None, None], counts, dim=1))
            for values in (gains, offsets)
        ]
        return by_layer[0], by_layer[1]

    def sum_positions(self, maps: Tensor) -> Tensor:
        """(N, filters, h, w) -> (N, filters), in the dtype of the parameters."""
        # With a dtype argument, sum would first copy the maps to it.
        return maps.sum(dim=(2, 3)).to(self.biases.dtype)

    def pool(self, maps: Tensor) -> Tensor:
        """Sums of maps over the positions that share a readout weight: (N, filters, h, w).

        Of textures, all positions: h = w = 1, in the dtype of the parameters.
        """
        return maps if self.net.image_size else self.sum_positions(maps)[:, :, None, None]

    def readout_gradients(
        self, pooled: Sequence[Tensor], weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Gradients of the readouts by name, from pooled maps of all layers.

        weights: of the images, (N, 1, 1, 1).
        """
        counts = [len(weight) for weight in self.filters]
        by_layer = pooled if self.net.image_size else [torch.cat(list(pooled), dim=1)]
        if weights is not None:
            by_layer = [maps * weights for maps in by_layer]
        sums = [maps.sum(dim=0).to(self.biases.dtype) for maps in by_layer]
        sums = sums if self.net.image_size else list(torch.split(sums[0], counts))
        gradients = torch._foreach_mul(sums, [float(stride) for stride in self.net.strides])
        return {f"readouts.{layer}": value for layer, value in enumerate(gradients)}


@torch.no_grad()
def pack(
    net: NoiseConditionalNet, dtype: torch.dtype, *, tile_invariant: bool = False
) -> PackedNet:
    """Copy the parameters of a net for maps of `dtype`; pack again after they change.

    `tile_invariant`: on a torus, grad F at a pixel has the same bits in every tile and every image
    size, as far as the library's convolutions allow. Backward convolutions of stride 1 are then
    convolutions with flipped filters, and no sums cross the border. It applies to float32 on a
    CPU, and not to training.
    """
    modulations = [modulation.chunk(2) for modulation in net.modulations]
    flip = tile_invariant and dtype is torch.float32 and net.weights[0].device.type == "cpu"
    weights: list[Tensor] = list(net.weights)
    if dtype is torch.bfloat16 and weights[0].device.type == "cuda":
        # Kernels for tensor cores take channels in groups of 8; others are ten times slower.
        weights[0] = F.pad(weights[0], (0, 0, 0, 0, 0, -weights[0].shape[1] % CHANNEL_GROUP))
    return PackedNet(
        net,
        net.padding_mode,
        [weight.to(dtype, memory_format=torch.channels_last) for weight in weights],
        [net.readout(layer).to(dtype) for layer in range(len(net.layers))],
        torch.cat([scale for scale, _ in modulations]),
        torch.cat([shift for _, shift in modulations]),
        torch.cat(list(net.biases)),
        [_flipped(weight) for weight in net.weights] if flip else [],
        None if net.phase_weights is None else net.phase_weights[:, :, None, None].to(dtype),
    )


def _flipped(weight: Tensor) -> Tensor:
    """Filters whose convolution with stride 1 is the transpose of that with `weight`."""
    flipped = weight.detach().flip(-1, -2).transpose(0, 1)
    return flipped.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ForwardPass:
    """The forward pass of a batch. Lists have an entry per layer, bottom first."""

    packed: PackedNet
    embedding: Tensor  # of the noise levels, (N, embedding size)
    gains: list[Tensor]  # (N, filters, 1, 1)
    gates: list[Tensor] = field(default_factory=list)  # in 0..1, (N, filters, h, w)
    input_sizes: list[tuple[int, int]] = field(default_factory=list)  # without border
    # In training only:
    padded_inputs: list[Tensor] = field(default_factory=list)  # (2 N, ...): inputs with border,
    # then space for their tangents
    raw_responses: list[Tensor] = field(default_factory=list)  # before gain and shift
    responses: list[Tensor] = field(default_factory=list)  # after, in units of the interval
    phase_features: list[Tensor] = field(default_factory=list)  # one entry, if there is a lattice

    def rectified(self, layer: int) -> Tensor:
        """A layer's rectified responses: the input of the next layer, or computed at the top."""
        net = self.packed.net
        if layer + 1 == len(net.layers):
            return net.rectifier.value(self.responses[layer], self.gates[layer])
        inputs = self.padded_inputs[layer + 1][: len(self.gates[layer])]
        return interior(inputs, *circular_border(net.layers[layer + 1]))

    @cached_property
    def pooled(self) -> list[Tensor]:
        """The rectified responses of all layers, see `PackedNet.pool`."""
        return [self.packed.pool(self.rectified(layer)) for layer in range(len(self.gates))]

    def deconvolve(self, layer: int, by_output: Tensor) -> Tensor:
        """Gradient with respect to a layer's input, from that of its raw responses."""
        spec, packed = self.packed.net.layers[layer], self.packed
        if packed.flipped_filters and packed.padding_mode is PaddingMode.CIRCULAR:
            return self._deconvolve_on_torus(layer, by_output)
        border = circular_border(spec)
        height, width = self.input_sizes[layer]
        skipped = [(side + sum(border) - spec.size) % spec.stride for side in (height, width)]
        padded = F.conv_transpose2d(
            by_output,
            packed.filters[layer],
            stride=spec.stride,
            output_padding=(skipped[0], skipped[1]),
        )
        return pad_transpose_(padded, packed.padding_mode, *border)

    def _deconvolve_on_torus(self, layer: int, by_output: Tensor) -> Tensor:
        """`deconvolve` with the output gradients padded, instead of sums across the border."""
        spec, packed = self.packed.net.layers[layer], self.packed
        (before, after), stride = circular_border(spec), spec.stride
        if stride == 1:
            low, high = after, before
        else:
            low, high = (spec.size - 1 - before) // stride, (stride - 1 + before) // stride
        padded = empty_maps(len(by_output), by_output, low, high)
        interior(padded, low, high).copy_(by_output)
        fill_border_(padded, packed.padding_mode, low, high)
        if stride == 1:
            return F.conv2d(padded, packed.flipped_filters[layer])
        maps = F.conv_transpose2d(padded, packed.filters[layer], stride=stride)
        for axis in (-2, -1):
            maps = maps.narrow(axis, before + low * stride, by_output.shape[axis] * stride)
        return maps


@dataclass(frozen=True)
class BackwardPass:
    """The backward pass of a batch; the lists are filled in training only, bottom layer first."""

    input_gradient: Tensor  # grad F, (N, C, H, W), in the dtype of the maps
    by_value: list[Tensor]  # dF / d(rectified response)
    by_response: list[Tensor]  # dF / d(response): the same times the gates
    by_output: list[Tensor]  # (2 N, ...): space for N maps, then dF / d(raw response)


@torch.no_grad()
def forward(
    packed: PackedNet,
    z: Tensor,
    log_noise: Tensor,
    phases: Tensor | None = None,
    *,
    training: bool = False,
) -> ForwardPass:
    """The forward pass of scaled images z (N, C, H, W) at log noise levels (N,).

    phases: of the lattice, (N or 1, axes, h, w) at the positions of the first layer. Without
    `training`, only what `backward` needs is kept, and maps are overwritten.
    """
    net, count = packed.net, len(z)
    embedding = net.noise_embedding(log_noise)
    gains, offsets = packed.gains_and_offsets(embedding)
    fwd = ForwardPass(packed, embedding, gains)
    maps = packed.first_input(z / net.rectifier.span)
    gate = None
    for layer, spec in enumerate(net.layers):
        border = circular_border(spec)
        fwd.input_sizes.append((maps.shape[-2], maps.shape[-1]))
        padded = empty_maps(2 * count if training else count, maps, *border)
        inputs = padded[:count]
        if gate is None:
            interior(inputs, *border).copy_(maps)
        else:
            net.rectifier.value(maps, gate, out=interior(inputs, *border))
        fill_border_(inputs, packed.padding_mode, *border)
        raw = F.conv2d(inputs, packed.filters[layer], stride=spec.stride)
        if layer == 0 and phases is not None and packed.phase_weights is not None:
            features = (phase_features(phases) / net.rectifier.span).to(packed.dtype)
            raw.add_(F.conv2d(features, packed.phase_weights))
            fwd.phase_features.append(features)
        maps = torch.addcmul(offsets[layer], raw, gains[layer], out=None if training else raw)
        gate = net.rectifier.gate(maps)
        fwd.gates.append(gate)
        if training:
            fwd.padded_inputs.append(padded)
            fwd.raw_responses.append(raw)
            fwd.responses.append(maps)
    return fwd


@torch.no_grad()
def backward(fwd: ForwardPass) -> BackwardPass:
    """grad F with respect to the scaled images; overwrites the gates, except in training."""
    kept: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])  # see BackwardPass
    gradient: Tensor | None = None
    for layer in reversed(range(len(fwd.gates))):
        gate, gain, readout = fwd.gates[layer], fwd.gains[layer], fwd.packed.readouts[layer]
        by_value = readout if gradient is None else gradient.add_(readout)
        if fwd.padded_inputs:
            by_response = gate * by_value
            outputs = empty_maps(2 * len(gate), gate)
            by_output = torch.mul(by_response, gain, out=outputs[len(gate) :])
            for kept_maps, maps in zip(kept, (by_value, by_response, outputs), strict=True):
                kept_maps.insert(0, maps)
        else:
            by_output = gate.mul_(by_value).mul_(gain)
        gradient = fwd.deconvolve(layer, by_output)
    assert gradient is not None
    net = fwd.packed.net
    gradient = gradient[:, : net.weights[0].shape[1]]
    return BackwardPass(F.pixel_shuffle(gradient, net.space_to_depth), *kept)


def potential(fwd: ForwardPass) -> Tensor:
    """F(z; s) from a forward pass for training: (N,)."""
    packed = fwd.packed
    if packed.net.image_size:
        pairs = zip(fwd.pooled, packed.readouts, strict=True)
        products = torch.cat([packed.sum_positions(maps * readout) for maps, readout in pairs], 1)
    else:
        products = torch.cat(fwd.pooled, dim=1) * torch.cat(packed.readouts, dim=1)
    return packed.net.rectifier.span * products.flatten(1).sum(dim=1)


@torch.no_grad()
def double_backward(
    fwd: ForwardPass, bwd: BackwardPass, direction: Tensor, potential_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradients of <direction, grad F> + <potential_weights, F> by parameter name.

    Both passes are those of training; their free space is overwritten. `direction` is
    (N, C, H, W), `potential_weights` (N,). Gradients have the dtype of the parameters.
    """
    tangents, raw_tangents, gradients = _tangent_pass(fwd, direction)
    weights = None if potential_weights is None else _map_weights(fwd, potential_weights)
    packed, rectifier, count = fwd.packed, fwd.packed.net.rectifier, len(direction)
    if weights is not None:
        of_potential = packed.readout_gradients(fwd.pooled, weights)
        torch._foreach_add_(list(gradients.values()), list(of_potential.values()))
    by_responses: list[Tensor] = []
    by_gains: list[Tensor] = []
    gradient: Tensor | None = None
    for layer in reversed(range(len(fwd.gates))):
        by_response = rectifier.gate_backward(fwd.responses[layer], tangents[layer])
        by_response.mul_(bwd.by_value[layer])
        if weights is not None:
            gradient = _add_readout(fwd, layer, weights, gradient)
        if gradient is not None:
            by_response.addcmul_(fwd.gates[layer], gradient)
        by_responses.insert(0, packed.sum_positions(by_response))
        by_gain = packed.sum_positions(by_response * fwd.raw_responses[layer])
        along_v = packed.sum_positions(raw_tangents[layer].mul_(bwd.by_response[layer]))
        by_gains.insert(0, by_gain + along_v)
        outputs = bwd.by_output[layer]
        torch.mul(by_response, fwd.gains[layer], out=outputs[:count])
        # Both products in one call: images with `by_response`, tangents with dF / d(raw response).
        inputs = fwd.padded_inputs[layer]
        gradients[f"weights.{layer}"] = _filter_gradient(packed, layer, outputs, inputs)
        if layer:
            gradient = fwd.deconvolve(layer, outputs[:count])
        else:
            gradients |= _phase_gradient(fwd, outputs[:count])
    return gradients | _modulation_gradients(fwd, by_responses, by_gains)


@torch.no_grad()
def potential_gradient(fwd: ForwardPass, potential_weights: Tensor) -> dict[str, Tensor]:
    """Gradients of <potential_weights, F> by parameter name, from a forward pass for training.

    `potential_weights` is (N,). Gradients have the dtype of the parameters.
    """
    packed, weights = fwd.packed, _map_weights(fwd, potential_weights)
    gradients = packed.readout_gradients(fwd.pooled, weights)
    by_responses: list[Tensor] = []
    by_gains: list[Tensor] = []
    gradient: Tensor | None = None
    for layer in reversed(range(len(fwd.gates))):
        by_response = fwd.gates[layer] * _add_readout(fwd, layer, weights, gradient)
        by_responses.insert(0, packed.sum_positions(by_response))
        by_gains.insert(0, packed.sum_positions(by_response * fwd.raw_responses[layer]))
        by_output = by_response.mul_(fwd.gains[layer])
        inputs = fwd.padded_inputs[layer][: len(by_output)]
        gradients[f"weights.{layer}"] = _filter_gradient(fwd.packed, layer, by_output, inputs)
        if layer:
            gradient = fwd.deconvolve(layer, by_output)
        else:
            gradients |= _phase_gradient(fwd, by_output)
    return gradients | _modulation_gradients(fwd, by_responses, by_gains)


def _tangent_pass(
    fwd: ForwardPass, direction: Tensor
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Derivatives along `direction` of the responses and of the raw responses.

    The tangents of the inputs are written to the free space of `padded_inputs`. The third result
    has the readout gradients of <direction, grad F>.
    """
    packed, top = fwd.packed, len(fwd.gates) - 1
    tangents: list[Tensor] = []
    raw_tangents: list[Tensor] = []
    pooled: list[Tensor] = []
    tangent = packed.first_input(direction)
    for layer, spec in enumerate(packed.net.layers):
        border, padded = circular_border(spec), fwd.padded_inputs[layer][len(direction) :]
        inputs = interior(padded, *border)
        if layer:
            torch.mul(fwd.gates[layer - 1], tangent, out=inputs)
            pooled.append(packed.pool(inputs))
        else:
            inputs.copy_(tangent)
        fill_border_(padded, packed.padding_mode, *border)
        raw_tangents.append(F.conv2d(padded, packed.filters[layer], stride=spec.stride))
        tangent = raw_tangents[-1] * fwd.gains[layer]
        tangents.append(tangent)
    pooled.append(packed.pool(fwd.gates[top] * tangent))
    return tangents, raw_tangents, packed.readout_gradients(pooled)


def _map_weights(fwd: ForwardPass, potential_weights: Tensor) -> Tensor:
    """Weights of the potential (N,) as factors of maps, which are in units of the interval."""
    weights = (fwd.packed.net.rectifier.span * potential_weights)[:, None, None, None]
    return weights.to(fwd.packed.dtype)


def _add_readout(fwd: ForwardPass, layer: int, weights: Tensor, gradient: Tensor | None) -> Tensor:
    """d<weights, F> / d(rectified response): of the readout, plus that of the next layer."""
    by_readout = fwd.packed.readouts[layer] * weights
    return by_readout if gradient is None else gradient.add_(by_readout)


def _modulation_gradients(
    fwd: ForwardPass, by_responses: Sequence[Tensor], by_gains: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Gradients of biases, scales and shifts: gain = 1 + scale, offset = shift + bias gain.

    Of all layers at once, from the gradients with respect to responses, summed over positions, and
    gains: (N, filters) for each layer.
    """
    packed, counts = fwd.packed, [len(weight) for weight in fwd.packed.filters]
    by_shift = torch.cat(list(by_responses), dim=1) / packed.net.rectifier.span
    by_scale = torch.cat(list(by_gains), dim=1) + by_shift * packed.biases
    gains = torch.cat(fwd.gains, dim=1)[:, :, 0, 0].to(packed.biases.dtype)
    by_bias = torch.split((by_shift * gains).sum(dim=0), counts)
    pairs = zip(
        *(torch.split(values, counts, dim=1) for values in (by_scale, by_shift)), strict=True
    )
    rows = torch.cat([part for pair in pairs for part in pair], dim=1)
    by_modulation = torch.split(rows.T @ fwd.embedding, [2 * count for count in counts])
    gradients = {f"biases.{layer}": value for layer, value in enumerate(by_bias)}
    return gradients | {f"modulations.{layer}": v for layer, v in enumerate(by_modulation)}


def _phase_gradient(fwd: ForwardPass, by_output: Tensor) -> dict[str, Tensor]:
    """Gradient of the phase weights, empty without a lattice: phases do not change along v."""
    weights = fwd.packed.net.phase_weights
    if weights is None:
        return {}
    if not fwd.phase_features:
        return {"phase_weights": torch.zeros_like(weights)}
    pairs = torch.einsum("nfhw,nphw->fp", by_output, fwd.phase_features[0])
    return {"phase_weights": pairs.to(weights.dtype)}


def _filter_gradient(
    packed: PackedNet, layer: int, by_output: Tensor, padded_inputs: Tensor
) -> Tensor:
    stride = packed.net.layers[layer].stride
    gradient: Tensor = torch.ops.aten.convolution_backward(
        by_output,
        padded_inputs,
        packed.filters[layer],
        bias_sizes=None,
        stride=[stride, stride],
        padding=[0, 0],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=1,
        output_mask=[False, True, False],  # of inputs, filters, bias
    )[1]
    return gradient[:, : packed.net.weights[layer].shape[1]].to(packed.biases.dtype)
