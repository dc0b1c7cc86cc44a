"""Energy and reconstruction, of any generative ConvNet. The sign is fixed here, once.

U(I) = |I|^2 / (2 sigma^2) - f(I)   and   p(I; w) is proportional to exp(-U(I)).

sigma^2 B, with B = df/dI, is the reconstruction of the auto-encoder (`paper/pieces.py` says why).
What a unit is: the paper's network sees gray levels minus a mean color, so sigma and the Langevin
step size are in gray levels (sigma = 1 of 255). A ladder sees data scaled to a deviation of 1, so
its noise levels are in deviations of the data, and the sigma of a level is that of noisy data,
sqrt(s^2 + 1). `images.PixelScale` holds the scale of either.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> (N,)."""

Gradient = Callable[[Tensor], Tensor]
"""dU/dI: (N, C, H, W) -> (N, C, H, W)."""


class GenerativeModel(Protocol):
    """A generative ConvNet: its score f, B = df/dI, its gates, the deviation of its reference q."""

    @property
    def sigma(self) -> float: ...

    def score(self, x: Tensor) -> Tensor: ...

    def basis(self, x: Tensor) -> Tensor: ...

    def activation_pattern(self, x: Tensor) -> list[Tensor]: ...

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified filter responses, layer by layer, differentiable in x."""
        ...

    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, H, W), whose sum is U."""
        ...


def spread_over_pixels(counted: Tensor, size: tuple[int, int]) -> Tensor:
    """A coarse map (N, h, w) over the pixels of `size` (H, W); its sum stays what it is."""
    fine = torch.nn.functional.interpolate(counted[:, None], size=size, mode="nearest")[:, 0]
    share = counted[0].numel() / fine[0].numel()
    rest = counted.sum(dim=(1, 2)) - share * fine.sum(dim=(1, 2))
    return share * fine + (rest / fine[0].numel())[:, None, None]


def squared_norm(x: Tensor) -> Tensor:
    """|I|^2 an image: (N, C, H, W) -> (N,)."""
    return x.square().sum(dim=(1, 2, 3))


def energy(model: GenerativeModel, x: Tensor) -> Tensor:
    """U(I): (N, C, H, W) -> (N,)."""
    return squared_norm(x) / (2 * model.sigma**2) - model.score(x)


def log_reference(x: Tensor, sigma: float) -> Tensor:
    """log q(I), normalized, q = N(0, sigma^2 Id): (N, C, H, W) -> (N,)."""
    pixels = x[0].numel()
    return -squared_norm(x) / (2 * sigma**2) - pixels / 2 * math.log(2 * math.pi * sigma**2)


def reconstruct(model: GenerativeModel, x: Tensor) -> Tensor:
    """sigma^2 B(I), what the auto-encoder makes of I: (N, C, H, W) -> (N, C, H, W)."""
    return model.sigma**2 * model.basis(x)


def energy_gradient(sigma: float, basis: Gradient) -> Gradient:
    """dU/dI = I / sigma^2 - B(I), from any way of computing B."""

    def gradient(x: Tensor) -> Tensor:
        return x / sigma**2 - basis(x)

    return gradient


def autograd_gradient(of: Energy) -> Gradient:
    """dU/dI of any energy by automatic differentiation; parameters stay untouched."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(of(leaf).sum(), leaf)
        return slope

    return gradient
