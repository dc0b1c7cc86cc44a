"""Padding of maps in four modes, and its transpose.

`pad` adds the border that a convolution needs. `pad_transpose_` is the transpose of that linear
map, <pad(x), u> = <x, pad_transpose_(u)>: in the backward pass, the gradient with respect to the
border is added to the pixels that the border was copied from.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.layers import PaddingMode


def pad(x: Tensor, padding_mode: PaddingMode, before: int, after: int) -> Tensor:
    """Add a border: (N, C, H, W) -> (N, C, H + before + after, W + before + after).

    Raises ValueError where the image is too small to fill the border.
    """
    if before == 0 and after == 0:
        return x
    _check_border(x.shape[-2:], padding_mode, before, after)
    mode = "constant" if padding_mode is PaddingMode.ZEROS else str(padding_mode)
    return F.pad(x, (before, after, before, after), mode=mode)


def _check_border(size: torch.Size, padding_mode: PaddingMode, before: int, after: int) -> None:
    """Raise ValueError where an image of `size` (H, W) is too small to fill its border."""
    border, side = max(before, after), min(size)
    if padding_mode is PaddingMode.REFLECT and border >= side:
        raise ValueError(f"side {side} must exceed the border {border} it is mirrored into")
    if padding_mode is PaddingMode.CIRCULAR and border > side:
        raise ValueError(f"side {side} must be at least the border {border} on a torus")


def empty_maps(count: int, like: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """`count` uninitialized maps with the channels of `like` and its size plus a border.

    Memory format channels last; dtype and device of `like`.
    """
    height, width = (side + before + after for side in like.shape[-2:])
    return torch.empty(
        (count, like.shape[1], height, width),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def interior(padded: Tensor, before: int, after: int) -> Tensor:
    """View of a padded map without its border."""
    height, width = (side - before - after for side in padded.shape[-2:])
    return padded.narrow(-2, before, height).narrow(-1, before, width)


def fill_border_(padded: Tensor, padding_mode: PaddingMode, before: int, after: int) -> Tensor:
    """Fill the border of a map whose `interior` is written: `pad` without a copy.

    Raises ValueError where the interior is too small to fill the border.
    """
    size = torch.Size([side - before - after for side in padded.shape[-2:]])
    _check_border(size, padding_mode, before, after)
    for axis, side in zip((-2, -1), size, strict=True):
        # Start and width of each border, its source on a torus, and its mirrored source.
        low = (0, before, side, before + 1)
        high = (before + side, after, before, before + side - 1 - after)
        for start, width, opposite, mirrored in (low, high):
            if width == 0:
                continue
            border = padded.narrow(axis, start, width)
            if padding_mode is PaddingMode.CIRCULAR:
                border.copy_(padded.narrow(axis, opposite, width))
            elif padding_mode is PaddingMode.REFLECT:
                border.copy_(_mirrored(padded.narrow(axis, mirrored, width), axis))
            else:
                border.zero_()
    return padded


def pad_transpose_(u: Tensor, padding_mode: PaddingMode, before: int, after: int) -> Tensor:
    """The transpose of `pad`: (N, C, H + before + after, W + before + after) -> (N, C, H, W).

    Works in place: the result is a view of u, whose border is no longer valid.
    """
    for axis in (-2, -1):
        side = u.shape[axis] - before - after
        inner = u.narrow(axis, before, side)
        # Start and width of each border, and where it is added on a torus and if mirrored.
        low = (0, before, side - before, 1)
        high = (before + side, after, 0, side - 1 - after)
        for start, width, opposite, mirrored in (low, high):
            if width == 0 or padding_mode is PaddingMode.ZEROS:
                continue
            border = u.narrow(axis, start, width)
            if padding_mode is PaddingMode.CIRCULAR:
                inner.narrow(axis, opposite, width).add_(border)
            elif padding_mode is PaddingMode.REFLECT:
                inner.narrow(axis, mirrored, width).add_(_mirrored(border, axis))
        u = inner
    return u


def _mirrored(x: Tensor, axis: int) -> Tensor:
    """x in reverse order; not copied where there is nothing to reverse."""
    return x.flip(axis) if x.shape[axis] > 1 else x
