"""The description of a network: its layers and its padding mode.

Free of torch, so that help texts and settings load quickly.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_LAYER = re.compile(r"(\d+)@(\d+)(?:/(\d+))?(?:\+(\d+))?")


class PaddingMode(StrEnum):
    """What a convolution sees beyond the border of an image."""

    VALID = "valid"  # nothing: maps shrink
    ZEROS = "zeros"  # the mean color: the published setting; leaves a gray frame
    REFLECT = "reflect"  # the image mirrored
    CIRCULAR = "circular"  # the image repeated, a torus: samples tile seamlessly


@dataclass(frozen=True)
class LayerSpec:
    """A convolutional layer: number of filters, their side, stride and padding in pixels.

    Written filters@size/stride+padding, as "100@15/3+2", or "30@3" for stride 1 and padding 0.
    """

    filters: int
    size: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        if min(self.filters, self.size, self.stride) < 1:
            raise ValueError(f"layer {self}: filters, size and stride must be 1 or more")

    @classmethod
    def parse(cls, text: str) -> "LayerSpec":
        """Read the written form. Raises ValueError for any other text."""
        match = _LAYER.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"layer {text!r} is not filters@size/stride+padding, as 100@15/3+2")
        filters, size, stride, padding = match.groups()
        return cls(int(filters), int(size), int(stride or 1), int(padding or 0))

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride != 1 else ""
        padding = f"+{self.padding}" if self.padding else ""
        return f"{self.filters}@{self.size}{stride}{padding}"


def parse_layers(text: str) -> tuple[LayerSpec, ...]:
    """Read layers separated by commas, bottom first: "100@15/3+2,64@5+2,30@3+2"."""
    return tuple(LayerSpec.parse(part) for part in text.split(","))


def responses_per_pixel(layers: Sequence[LayerSpec], space_to_depth: int = 1) -> float:
    """Filter responses of all layers together for each pixel of a large image."""
    count, stride = 0.0, space_to_depth
    for layer in layers:
        stride *= layer.stride
        count += layer.filters / stride**2
    return count


def filter_parameters(layers: Sequence[LayerSpec], channels: int, space_to_depth: int = 1) -> int:
    """Number of filter weights of all layers together, for images with `channels` channels."""
    inputs, count = channels * space_to_depth**2, 0
    for layer in layers:
        count += layer.filters * inputs * layer.size**2
        inputs = layer.filters
    return count


def circular_border(layer: LayerSpec) -> tuple[int, int]:
    """Border (before, after) with which a side of n positions gives a map of n / stride.

    The sum is size - stride: the only border with which maps close on a torus. Raises ValueError
    where the stride exceeds the size.
    """
    if layer.size < layer.stride:
        raise ValueError(f"layer {layer}: the size must be the stride or more")
    before = (layer.size - layer.stride) // 2
    return before, layer.size - layer.stride - before


def layer_border(padding_mode: PaddingMode, layer: LayerSpec) -> tuple[int, int]:
    """Border (before, after) that a layer needs around its input map."""
    if padding_mode is PaddingMode.VALID:
        return 0, 0
    if padding_mode is PaddingMode.CIRCULAR:
        return circular_border(layer)
    return layer.padding, layer.padding
