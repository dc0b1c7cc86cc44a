"""How a picture is gone through: at once, block by block, with its state in memory or on disk."""

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.learning.family import Family
from gcn_cli.model.rooms import Room
from gcn_cli.runtime import free_memory
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.request import Request

log = logging.getLogger(__name__)

Tile = int | Literal["auto", "off"]
"""Side of the blocks that a picture is made in; auto: where memory does not hold it at once."""

BLOCKS = (1024, 512, 256)  # pixels; larger ones are no faster, their maps outgrow the caches
USED = 0.8  # share of the free memory that is planned for
GIB = 2**30


def planned(
    family: Family,
    request: Request,
    size: tuple[int, int],
    dtype: torch.dtype,
    tile: Tile,
    *,
    beside: int = 0,
) -> Canvas:
    """The canvas of a picture of `size` (H, W); what was chosen is said.

    `beside` are bytes that are needed for other things. Raises InputError where neither memory nor
    disk holds the picture, or the model cannot be evaluated in blocks.
    """
    device = family.net.weights[0].device
    free = free_memory(device)
    needed = family.state_bytes(size) + family.evaluation_bytes(size, dtype) + beside
    at_once = free is None or needed <= USED * free
    if tile == "auto" and (at_once or family.block(request, BLOCKS[-1]) is None):
        tile = "off"
    if tile == "off":
        if free is not None and needed > free:
            raise InputError(
                f"--size {size[1]}x{size[0]}: needs some {needed / GIB:.1f} GiB of memory, "
                f"{free / GIB:.1f} GiB are free on {device}; choose a smaller size"
            )
        return Canvas(size)
    sides = [side for side in BLOCKS if side < max(size)] if tile == "auto" else [tile]
    block = None
    for side in sides or BLOCKS[-1:]:
        block = family.block(request, side)
        if block is None:
            raise InputError(f"--tile {tile}: this model, or its border, takes pictures whole")
        evaluated = family.evaluation_bytes((block[1], block[1]), dtype) + beside
        if free is None or family.state_bytes(size) + evaluated <= USED * free:
            break
    assert block is not None
    canvas = Canvas(size, block[0])
    if free is not None and family.state_bytes(size) + evaluated > USED * free:
        if device.type != "cpu":
            raise InputError(
                f"--size {size[1]}x{size[0]}: {device} has {free / GIB:.1f} GiB free, too little "
                "for the picture; choose a smaller size, or --device cpu, which can use disk"
            )
        canvas = _on_disk(canvas, family.state_bytes(size), evaluated, free)
    if block[0] != tile:
        log.info("made in %d block(s) of %d pixels (--tile)", canvas.blocks, canvas.block)
    return canvas


def _on_disk(canvas: Canvas, state: int, evaluated: int, free: int) -> Canvas:
    """With the state in files. Raises InputError where they have no room, or a block has none."""
    folder = tempfile.gettempdir()
    disk = shutil.disk_usage(folder).free
    if evaluated > USED * free or state > USED * disk:
        height, width = canvas.size
        raise InputError(
            f"--size {width}x{height}: needs {state / GIB:.1f} GiB for the picture and "
            f"{evaluated / GIB:.1f} GiB for blocks of {canvas.block}; {free / GIB:.1f} GiB of "
            f"memory and {disk / GIB:.1f} GiB of disk in {folder} are free; choose a smaller "
            "--size or --tile, or set TMPDIR to a folder with more room"
        )
    log.info("memory does not hold it: %.1f GiB are laid in files in %s", state / GIB, folder)
    return replace(canvas, room=files_in(folder))


def files_in(folder: str) -> Room:
    """Tensors in files of `folder`, mapped into memory, without a name: gone when they are."""

    def mapped(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        handle, path = tempfile.mkstemp(dir=folder, prefix="gcn-")
        try:
            os.posix_fallocate(handle, 0, prod(shape) * dtype.itemsize)
            whole = torch.from_file(path, shared=True, size=prod(shape), dtype=dtype)
        finally:
            os.close(handle)
            os.unlink(path)
        return whole.view(tuple(shape))

    return mapped
