"""Image files as tests compare them."""

from pathlib import Path

from torch import Tensor

from gcn_cli import images


def read(path: Path | str, mode: str = "RGB") -> Tensor:
    """Pixels (C, H, W) in 0..255."""
    return images.read_image(str(path)).to_mode(mode)
