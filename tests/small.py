"""A picture and settings with which trainings take a moment."""

from typing import Any

import torch

LADDER: dict[str, Any] = {
    "layers": "4@5,4@3/2",
    "crop": 16,
    "margin": 2,
    "device": "cpu",
    "precision": "float32",
    "preview_every": 0,
}
PAPER: dict[str, Any] = {
    "learner": "mle",
    "size": 24,
    "layers": "4@5/2+2",
    "device": "cpu",
    "preview_every": 0,
}


def picture() -> torch.Tensor:
    """Of 40x32 pixels."""
    return 255 * torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0))
