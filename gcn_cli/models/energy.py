"""Energy, gradient and reconstruction of a generative ConvNet. The sign is fixed here.

    U(I) = |I|^2 / (2 sigma^2) - f(I),    p(I; w) proportional to exp(-U(I)).

sigma^2 B with B = df/dI is the reconstruction of the auto-encoder (theorem 2, `convnet.py`).

Units: the paper's network sees gray levels minus a mean color, so sigma and the Langevin step size
are in gray levels (sigma = 1 of 255). A noise-conditional network sees data scaled to deviation 1,
so noise levels s are in deviations of the data, and its sigma is that of noisy data,
sqrt(s^2 + 1). `images.Normalization` holds the scale of either.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
"""U: images (N, C, H, W) -> (N,)."""

Gradient = Callable[[Tensor], Tensor]
"""dU/dI: (N, C, H, W) -> (N, C, H, W)."""

Denoiser = Callable[[Tensor, float], Tensor]
"""D: noisy images (N, C, H, W), noise deviation -> posterior mean of the clean images."""


class GenerativeModel(Protocol):
    """A generative ConvNet p(I; w) = exp(f(I)) q(I) / Z with q = N(0, sigma^2 Id)."""

    @property
    def sigma(self) -> float:
        """Deviation of the reference q."""
        ...

    def score(self, x: Tensor) -> Tensor:
        """f(I): (N, C, H, W) -> (N,). Differentiable in I."""
        ...

    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        ...

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """Gates of each layer, bool or 0..1: (N, filters, h, w)."""
        ...

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses of each layer: (N, filters, h, w). Differentiable in I."""
        ...

    def energy_map(self, x: Tensor) -> Tensor:
        """Contribution of each pixel to U(I): (N, C, H, W) -> (N, H, W), with sum U."""
        ...


def spread_over_pixels(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Distribute a coarse map (N, h, w) over the pixels of `size` (H, W); the sum stays."""
    fine = torch.nn.functional.interpolate(coarse[:, None], size=size, mode="nearest")[:, 0]
    share = coarse[0].numel() / fine[0].numel()
    remainder = coarse.sum(dim=(1, 2)) - share * fine.sum(dim=(1, 2))
    return share * fine + (remainder / fine[0].numel())[:, None, None]


def squared_norm(x: Tensor) -> Tensor:
    """|I|^2 of each image: (N, C, H, W) -> (N,)."""
    return x.square().sum(dim=(1, 2, 3))


def energy(model: GenerativeModel, x: Tensor) -> Tensor:
    """U(I): (N, C, H, W) -> (N,)."""
    return squared_norm(x) / (2 * model.sigma**2) - model.score(x)


def log_reference(x: Tensor, sigma: float) -> Tensor:
    """log q(I), normalized, q = N(0, sigma^2 Id): (N, C, H, W) -> (N,)."""
    pixels = x[0].numel()
    return -squared_norm(x) / (2 * sigma**2) - pixels / 2 * math.log(2 * math.pi * sigma**2)


def reconstruct(model: GenerativeModel, x: Tensor) -> Tensor:
    """sigma^2 B(I), the reconstruction of the auto-encoder: (N, C, H, W) -> (N, C, H, W)."""
    return model.sigma**2 * model.basis(x)


def energy_gradient(sigma: float, basis: Gradient) -> Gradient:
    """dU/dI = I / sigma^2 - B(I), from any function that computes B."""

    def gradient(x: Tensor) -> Tensor:
        return x / sigma**2 - basis(x)

    return gradient


def autograd_gradient(energy: Energy) -> Gradient:
    """dU/dI of any energy by automatic differentiation; parameters get no gradient."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (input_gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf)
        return input_gradient

    return gradient
