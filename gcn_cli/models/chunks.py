"""Memory for large images: where tensors are allocated, and work on them in chunks.

An image of 8192x8192 takes 0.8 GB in float32. Work done in chunks needs no second copy of it, and
an `Allocator` may return tensors that are memory-mapped files.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Allocator = Callable[[Sequence[int], torch.dtype], Tensor]
"""(shape, dtype) -> a contiguous, uninitialized tensor."""

CHUNK = 2**22  # values per chunk and image; a multiple of 16, see `chunks`


def allocator_like(x: Tensor) -> Allocator:
    """Allocates memory on the device of x."""
    return lambda shape, dtype: torch.empty(tuple(shape), dtype=dtype, device=x.device)


def chunks(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views (N, values) of the same chunk of each of several contiguous tensors (N, C, H, W).

    On a CPU, noise drawn chunk by chunk equals noise drawn at once: torch draws 16 values at a
    time, so chunks are multiples of 16 and the last chunk takes the rest. On other devices
    everything is one chunk.
    """
    flat = [image.view(len(image), -1) for image in images]
    length = flat[0].shape[1]
    count = max(1, length // CHUNK) if images[0].device.type == "cpu" else 1
    for index in range(count):
        stop = length if index == count - 1 else (index + 1) * CHUNK
        yield tuple(values[:, index * CHUNK : stop] for values in flat)


def row_chunks(rows: int, row_size: int) -> Iterator[slice]:
    """Slices of `rows` rows of `row_size` values, each of about CHUNK values."""
    step = max(1, CHUNK // row_size)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))
