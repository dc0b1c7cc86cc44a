"""Samples of which a part is given: repair, extension, seamless borders.

A chain at level s is a clean image plus noise of deviation s. Where the clean image is known it is
the mean of itself, whatever the level, so the mean of the clean image given the noisy one and what
is known is

    D(I | known) = D(I) where the image is made anew, the known image elsewhere.

Run through the same annealed steps, the given part is at every level what it is plus noise of that
level, from the chain's own draws; the net sees both parts noisy alike. That is exact for the given
part. The rest is drawn as if each step saw all that is to come of the given part, which it does
not: `anneal` with several rounds a level lets the two parts settle.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.samplers.annealed import Denoiser


@dataclass(frozen=True)
class KnownPixels:
    """What is known of an image: `known` (1, C, H, W), but where `anew` (H, W) is True."""

    known: Tensor
    anew: Tensor

    def holding(self, denoise: Denoiser) -> Denoiser:
        """D of images of which this is known."""

        def conditional(x: Tensor, noise: float) -> Tensor:
            return torch.where(self.anew, denoise(x, noise), self.known)

        return conditional
