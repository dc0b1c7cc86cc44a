"""Chains that are told where a regular pattern lies: its waves are held while layout is settled.

At levels above LAYOUT the part of D that lies in the waves of the pattern is what the pattern says,

    D + P (m - D),   P the projection on the waves of its periods, m the pattern, moved at random,

so that a chain there is what the pattern is plus noise of the level, as data would be, and courses
are straight and close on a torus however large it is. Below, the model decides alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.model.pattern import Pattern, basis
from gcn_cli.sampling.annealed import Denoiser

LAYOUT = 10.0  # noise deviation: below, a pattern is seen, and what is not in it is decided
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

    def holding(self, denoise: Denoiser) -> Denoiser:
        """D with the waves of the pattern held above LAYOUT."""

        def held(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            if noise <= LAYOUT:
                return mean
            for image, up, along in zip(mean, self.up, self.along, strict=True):
                missing = self.wanted - up @ image @ along.T
                missing[:, 0, 0] = 0  # the mean colour is not the pattern's
                for channel, own in zip(image, missing, strict=True):
                    channel.addmm_(up.T, own @ along)
            return mean

        return held


def fits(pattern: Pattern, size: Sequence[int]) -> bool:
    """Whether whole periods are near enough on both sides (H, W)."""
    return all(
        repeats is None
        or (side >= repeats and abs(_whole(side, repeats) / repeats - 1) < MOST_BENT)
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
