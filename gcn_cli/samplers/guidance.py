"""What bends a chain: a guide whose large shapes are followed, a second model in places.

Both act on the posterior mean D, that is on the score: D(I) = I + s^2 grad log p_s(I).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.samplers.annealed import Denoiser

LARGE = 12.0  # pixels: deviation of the Gaussian that leaves large shapes
SETTLED_LEVEL = 0.3  # noise deviation from which on down details are left to the model


@dataclass(frozen=True)
class ImageGuide:
    """Shapes (1, C, H, W) to be followed; strength 0 not at all, 1 as closely as can be.

    Low waves of D are drawn to those of the shapes,

        D + w(s) G (shapes - D),    w(s) = strength s^2 / (s^2 + SETTLED_LEVEL^2),

    G a Gaussian of LARGE pixels on the torus: at low levels the model decides alone.
    """

    shapes: Tensor
    strength: float

    def drawing(self, denoise: Denoiser) -> Denoiser:
        """D drawn to the shapes."""

        def guided(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            weight = self.strength * noise**2 / (noise**2 + SETTLED_LEVEL**2)
            return mean + weight * large_shapes(self.shapes - mean)

        return guided


@dataclass(frozen=True)
class ModelBlend:
    """A second model where `share` (H, W) in 0..1 is high; its D in the units of the first.

    Its images are factor x + offset, offset (C, 1, 1), so that its noise is `factor` times as
    strong. The scores are mixed at one level of noise of one canvas: each model sees what the
    other makes, and the border is natural to both.
    """

    other: Denoiser
    share: Tensor
    factor: float
    offset: Tensor

    def mixing(self, denoise: Denoiser) -> Denoiser:
        """D of both, each in its places."""

        def mixed(x: Tensor, noise: float) -> Tensor:
            there = self.other(self.factor * x + self.offset, self.factor * noise)
            return torch.lerp(denoise(x, noise), (there - self.offset) / self.factor, self.share)

        return mixed


def large_shapes(x: Tensor, width: float = LARGE) -> Tensor:
    """(N, C, H, W) blurred on the torus by a Gaussian of `width` pixels."""
    height, across = x.shape[-2:]
    up = torch.fft.fftfreq(height, device=x.device)[:, None]
    along = torch.fft.rfftfreq(across, device=x.device)
    passed = torch.exp(-2 * (torch.pi * width) ** 2 * (up.square() + along.square()))
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * passed, s=(height, across))
    return blurred
