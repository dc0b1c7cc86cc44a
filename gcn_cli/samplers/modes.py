"""Modes of a generative ConvNet: descent by auto-encoding that never raises the energy.

The auto-encoder's change sigma^2 B(I) - I is -sigma^2 dU/dI, so a share `rate` of it is a step of
steepest descent. Within a cell U is |I - sigma^2 B|^2 / (2 sigma^2) and a constant: a whole step
ends at the cell's mean, a mode if it lies in the cell. Where it does not, a whole step may climb on
the other side (of deep models it soon does), so the rate is halved until the energy falls enough.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.models.energy import GenerativeModel, reconstruct, squared_norm
from gcn_cli.samplers.langevin import mode_residual

ENOUGH = 1e-4  # of what the slope promises, that a step must lower the energy by (Armijo's rule)
SMALLEST = 2.0**-20  # rate: where none above lowers the energy, the image is caught at a kink
CONVERGED = 1e-6  # residual |I - sigma^2 B(I)| / |I|
PROBE = 0.01  # of the auto-encoder's change: gates that it flips are at a kink


@dataclass(frozen=True)
class ModeDescent:
    """Where a descent ended, and how it went."""

    images: Tensor  # (N, C, H, W)
    falls: Tensor  # by how much the energy fell in all, (N,), never negative
    steps: int  # that were made
    caught: Tensor  # (N,) bool: no step lowers the energy, though the residual is not 0
    at_kink: Tensor  # (N,): share of gates that a small step along the change flips


@torch.no_grad()
def descend_to_modes(density: GenerativeModel, x: Tensor, steps: int) -> ModeDescent:
    """At most `steps` steps from images (N, C, H, W), each with the longest of the halved rates."""
    rate = x.new_ones(len(x))
    fallen = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    caught = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    taken = 0
    while taken < steps:
        made = reconstruct(density, x)
        change = made - x
        moving = ~caught & (mode_residual(x, made) > CONVERGED)
        if not bool(moving.any()):
            break
        taken += 1
        here = density.energy_map(x).double()
        promised = squared_norm(change).double() / density.sigma**2
        searching, best = moving.clone(), x
        while bool(searching.any()):
            trial = x + rate[:, None, None, None] * change
            # Pixel by pixel, so that large energies do not hide small differences.
            fall = (here - density.energy_map(trial).double()).sum(dim=(1, 2))
            good = searching & (fall > ENOUGH * rate * promised)
            best = torch.where(good[:, None, None, None], trial, best)
            fallen += torch.where(good, fall, 0.0)
            searching &= ~good
            rate = torch.where(searching, rate / 2, rate)
            lost = searching & (rate < SMALLEST)
            caught |= lost
            searching &= ~lost
        x = best
        rate = (2 * rate).clamp_max(1.0)
    return ModeDescent(x, fallen, taken, caught, kink_share(density, x))


@torch.no_grad()
def kink_share(density: GenerativeModel, x: Tensor) -> Tensor:
    """Share of all gates that a small part of the auto-encoder's change flips, (N,) in 0..1."""
    moved = x + PROBE * (reconstruct(density, x) - x)
    pairs = zip(density.activation_pattern(x), density.activation_pattern(moved), strict=True)
    flips = [(a.float() - b.float()).abs().flatten(1) for a, b in pairs]
    return torch.cat(flips, dim=1).mean(dim=1)
