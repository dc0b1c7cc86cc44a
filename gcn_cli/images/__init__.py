"""Pictures: reading and writing files, their bands, and the scale between pixels and a model.

Pixels are float32 (C, H, W) in 0..255, whatever the depth of a file; NaN where nothing is known.
"""

from gcn_cli.images.bands import BANDS, Map, Raster, split
from gcn_cli.images.reading import SUFFIXES, expand_sources, open_picture
from gcn_cli.images.scale import PixelScale
from gcn_cli.images.writing import (
    check_format,
    grid,
    names_file,
    to_picture,
    write,
    write_bytes,
)

__all__ = [
    "BANDS",
    "SUFFIXES",
    "Map",
    "PixelScale",
    "Raster",
    "check_format",
    "expand_sources",
    "grid",
    "names_file",
    "open_picture",
    "split",
    "to_picture",
    "write",
    "write_bytes",
]
