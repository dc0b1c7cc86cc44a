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


def relief(side: int = 48, *, y_up: bool = True, angle: float = 0.0) -> torch.Tensor:
    """A smooth height that tiles and its normal map, (4, side, side) in 0..255."""
    waves = torch.arange(side) * 2 * torch.pi / side
    down, across = waves[:, None], waves
    heights = (2 * down).sin() * (3 * across + angle).cos() + (down + across).sin() + down.cos()
    return surface(heights, y_up=y_up)


def surface(heights: torch.Tensor, *, y_up: bool = True) -> torch.Tensor:
    """Heights (H, W) that tile, and their normal map in 0..255: (4, H, W)."""
    right, down = ((heights.roll(-1, axis) - heights.roll(1, axis)) / 2 for axis in (1, 0))
    vectors = torch.stack([-right, down if y_up else -down, torch.ones_like(heights)])
    normals = torch.nn.functional.normalize(vectors, dim=0)
    return torch.stack([heights, *(127.5 * (normals + 1))])
