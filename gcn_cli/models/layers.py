"""The description of a network: layers and lattice. Free of torch, so that help texts are quick."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_LAYER = re.compile(r"(\d+)@(\d+)(?:/(\d+))?(?:\+(\d+))?")


class PaddingMode(StrEnum):
    """What lies beyond the border of an image."""

    VALID = "valid"  # nothing: maps shrink
    ZERO = "zero"  # the mean color: the published setting; leaves a gray frame
    REFLECT = "reflect"  # the image mirrored
    CIRCULAR = "circular"  # the image again, a torus: samples are seamless


@dataclass(frozen=True)
class LayerSpec:
    """One layer of filters: how many, their side, the sub-sampling and the padding in pixels.

    Written as filters@size/stride+padding: "100@15/3+2", or "30@3" for stride 1, padding 0.
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
        """From the written form; raises ValueError for anything else."""
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
    """Layers from bottom to top, written with commas: "100@15/3+2,64@5+2,30@3+2"."""
    return tuple(LayerSpec.parse(part) for part in text.split(","))


def responses_per_pixel(layers: Sequence[LayerSpec], depth: int = 1) -> float:
    """How many filter responses all layers have together, for every pixel of a large image."""
    found, step = 0.0, depth
    for layer in layers:
        step *= layer.stride
        found += layer.filters / step**2
    return found


def filter_parameters(layers: Sequence[LayerSpec], channels: int, depth: int = 1) -> int:
    """How many numbers all filters have together, on images of so many channels."""
    below, found = channels * depth**2, 0
    for layer in layers:
        found += layer.filters * below * layer.size**2
        below = layer.filters
    return found


def circular_border(layer: LayerSpec) -> tuple[int, int]:
    """Rows before and after that give a map of n / stride positions for a side of n.

    It is size - stride in all: the only amount with which maps close on a torus.
    """
    if layer.size < layer.stride:
        raise ValueError(f"layer {layer}: the size must be the stride or more")
    before = (layer.size - layer.stride) // 2
    return before, layer.size - layer.stride - before


def layer_border(lattice: PaddingMode, layer: LayerSpec) -> tuple[int, int]:
    """Rows that a layer needs before and after the map below it; on the torus, to close it."""
    if lattice is PaddingMode.VALID:
        return 0, 0
    if lattice is PaddingMode.CIRCULAR:
        return circular_border(layer)
    return layer.padding, layer.padding
