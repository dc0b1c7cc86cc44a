"""A picture file as a test looks at it."""

from pathlib import Path

from torch import Tensor

from gcn_cli import images


def read(path: Path | str, bands: str = "RGB") -> Tensor:
    """(C, H, W) in 0..255."""
    return images.open_picture(str(path)).to_bands(bands)
