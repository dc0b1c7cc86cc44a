"""Images: reading and writing files, color modes, and the scale between pixels and a model.

Pixels are float32 (C, H, W) in 0..255, whatever the bit depth of a file.
"""

from gcn_cli.images.image import CHANNELS_OF_MODE, Image, TextureMap, split_maps, to_pillow
from gcn_cli.images.normalization import Normalization
from gcn_cli.images.provenance import SourceFile, read_record
from gcn_cli.images.reading import expand_each, expand_sources, read_image
from gcn_cli.images.writing import (
    FORMATS,
    check_format,
    grid,
    is_image_file,
    losses,
    own_bit_depth,
    sheet_map,
    takes_quality,
    write,
    write_animation,
    write_bytes,
)

__all__ = [
    "CHANNELS_OF_MODE",
    "FORMATS",
    "Image",
    "Normalization",
    "SourceFile",
    "TextureMap",
    "check_format",
    "expand_each",
    "expand_sources",
    "grid",
    "is_image_file",
    "losses",
    "own_bit_depth",
    "read_image",
    "read_record",
    "sheet_map",
    "split_maps",
    "takes_quality",
    "to_pillow",
    "write",
    "write_animation",
    "write_bytes",
]
