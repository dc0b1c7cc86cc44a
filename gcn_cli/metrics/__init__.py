"""Metrics of images and textures without learned networks. Pixels are (C, H, W) in 0..255."""

from gcn_cli.metrics.texture import (
    DESCRIPTIONS,
    SMALLEST_SIDE,
    TextureMetrics,
    contrast,
    psnr,
    rms_error,
    seams,
    unexplained_variance,
)

__all__ = [
    "DESCRIPTIONS",
    "SMALLEST_SIDE",
    "TextureMetrics",
    "contrast",
    "psnr",
    "rms_error",
    "seams",
    "unexplained_variance",
]
