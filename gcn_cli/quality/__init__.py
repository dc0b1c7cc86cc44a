"""Measures of pictures that need no learned weights. Pixels are (C, H, W) in 0..255."""

from gcn_cli.quality.pictures import contrast, psnr, rms_error, seams, unexplained_variance
from gcn_cli.quality.texture import MEANINGS, SMALLEST, Yardstick

__all__ = [
    "MEANINGS",
    "SMALLEST",
    "Yardstick",
    "contrast",
    "psnr",
    "rms_error",
    "seams",
    "unexplained_variance",
]
