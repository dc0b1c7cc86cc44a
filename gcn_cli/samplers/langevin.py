"""Langevin dynamics as published: no Metropolis step, no clipping within the chain.

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
    """One step with eps = step_size; without noise a step of gradient descent."""
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
    for step in range(1, steps + 1):
        step_noise = None if noise is None else noise(x.shape)
        x = langevin_step(x, gradient, step_size, step_noise)
        if callback is not None:
            callback(step, x)
    return x


def mode_residual(x: Tensor, reconstruction: Tensor) -> Tensor:
    """|I - sigma^2 B(I)| / |I| of each image, 0 at a mode: (N, C, H, W) twice -> (N,)."""
    scale = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    residual: Tensor = (x - reconstruction).flatten(1).norm(dim=1) / scale
    return residual
