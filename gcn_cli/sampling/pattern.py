"""Chains that are told where a regular pattern lies: its waves are held while layout is settled.

At high levels a wave of the pattern has for its mean, given a noisy image x, what it would have if
it were drawn about the pattern m with the variance R of what differs between repetitions,

    m + K (x - m),   K = R / (R + s^2),   in place of what D says,

so that courses are straight and close on a torus however large it is. Waves of no pattern are left
to the model, and each of the pattern below the level where the noise no longer hides its R: there
the model sees, and decides, how one repetition differs from the next. Long waves differ most; what
lies between two courses is handed to the model long before their edges are.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.model.pattern import Pattern, basis
from gcn_cli.sampling.annealed import Denoiser

HIDDEN = 1.4  # times the deviation of what differs between repetitions: noise that hides it
HIDDEN_ALONE = 2.8  # the same of one wave, whose own is known less well
MOST_BENT = 0.1  # of a period that it may be made shorter or longer, so that whole ones fit


class Held:
    """A pattern on a torus of `size` (H, W), moved by a share of its cell for every image."""

    def __init__(self, pattern: Pattern, size: tuple[int, int], moves: Tensor) -> None:
        """`moves` (N, 2) in 0..1, down and across. Raises ValueError where `fits` says no."""
        if not fits(pattern, size):
            raise ValueError("no whole number of periods is near the size")
        self.up, self.along = (
            _waves(pattern, axis, side, moves[:, axis]) for axis, side in enumerate(size)
        )
        self.wanted = pattern.cell.to(moves.device) * math.sqrt(size[0] * size[1])
        self.spread = pattern.spread.to(moves.device)
        levels = lowest_levels(pattern)
        self.levels, self.lowest = levels.to(moves.device), float(levels.min())

    def holding(self, denoise: Denoiser) -> Denoiser:
        """D with the waves of the pattern held, each above its own of `levels`."""

        def held(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            self.hold_(x, mean, noise)
            return mean

        return held

    def hold_(self, x: Tensor, mean: Tensor, noise: float) -> None:
        """Give D of noisy images, both (N, C, H, W), those waves of the pattern that are held."""
        if noise <= self.lowest:
            return
        held = noise > self.levels
        kept = self.spread / (self.spread + noise**2)
        for noisy, image, up, along in zip(x, mean, self.up, self.along, strict=True):
            own = torch.lerp(self.wanted, up @ noisy @ along.T, kept)
            missing = held * (own - up @ image @ along.T)
            missing[:, 0, 0] = 0  # the mean colour is not the pattern's
            for channel, waves in zip(image, missing, strict=True):
                channel.addmm_(up.T, waves @ along)


def lowest_levels(pattern: Pattern) -> Tensor:
    """The noise deviation down to which every wave of a pattern is held: (I, J).

    HIDDEN_ALONE times the root of its spread, at most HIDDEN times that of the mean over waves,
    weighted by the pattern's own power.
    """
    power, spread = pattern.cell.square().sum(dim=0), pattern.spread.sum(dim=0)
    mean = (power * spread).sum() / power.sum()
    return torch.minimum(HIDDEN_ALONE * spread.sqrt(), HIDDEN * mean.sqrt())


def fits(pattern: Pattern, size: Sequence[int], most_bent: float = MOST_BENT) -> bool:
    """Whether sides (H, W) hold whole periods that differ by less than a share from their own."""
    return all(
        repeats is None
        or (side >= repeats and abs(_whole(side, repeats) / repeats - 1) < most_bent)
        for side, repeats in zip(size, pattern.periods, strict=True)
    )


def _whole(side: int, repeats: float) -> float:
    """The period nearest to `repeats` of which a side holds whole ones."""
    return side / max(1, round(side / repeats))


def _waves(pattern: Pattern, axis: int, side: int, moves: Tensor) -> Tensor:
    """Orthonormal waves of the pattern along an axis, moved for every image: (N, I, side)."""
    repeats, places = pattern.periods[axis], torch.arange(side).to(moves)
    if repeats is None:
        return (basis(pattern.periods, axis, places) / math.sqrt(side)).expand(len(moves), -1, -1)
    # In units of the pattern's own period, so that as many waves are taken as its cell has.
    places = places * repeats / _whole(side, repeats)
    own = [basis(pattern.periods, axis, places + repeats * float(move)) for move in moves]
    return torch.stack(own) / math.sqrt(side)
