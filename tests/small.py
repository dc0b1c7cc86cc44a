"""An image and settings with which trainings take a moment."""

from typing import Any

import torch

SMALL_TEXTURE: dict[str, Any] = {
    "layers": "4@5,4@3/2",
    "crop": 16,
    "margin": 2,
    "device": "cpu",
    "precision": "float32",
    "preview_every": 0,
}
SMALL_PUBLISHED: dict[str, Any] = {
    "learner": "mle",
    "size": 24,
    "layers": "4@5/2+2",
    "device": "cpu",
    "preview_every": 0,
}


def small_image() -> torch.Tensor:
    """Noise, (3, 32, 40)."""
    return 255 * torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0))


def smooth_image(side: int = 64) -> torch.Tensor:
    """An image (3, side, side) of variance 1 in model units, most of it in large structures."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, side // 8, side // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0]
    image = smooth + 0.2 * torch.randn(smooth.shape, generator=generator)
    return (image - image.mean()) / image.std()
