"""The Gaussian pieces: p on the cells of images with one activation pattern.

On a cell f(I) = alpha + <I, B>, so that p is N(sigma^2 B, sigma^2 Id) cut to the cell: sigma^2 B,
the reconstruction of the auto-encoder, is the mean of the piece (theorem 2).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from gcn_cli.model.energy import log_reference, squared_norm
from gcn_cli.model.paper.network import GenerativeConvNet


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
