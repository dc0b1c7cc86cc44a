"""The top-down pass, written out: filters as basis functions, gates as coefficients.

B(I) = df/dI is computed here without autograd, as the paper describes it (section 4): start from
ones on the top maps, multiply by the gates, deconvolve with the filters of the encoding, layer by
layer. This is the reference; `fast.py` computes the same rearranged to what hardware likes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.lattice import fold
from gcn_cli.model.network import GenerativeConvNet


def deconvolve(
    model: GenerativeConvNet, layer: int, coefficients: Tensor, below: tuple[int, int]
) -> Tensor:
    """Sum of a layer's filters placed by `coefficients`: (N, filters, h, w) -> (N, C, *below)."""
    spec = model.layers[layer]
    before, after = model.borders()[layer]
    # Rows that the stride steps over at the far end get no basis function: output padding.
    rest = [(side + before + after - spec.size) % spec.stride for side in below]
    written = F.conv_transpose2d(
        coefficients, model.weights[layer], stride=spec.stride, output_padding=(rest[0], rest[1])
    )
    return fold(written, model.lattice, before, after)


def coefficients(
    model: GenerativeConvNet, gates: Sequence[Tensor], size: tuple[int, int]
) -> list[Tensor]:
    """What places each layer's filters on the way down: (N, filters, h, w), bottom layer first.

    `gates` as of `activation_pattern`, `size` the (H, W) of the image. Gates need not be those
    of any image: the recursion is linear in what starts it.
    """
    sizes = [size, *model.map_sizes(*size)]
    top = gates[-1].to(model.weights[0].dtype)
    placed = [top if model.head is None else top * model.head]
    for layer in reversed(range(1, len(model.layers))):
        written = deconvolve(model, layer, placed[0], sizes[layer])
        placed.insert(0, written * gates[layer - 1].to(written.dtype))
    return placed


def top_down(model: GenerativeConvNet, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """B for a given activation pattern: (N, C, H, W)."""
    return deconvolve(model, 0, coefficients(model, gates, size)[0], size)


def basis(model: GenerativeConvNet, x: Tensor) -> Tensor:
    """B(I) = df/dI at the images x themselves: (N, C, H, W) -> (N, C, H, W)."""
    return top_down(model, model.activation_pattern(x), (x.shape[-2], x.shape[-1]))


def intercept(model: GenerativeConvNet, gates: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """alpha of f(I) = alpha + <I, B> on the cell of `gates`: (N,).

    A coefficient that places a filter also counts that filter's bias, once for every position.
    """
    per_layer = zip(coefficients(model, gates, size), model.biases, strict=True)
    return torch.stack([c.sum(dim=(2, 3)) @ bias for c, bias in per_layer]).sum(dim=0)
