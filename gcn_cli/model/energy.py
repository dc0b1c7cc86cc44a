"""Energy, reconstruction and the Gaussian pieces. The sign is fixed here, once.

U(I) = |I|^2 / (2 sigma^2) - f(I)   and   p(I; w) is proportional to exp(-U(I)).

On a cell (a set of images with one activation pattern) f(I) = alpha + <I, B>, so that p is
N(sigma^2 B, sigma^2 Id) cut to the cell; sigma^2 B is the reconstruction of the auto-encoder.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.model.network import GenerativeConvNet

Energy = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> (N,)."""

Gradient = Callable[[Tensor], Tensor]
"""dU/dI: (N, C, H, W) -> (N, C, H, W)."""


class GenerativeModel(Protocol):
    """What every generative ConvNet has: a score f, B = df/dI, the deviation of its reference q."""

    @property
    def sigma(self) -> float: ...

    def score(self, x: Tensor) -> Tensor: ...

    def basis(self, x: Tensor) -> Tensor: ...


def squared_norm(x: Tensor) -> Tensor:
    """|I|^2 an image: (N, C, H, W) -> (N,)."""
    return x.square().sum(dim=(1, 2, 3))


def energy(model: GenerativeModel, x: Tensor) -> Tensor:
    """U(I): (N, C, H, W) -> (N,)."""
    return squared_norm(x) / (2 * model.sigma**2) - model.score(x)


def log_reference(x: Tensor, sigma: float) -> Tensor:
    """log q(I), normalised, q = N(0, sigma^2 Id): (N, C, H, W) -> (N,)."""
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


@dataclass(frozen=True)
class GaussianPiece:
    """The density on one cell: exp(log_weight) N(mean, variance Id), cut to the cell, over Z(w).

    mean: (N, C, H, W), sigma^2 B; variance: sigma^2; log_weight: (N,), alpha + sigma^2 |B|^2 / 2.
    """

    mean: Tensor
    variance: float
    log_weight: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """log of the piece at x, inside its cell, but for log Z(w): (N, C, H, W) -> (N,)."""
        return self.log_weight + log_reference(x - self.mean, math.sqrt(self.variance))


def gaussian_piece(model: GenerativeConvNet, x: Tensor) -> GaussianPiece:
    """The Gaussian piece of p on the cell that each image of x lies in (theorem 2)."""
    gates, size = model.activation_pattern(x), (x.shape[-2], x.shape[-1])
    slope = model.top_down(gates, size)
    alpha = model.intercept(gates, size)
    variance = model.sigma**2
    return GaussianPiece(variance * slope, variance, alpha + variance * squared_norm(slope) / 2)
