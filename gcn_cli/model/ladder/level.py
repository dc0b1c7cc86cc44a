"""One level of a ladder, with the names of the paper's model: p_s, its score, B and gates."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.model.energy import GenerativeModel, spread
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.octaves import CoarseLevel
from gcn_cli.model.ladder.passes import ascend, descend, prepare
from gcn_cli.model.spec import Lattice


@dataclass(frozen=True)
class LadderLevel:
    """p_s(I) = exp(f(I; w, s)) q_s(I) / Z, the generative ConvNet at noise deviation s.

    `denoiser.py` has D, the mean of the clean image given the noisy one.
    """

    net: LadderNet
    noise: float  # s, in deviations of the data
    dtype: torch.dtype = torch.float32  # of the maps on the way to B

    @property
    def sigma(self) -> float:
        """Deviation of the reference q_s, that of noisy data."""
        return math.sqrt(self.noise**2 + 1)

    def score(self, x: Tensor) -> Tensor:
        """f(I; w, s): (N, C, H, W) -> (N,)."""
        own = self.net.total(x / self.sigma, self._log_noise(x)) / self.noise
        return own + self._gaussian(self.net.spectrum.score_map, x).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """B(I) = df/dI: (N, C, H, W) -> (N, C, H, W)."""
        prepared = prepare(self.net, self.dtype)
        up = ascend(self.net, x / self.sigma, self._log_noise(x), prepared)
        own = descend(self.net, up).slope.to(x.dtype) / (self.noise * self.sigma)
        return own + self._gaussian(self.net.spectrum.slope, x)

    def responses(self, x: Tensor) -> list[Tensor]:
        """Rectified responses, layer by layer, differentiable: (N, filters, h, w)."""
        return self.net.responses(x / self.sigma, self._log_noise(x))

    @torch.no_grad()
    def energy_map(self, x: Tensor) -> Tensor:
        """What every pixel counts in U(I): (N, C, H, W) -> (N, H, W), whose sum is U.

        A response counts where it is, evenly over the pixels it stands for.
        """
        gaussian = self._gaussian(self.net.spectrum.score_map, x)
        own = (x.square() / (2 * self.sigma**2) - gaussian).sum(dim=1)
        for layer, responses in enumerate(self.responses(x)):
            counted = (self.net.readout(layer) * responses).sum(dim=1) / self.noise
            own -= spread(counted, (x.shape[-2], x.shape[-1]))
        return own

    @torch.no_grad()
    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        """The gates, layer by layer, in 0..1: (N, filters, h, w)."""
        prepared = prepare(self.net, self.dtype)
        return ascend(self.net, x / self.sigma, self._log_noise(x), prepared).gates

    def _gaussian(self, part: Callable[[Tensor, Tensor, Lattice], Tensor], x: Tensor) -> Tensor:
        """What the spectrum alone says, at this level."""
        return part(x, x.new_full((len(x),), self.noise), self.net.lattice)

    def _log_noise(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), math.log(self.noise))


def level_of(net: LadderNet, noise: float, dtype: torch.dtype = torch.float32) -> GenerativeModel:
    """p_s of a ladder, or of the coarser one that answers at that level."""
    nets, levels = net.octaves(), net.levels_up_to(noise)
    level: GenerativeModel = LadderLevel(nets[len(levels) - 1], levels[-1], dtype)
    for number in reversed(range(len(levels) - 1)):
        finer, (_, contrast) = nets[number], net.handed_over()[number]
        level = CoarseLevel(level, finer.spectrum, contrast, levels[number], finer.lattice)
    return level
