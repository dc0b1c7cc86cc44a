"""What lies beyond the border of an image: four lattices, each with its adjoint.

`extend` adds the border that a convolution needs, `fold` is its transpose: the top-down pass
runs a convolution backwards and must hand what it wrote on the border back to the pixels that
the border was copied from. For all x, u:  <extend(x), u> = <x, fold(u)>.
"""

import torch.nn.functional as F
from torch import Tensor

from gcn_cli.model.spec import Lattice


def extend(x: Tensor, lattice: Lattice, before: int, after: int) -> Tensor:
    """Add the border: (N, C, H, W) -> (N, C, H + before + after, W + before + after).

    Raises ValueError where the image is smaller than the border that it must supply.
    """
    if before == 0 and after == 0:
        return x
    widest = max(before, after)
    smallest = min(x.shape[-2:])
    if lattice is Lattice.REFLECT and widest >= smallest:
        raise ValueError(f"side {smallest} must exceed the border {widest} it is mirrored into")
    if lattice is Lattice.CIRCULAR and widest > smallest:
        raise ValueError(f"side {smallest} must be at least the border {widest} on a torus")
    mode = "constant" if lattice is Lattice.ZERO else str(lattice)
    return F.pad(x, (before, after, before, after), mode=mode)


def fold(u: Tensor, lattice: Lattice, before: int, after: int) -> Tensor:
    """The transpose of `extend`: (N, C, H + before + after, ...) -> (N, C, H, W)."""
    for axis in (-2, -1):
        inner = u.shape[axis] - before - after
        core = u.narrow(axis, before, inner)
        if lattice in (Lattice.REFLECT, Lattice.CIRCULAR) and before + after > 0:
            core = core.clone()
            first, last = u.narrow(axis, 0, before), u.narrow(axis, before + inner, after)
            if lattice is Lattice.CIRCULAR:
                core.narrow(axis, inner - before, before).add_(first)
                core.narrow(axis, 0, after).add_(last)
            else:
                core.narrow(axis, 1, before).add_(first.flip(axis))
                core.narrow(axis, inner - 1 - after, after).add_(last.flip(axis))
        u = core
    return u
