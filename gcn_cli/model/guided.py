"""A ladder guided away from what it was early in its learning.

Learned for minutes, a ladder is a little too broad at every level. What it still lacks shows in
how it differs from its own younger self, so that is what sampling exaggerates (autoguidance,
Karras et al. 2024). The model that is sampled is a generative ConvNet again, with the same
reference q_s and one more number a level, the strength g(s) >= 0:

    p_s(I) (p_s(I) / p_s^early(I))^g(s),    f = (1 + g) f_now - g f_early.

g is found by maximum likelihood (`learning.guidance`); g = 0 is the ladder as it was learned.
"""

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gcn_cli.model.ladder import LadderLevel, LadderNet
from gcn_cli.model.spec import Lattice, LayerSpec


class GuidedLadder(nn.Module):
    """The ladder `net`, the same early in learning, and the strength of guidance by level."""

    strengths: Tensor

    def __init__(self, net: LadderNet, levels: Sequence[float]) -> None:
        """`levels`: the noise deviations at which strengths are kept, falling. They start at 0."""
        super().__init__()
        self.net, self.early = net, copy.deepcopy(net)
        self.levels = tuple(levels)
        self.emphasis = 1.0  # multiplies every strength; 0 is the ladder as it was learned
        self.register_buffer("strengths", torch.zeros(len(levels)))

    @property
    def lattice(self) -> Lattice:
        """What lies beyond the border."""
        return self.net.lattice

    @lattice.setter
    def lattice(self, kind: Lattice) -> None:
        self.net.lattice = self.early.lattice = kind

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Of both ladders, bottom first."""
        return self.net.layers

    @property
    def total_stride(self) -> int:
        """Sides of images must be multiples of this."""
        return self.net.total_stride

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of every layer's map. Raises ValueError for sides that do not divide."""
        return self.net.map_sizes(height, width)

    def receptive_fields(self) -> list[int]:
        """Side in pixels that one filter response of each layer looks at."""
        return self.net.receptive_fields()

    def strength(self, noise: float) -> float:
        """g at a noise deviation: linear between levels in the logarithm, constant beyond."""
        return self.emphasis * self._kept(noise)

    def _kept(self, noise: float) -> float:
        rising = [math.log(level) for level in reversed(self.levels)]
        values = self.strengths.flip(0).tolist()
        place = bisect_left(rising, math.log(noise))
        if place in (0, len(rising)):
            return float(values[min(place, len(rising) - 1)])
        low, high = rising[place - 1 : place + 1]
        share = (math.log(noise) - low) / (high - low)
        return float(values[place - 1] * (1 - share) + values[place] * share)

    def at(self, noise: float, dtype: torch.dtype = torch.float32) -> "GuidedLevel":
        """The guided generative ConvNet at noise deviation `noise`."""
        now, early = self.net.at(noise, dtype), self.early.at(noise, dtype)
        return GuidedLevel(now, early, self.strength(noise))


@dataclass(frozen=True)
class GuidedLevel:
    """One rung of a guided ladder, with the names of the paper's model."""

    now: LadderLevel
    early: LadderLevel
    strength: float

    @property
    def noise(self) -> float:
        """The noise deviation s."""
        return self.now.noise

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return self.now.sigma

    def contrast(self, x: Tensor) -> Tensor:
        """f_now - f_early, what learning has added since: (N, C, H, W) -> (N,)."""
        return self.now.score(x) - self.early.score(x)

    def score(self, x: Tensor) -> Tensor:
        """f(I): (N, C, H, W) -> (N,)."""
        return self._away(lambda ladder: ladder.score(x))

    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        return self._away(lambda ladder: ladder.basis(x))

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates of the ladder as it is now, layer by layer, in 0..1: (N, filters, h, w)."""
        return self.now.activation_pattern(x)

    def denoise(self, x: Tensor) -> Tensor:
        """D(I), the guided model's mean of the clean image: (N, C, H, W) -> the same."""
        return self._away(lambda ladder: ladder.denoise(x))

    def _away(self, of: Callable[[LadderLevel], Tensor]) -> Tensor:
        """What is linear in f, for the guided model; without guidance the early one is not run."""
        now = of(self.now)
        return now.lerp(of(self.early), -self.strength) if self.strength else now
