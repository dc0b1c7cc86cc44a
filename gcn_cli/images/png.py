"""PNG files written row by row: pictures for which there is no room in memory twice.

Pillow and libvips want a picture whole, in their own memory. The format (ISO/IEC 15948) is rows of
big-endian numbers, each less the row above ("up"), through zlib, in chunks with a checksum.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from gcn_cli.images.reading import WIDE

KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # bands: grey, grey and alpha, colours, colours and alpha
ROWS = 64  # that are encoded at a time
UP = 2  # the filter


def write_png(file: BinaryIO, pixels: Tensor, depth: int, profile: bytes | None) -> None:
    """(C, H, W) in 0..255, rounded and clipped to `depth` bits (8 or 16), 1 to 4 bands."""
    bands, height, width = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, KINDS[bands], 0, 0, 0))
    if profile is not None:
        _chunk(file, b"iCCP", b"profile\0\0" + zlib.compress(profile))
    packer = zlib.compressobj(4)
    for raw in _filtered(pixels, depth):
        packed = packer.compress(raw)
        if packed:
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(pixels: Tensor, depth: int) -> Iterator[bytes]:
    """Some rows at a time, every one with its filter's number and less the one above."""
    scale, kind = (WIDE, ">u2") if depth == 16 else (1.0, "u1")
    width = pixels.shape[0] * pixels.shape[2] * depth // 8
    above = np.zeros((1, width), dtype=np.uint8)
    for first in range(0, pixels.shape[1], ROWS):
        part = pixels[:, first : first + ROWS].to("cpu", torch.float64) * scale
        whole = part.round().clamp(0, 2**depth - 1).permute(1, 2, 0).contiguous()
        rows = whole.numpy().astype(kind).view(np.uint8).reshape(len(whole), width)
        made = np.full((len(rows), width + 1), UP, dtype=np.uint8)
        made[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        yield made.tobytes()
