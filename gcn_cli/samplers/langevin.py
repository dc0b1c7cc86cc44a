"""Langevin dynamics as published: no Metropolis step, no clipping inside the chain.

I <- I - (eps^2 / 2) dU/dI + eps Z,   dU/dI = I / sigma^2 - B(I),   Z ~ N(0, Id)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gcn_cli.models.energy import Gradient
from gcn_cli.samplers.rng import NoiseSource

Callback = Callable[[int, Tensor], None]
"""Called after every step with its number, from 1, and the images (N, C, H, W)."""


def langevin_step(x: Tensor, gradient: Gradient, step_size: float, noise: Tensor | None) -> Tensor:
    """One step of size eps = step_size; noise None gives plain descent towards a mode."""
    moved = torch.sub(x, gradient(x), alpha=step_size**2 / 2)
    return moved if noise is None else moved.add_(noise, alpha=step_size)


@torch.no_grad()
def run_chain(
    x: Tensor,
    gradient: Gradient,
    *,
    steps: int,
    step_size: float,
    noise: NoiseSource | None,
    callback: Callback | None = None,
) -> Tensor:
    """`steps` Langevin steps from x, (N, C, H, W) -> (N, C, H, W); x itself is not changed."""
    for number in range(1, steps + 1):
        drawn = None if noise is None else noise(x.shape)
        x = langevin_step(x, gradient, step_size, drawn)
        if callback is not None:
            callback(number, x)
    return x


def mode_residual(x: Tensor, reconstruction: Tensor) -> Tensor:
    """|I - sigma^2 B(I)| / |I| an image, 0 at a Hopfield mode: (N, C, H, W) twice -> (N,)."""
    scale = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    residual: Tensor = (x - reconstruction).flatten(1).norm(dim=1) / scale
    return residual
