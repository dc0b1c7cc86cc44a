"""Measures of pictures that need no learned weights. Pixels are (C, H, W) in 0..255."""

from gcn_cli.metrics.pixels import contrast, psnr, rms_error, seams, unexplained_variance
from gcn_cli.metrics.texture import MEANINGS, SMALLEST, TextureMetrics

__all__ = [
    "MEANINGS",
    "SMALLEST",
    "TextureMetrics",
    "contrast",
    "psnr",
    "rms_error",
    "seams",
    "unexplained_variance",
]
