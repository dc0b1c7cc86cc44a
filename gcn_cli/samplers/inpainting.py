"""Inpainting: samples with some pixels known, for repair, extension and seamless borders.

A chain at noise level s is a clean image plus noise of deviation s. Known pixels are their own
posterior mean at every level, so the denoiser given the known pixels is

    D(I | known) = D(I) at missing pixels, the known image elsewhere.

Under annealed sampling, known pixels are then at every level what they are plus noise of that
level, from the chain's own draws, so the net sees known and missing pixels equally noisy. This is
exact for the known pixels. The missing pixels are sampled as if each step knew all later values of
the known ones, which it does not: resampling steps (`anneal`) let both parts adapt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.models.energy import Denoiser


@dataclass(frozen=True)
class KnownPixels:
    """An image `known` (1, C, H, W), known except where `missing` (H, W) is True."""

    known: Tensor
    missing: Tensor

    def constrain(self, denoise: Denoiser) -> Denoiser:
        """D given the known pixels."""

        def constrained(x: Tensor, noise: float) -> Tensor:
            return torch.where(self.missing, denoise(x, noise), self.known)

        return constrained
