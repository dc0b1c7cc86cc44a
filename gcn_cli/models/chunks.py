"""Where large maps are laid, and how to go through them without as much room again.

A picture of 8192x8192 is 0.8 GB for every number a channel that is kept; what goes through it in
pieces needs no second copy, and a `Allocator` may be a file that is mapped into memory.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Allocator = Callable[[Sequence[int], torch.dtype], Tensor]
"""A contiguous tensor of a shape and a number format, not yet written."""

CHUNK = 2**22  # numbers an image that are worked on at a time; a multiple of 16, see `pieces`


def allocator_like(x: Tensor) -> Allocator:
    """Memory on the device of x."""
    return lambda shape, dtype: torch.empty(tuple(shape), dtype=dtype, device=x.device)


def chunks(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same part of each of some images (N, C, H, W), as views (N, numbers), one by one.

    Noise that is drawn piece by piece is that of the whole: torch draws 16 numbers at a time, and
    the last piece is no shorter than the others. Elsewhere than on a processor all is one piece.
    """
    flat = [image.view(len(image), -1) for image in images]
    length = flat[0].shape[1]
    count = max(1, length // CHUNK) if images[0].device.type == "cpu" else 1
    for number in range(count):
        stop = length if number == count - 1 else (number + 1) * CHUNK
        yield tuple(one[:, number * CHUNK : stop] for one in flat)


def row_chunks(length: int, across: int, most: int = CHUNK) -> Iterator[slice]:
    """Slices of an axis of `length`, each of about `most` numbers where others take `across`."""
    step = max(1, most // across)
    for first in range(0, length, step):
        yield slice(first, min(first + step, length))
