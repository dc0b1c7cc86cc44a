"""Modes of a generative ConvNet: gradient descent by auto-encoding that never raises the energy.

The change sigma^2 B(I) - I of the auto-encoder is -sigma^2 dU/dI, so `rate` times it is a step of
steepest descent. For the published model, U within a cell is |I - sigma^2 B|^2 / (2 sigma^2) plus a
constant: rate 1 moves to the mean of the cell, which is a mode if it lies in the cell. If it does
not, rate 1 may raise the energy, for deep models often; so the rate is halved until the energy
falls enough.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.models.energy import GenerativeModel, reconstruct, squared_norm
from gcn_cli.samplers.langevin import mode_residual

ARMIJO = 1e-4  # share of the decrease promised by the gradient that a step must reach
SMALLEST_RATE = 2.0**-20  # below it, the image is stuck at a kink of the energy
CONVERGED = 1e-6  # residual |I - sigma^2 B(I)| / |I|
PROBE = 0.01  # share of the auto-encoder's change; gates that it flips are at a kink


@dataclass(frozen=True)
class ModeDescent:
    """Where a descent ended, and how it went."""

    images: Tensor  # (N, C, H, W)
    energy_decrease: Tensor  # in all, (N,), never negative
    steps: int  # taken
    stuck: Tensor  # (N,) bool: no step lowers the energy, although the residual is not 0
    kink_share: Tensor  # (N,): share of gates that a small step along the change flips


@torch.no_grad()
def descend_to_modes(model: GenerativeModel, x: Tensor, steps: int) -> ModeDescent:
    """At most `steps` steps from images (N, C, H, W), with a backtracking line search for each."""
    rate = x.new_ones(len(x))
    decrease = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    stuck = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    taken = 0
    while taken < steps:
        reconstruction = reconstruct(model, x)
        change = reconstruction - x
        searching = ~stuck & (mode_residual(x, reconstruction) > CONVERGED)
        if not bool(searching.any()):
            break
        taken += 1
        energy_map = model.energy_map(x).double()
        promised = squared_norm(change).double() / model.sigma**2
        best = x
        while bool(searching.any()):
            trial = x + rate[:, None, None, None] * change
            # Pixel by pixel, so that large energies do not hide small differences.
            fall = (energy_map - model.energy_map(trial).double()).sum(dim=(1, 2))
            accepted = searching & (fall > ARMIJO * rate * promised)
            best = torch.where(accepted[:, None, None, None], trial, best)
            decrease += torch.where(accepted, fall, 0.0)
            searching &= ~accepted
            rate = torch.where(searching, rate / 2, rate)
            failed = searching & (rate < SMALLEST_RATE)
            stuck |= failed
            searching &= ~failed
        x = best
        rate = (2 * rate).clamp_max(1.0)
    return ModeDescent(x, decrease, taken, stuck, _kink_share(model, x))


def _kink_share(model: GenerativeModel, x: Tensor) -> Tensor:
    """Share of all gates that a small part of the auto-encoder's change flips, (N,) in 0..1."""
    moved = x + PROBE * (reconstruct(model, x) - x)
    pairs = zip(model.activation_pattern(x), model.activation_pattern(moved), strict=True)
    flips = [(a.float() - b.float()).abs().flatten(1) for a, b in pairs]
    return torch.cat(flips, dim=1).mean(dim=1)
