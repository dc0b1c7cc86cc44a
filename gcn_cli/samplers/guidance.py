"""Denoisers that are guided by an image or a second model, or constrained by known pixels.

All change the posterior mean D, and with it grad log p_s(I) = (D(I) - I) / s^2.

Inpainting (repair, extension, seamless borders): a chain at noise level s is a clean image plus
noise of deviation s. The posterior mean of a known pixel is its value at every level, so

    D(I | known) = D(I) at missing pixels, the known image elsewhere.

Under annealed sampling the chain of a known pixel is its value plus noise of the current level,
from the draws of the chain, so the net sees known and missing pixels equally noisy. This is
exact for the known pixels. The missing pixels are sampled as if each step knew all later values of
the known ones, which it does not: resampling steps (`anneal`) let both parts adapt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.energy import Denoiser
from gcn_cli.models.gaussian import low_pass

BLUR = 12.0  # pixels: deviation of the Gaussian that leaves the large shapes of a guide
HALF_STRENGTH_LEVEL = 0.3  # noise level at which a guide counts half; the model decides details


@dataclass(frozen=True)
class ImageGuide:
    """A guide image (1, K, H, W) with a strength from 0, not at all, to 1, as closely as possible.

    Low frequencies of the first K channels of D are drawn to those of the guide,

        D + w(s) G (image - D),    w(s) = strength s^2 / (s^2 + HALF_STRENGTH_LEVEL^2),

    with G a Gaussian filter of BLUR pixels on the torus. At low levels the model decides alone.
    """

    image: Tensor
    strength: float

    def wrap(self, denoise: Denoiser) -> Denoiser:
        """D drawn to the guide."""

        def guided(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            weight = self.strength * noise**2 / (noise**2 + HALF_STRENGTH_LEVEL**2)
            channels = self.image.shape[1]
            first, others = mean[:, :channels], mean[:, channels:]
            return torch.cat([first + weight * low_pass(self.image - first, BLUR), others], dim=1)

        return guided


@dataclass(frozen=True)
class ModelBlend:
    """Blends in a second model with weights `share` (H, W) in 0..1.

    An image x of the first model is factor x + offset for the second, offset (C, 1, 1), and its
    noise is `factor` times as strong. grad log p_s of both are mixed at the same noise level of the
    same image, so each model sees the other's part and the transition is natural to both.
    """

    other: Denoiser
    share: Tensor
    factor: float
    offset: Tensor

    def wrap(self, denoise: Denoiser) -> Denoiser:
        """D of both models, in the units of the first."""

        def blended(x: Tensor, noise: float) -> Tensor:
            mean = self.other(self.factor * x + self.offset, self.factor * noise)
            return torch.lerp(denoise(x, noise), (mean - self.offset) / self.factor, self.share)

        return blended


@dataclass(frozen=True)
class KnownPixels:
    """An image `known` (1, C, H, W), known except where `missing` (H, W) is True."""

    known: Tensor
    missing: Tensor

    def place(self, x: Tensor, noise: Tensor) -> Tensor:
        """Chains (N, C, H, W) with the known pixels, to which noise is added."""
        return torch.where(self.missing, x, self.known + noise)

    def constrain(self, denoise: Denoiser) -> Denoiser:
        """D given the known pixels."""

        def constrained(x: Tensor, noise: float) -> Tensor:
            return torch.where(self.missing, denoise(x, noise), self.known)

        return constrained


@dataclass(frozen=True)
class KnownMeans:
    """An image (1, C, h, w): the means of blocks of factor x factor pixels of a larger one."""

    means: Tensor
    factor: int

    @property
    def repeated(self) -> Tensor:
        """The means at the size of the larger image, (1, C, factor h, factor w)."""
        return F.interpolate(self.means, scale_factor=self.factor, mode="nearest")

    def place(self, x: Tensor, noise: Tensor) -> Tensor:
        """Chains (N, C, H, W) that start from the means have them already."""
        del noise
        return x

    def constrain(self, denoise: Denoiser) -> Denoiser:
        """D given the means: the error of its own is subtracted from every pixel of a block."""

        def constrained(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            error = self.means - F.avg_pool2d(mean, self.factor)
            return mean + F.interpolate(error, scale_factor=self.factor, mode="nearest")

        return constrained
