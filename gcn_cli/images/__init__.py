"""Pictures: reading and writing files, their bands, and the scale between pixels and a model.

Pixels are float32 (C, H, W) in 0..255, whatever the depth of a file; NaN where nothing is known.
"""

from gcn_cli.images.image import BANDS, Image, TextureMap, split_maps
from gcn_cli.images.normalization import Normalization
from gcn_cli.images.reading import SUFFIXES, expand_sources, open_picture
from gcn_cli.images.writing import check_format, grid, names_file, to_picture, write, write_bytes

__all__ = [
    "BANDS",
    "SUFFIXES",
    "Image",
    "Normalization",
    "TextureMap",
    "check_format",
    "expand_sources",
    "grid",
    "names_file",
    "open_picture",
    "split_maps",
    "to_picture",
    "write",
    "write_bytes",
]
