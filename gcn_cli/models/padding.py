"""What lies beyond the border of an image: four lattices, each with its adjoint.

`pad` adds the border that a convolution needs, `pad_transpose_` is its transpose: the top-down pass
runs a convolution backwards and must hand what it wrote on the border back to the pixels that
the border was copied from. For all x, u:  <extend(x), u> = <x, fold_(u)>.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.layers import PaddingMode


def pad(x: Tensor, lattice: PaddingMode, before: int, after: int) -> Tensor:
    """Add the border: (N, C, H, W) -> (N, C, H + before + after, W + before + after).

    Raises ValueError where the image is smaller than the border that it must supply.
    """
    if before == 0 and after == 0:
        return x
    check_border(x.shape[-2:], lattice, before, after)
    mode = "constant" if lattice is PaddingMode.ZERO else str(lattice)
    return F.pad(x, (before, after, before, after), mode=mode)


def check_border(size: torch.Size, lattice: PaddingMode, before: int, after: int) -> None:
    """Raise ValueError where an image of `size` (H, W) cannot supply its border."""
    widest, smallest = max(before, after), min(size)
    if lattice is PaddingMode.REFLECT and widest >= smallest:
        raise ValueError(f"side {smallest} must exceed the border {widest} it is mirrored into")
    if lattice is PaddingMode.CIRCULAR and widest > smallest:
        raise ValueError(f"side {smallest} must be at least the border {widest} on a torus")


def empty_maps(count: int, like: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """Unwritten maps, channels last, as many channels as `like`, with room for a border."""
    height, width = (side + before + after for side in like.shape[-2:])
    return torch.empty(
        (count, like.shape[1], height, width),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def interior(room: Tensor, before: int, after: int) -> Tensor:
    """The image within a map that has room for its border, a view."""
    rows, columns = (side - before - after for side in room.shape[-2:])
    return room.narrow(-2, before, rows).narrow(-1, before, columns)


def fill_border_(room: Tensor, lattice: PaddingMode, before: int, after: int) -> Tensor:
    """`pad` without a copy: fill the border of a map whose `interior` has been written."""
    size = torch.Size([side - before - after for side in room.shape[-2:]])
    check_border(size, lattice, before, after)
    for axis in (-2, -1):
        inner = room.shape[axis] - before - after
        ends = [(0, before, inner), (before + inner, after, before)]
        for number, (start, width, same) in enumerate(ends):
            if width == 0:
                continue
            border = room.narrow(axis, start, width)
            if lattice is PaddingMode.CIRCULAR:
                border.copy_(room.narrow(axis, same, width))
            elif lattice is PaddingMode.REFLECT:
                mirror = before + 1 if number == 0 else before + inner - 1 - width
                border.copy_(room.narrow(axis, mirror, width).flip(axis))
            else:
                border.zero_()
    return room


def pad_transpose_(u: Tensor, lattice: PaddingMode, before: int, after: int) -> Tensor:
    """The transpose of `pad`: (N, C, H + before + after, ...) -> (N, C, H, W).

    What comes back is a view of u, to whose own border nothing may be asked any more.
    """
    for axis in (-2, -1):
        inner = u.shape[axis] - before - after
        core = u.narrow(axis, before, inner)
        if lattice in (PaddingMode.REFLECT, PaddingMode.CIRCULAR) and before + after > 0:
            first, last = u.narrow(axis, 0, before), u.narrow(axis, before + inner, after)
            if lattice is PaddingMode.CIRCULAR:
                core.narrow(axis, inner - before, before).add_(first)
                core.narrow(axis, 0, after).add_(last)
            else:
                core.narrow(axis, 1, before).add_(first.flip(axis))
                core.narrow(axis, inner - 1 - after, after).add_(last.flip(axis))
        u = core
    return u
