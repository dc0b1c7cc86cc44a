"""Coarser ladders: what is large is settled on the picture at 1/2, 1/4 ... of its resolution.

Filters see no further than their receptive field, and a crop shows few of the largest things whole.
But where noise is strong enough to hide all details, these need not be looked at. So above a level,
the handover, pixels are taken four by four. With P the mean of every block of 2x2 pixels, P+ = 4 P'
laying a value on its block, and J = g P I of unit variance, whose noise is t = g s / 2,

    U_s(I) = U_t(J) + <I', (C + s^2 Id)^-1 I'> / 2,    I' = I - P+ P I,

U_t the energy of another generative ConvNet, the ladder of J, and the details I' Gaussian with the
data's spectrum. By Tweedie's identity, with K_s Wiener's filter and D_t that of the coarser ladder,

    D_s(I) = P+ D_t(J) / g + (Id - P+ P) K_s I'.

A coarser ladder may have another above it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.energy import GenerativeModel, energy, spread, squared_norm
from gcn_cli.model.ladder.spectrum import Spectrum
from gcn_cli.model.rooms import Room
from gcn_cli.model.spec import Lattice


def pooled(x: Tensor) -> Tensor:
    """P: the mean of every block of 2x2 pixels, (N, C, H, W) -> (N, C, H / 2, W / 2).

    A torus with an odd side goes on at its other side to the end of the last block.
    """
    beyond = (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)
    return F.avg_pool2d(F.pad(x, beyond, mode="circular") if any(beyond) else x, 2)


def add_laid_(x: Tensor, coarse: Tensor, times: float = 1.0) -> Tensor:
    """x (N, C, H, W) and P+ of a coarse image `times` so much, in place."""
    height, width = x.shape[-2:]
    whole = x[..., : height // 2 * 2, : width // 2 * 2]
    shape = (*x.shape[:-2], height // 2, 2, width // 2, 2)
    blocks = whole.view(shape)
    blocks.add_(coarse[..., : height // 2, None, : width // 2, None], alpha=times)
    if width % 2:
        x[..., :, -1].add_(coarse[..., -1].repeat_interleave(2, -1)[..., :height], alpha=times)
    if height % 2:
        last = coarse[..., -1, :].repeat_interleave(2, -1)[..., : width // 2 * 2]
        x[..., -1, : width // 2 * 2].add_(last, alpha=times)
    return x


def take_details_(x: Tensor) -> Tensor:
    """I' = I - P+ P I, in place."""
    return add_laid_(x, pooled(x), -1.0)


def composed_mean(
    spectrum: Spectrum,
    x: Tensor,
    noise: float,
    coarse: Tensor,
    contrast: float,
    lattice: Lattice,
    room: Room | None = None,
) -> Tensor:
    """D_s of images (N, C, H, W) at a level above the handover, from D_t of `coarse` J."""
    details = take_details_(x.clone() if room is None else room(x.shape, x.dtype).copy_(x))
    made = spectrum.mean(details, x.new_full((len(x),), noise), lattice, room)
    return add_laid_(take_details_(made), coarse, 1 / contrast)


@dataclass(frozen=True)
class CoarseLevel:
    """p_s above the handover, with the names of the paper's model: U_t(J) and the details'."""

    above: GenerativeModel  # of J, at noise g s / 2
    spectrum: Spectrum  # of the data at full resolution
    contrast: float  # g
    noise: float  # s, in deviations of the data
    lattice: Lattice

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,)."""
        details = self._details(x).sum(dim=(1, 2, 3))
        return squared_norm(x) / (2 * self.sigma**2) - energy(self.above, self._seen(x)) - details

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        seen, details = self._seen(x), take_details_(x.clone())
        slope = details / self.sigma**2 - self.spectrum.slope(details, self._noise(x), self.lattice)
        slope = take_details_(slope)
        towards = seen / self.above.sigma**2 - self.above.basis(seen)
        return x / self.sigma**2 - add_laid_(slope, towards, self.contrast / 4)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses to J, layer by layer, differentiable: (N, filters, h, w)."""
        return self.above.responses(self._seen(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, C, H, W) -> (N, H, W), whose sum is U."""
        coarse = spread(self.above.energy_map(self._seen(x)), (x.shape[-2], x.shape[-1]))
        return coarse + self._details(x).sum(dim=1)

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates, layer by layer, in 0..1: (N, filters, h, w)."""
        return self.above.activation_pattern(self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        """J."""
        return self.contrast * pooled(x)

    def _details(self, x: Tensor) -> Tensor:
        """What every value counts in the energy of the details."""
        own = x - F.interpolate(pooled(x), scale_factor=2.0, mode="nearest")
        gaussian = self.spectrum.score_map(own, self._noise(x), self.lattice)
        return own.square() / (2 * self.sigma**2) - gaussian

    def _noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self.noise)
