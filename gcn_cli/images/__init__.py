"""Images: reading and writing files, color modes, and the scale between pixels and a model.

Pixels are float32 (C, H, W) in 0..255, whatever the bit depth of a file.
"""

from gcn_cli.images.image import CHANNELS_OF_MODE, Image, TextureMap, split_maps, to_pillow
from gcn_cli.images.normalization import Normalization
from gcn_cli.images.reading import SUFFIXES, expand_sources, read_image
from gcn_cli.images.writing import check_format, grid, is_image_file, write, write_bytes

__all__ = [
    "CHANNELS_OF_MODE",
    "SUFFIXES",
    "Image",
    "Normalization",
    "TextureMap",
    "check_format",
    "expand_sources",
    "grid",
    "is_image_file",
    "read_image",
    "split_maps",
    "to_pillow",
    "write",
    "write_bytes",
]
