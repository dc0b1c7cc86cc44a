"""Maximum likelihood on the ladder, beside denoising.

Denoising shows a ladder noisy data only. What its own samples look like it never sees, and their
errors add up on the way down the levels. So the last part of the learning is also the paper's
Algorithm 1, at all levels at once, with chains that walk down the ladder:

    dL/dw = mean over noisy data dF/dw - mean over chains dF/dw,

F and not f = F / s: in units of s, or the lowest levels, whose chains bear the errors of all
above, would outweigh those where the errors are made.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gcn_cli.learning.ladder_chains import LadderChains
from gcn_cli.model.double_pass import score_gradient
from gcn_cli.model.ladder import LadderNet, denoise_each
from gcn_cli.model.spec import Lattice

CHAIN_STEPS = 16  # levels a chain meets on its way, as many as a sample takes
SURROUNDINGS = 32  # pixels by which the torus of a chain is larger than the crops of it


class Refinement:
    """The chains of a ladder, and what the likelihood gradient takes from them."""

    def __init__(
        self,
        net: LadderNet,
        count: int,
        size: tuple[int, int],
        *,
        weight: float,
        noise_range: tuple[float, float],
        seed: int,
        device: torch.device,
    ) -> None:
        """`count` chains to compare with images of `size`; `weight` is that of the gradient.

        `noise_range` is the lowest and the highest level.
        """
        self.size = size
        self.stationary = net.image_size is None
        stride = net.total_stride
        around = SURROUNDINGS if self.stationary else 0
        canvas = [-(-(side + around) // stride) * stride for side in size]
        self.weight = weight / (count * net.channels * size[0] * size[1])
        self.chains = LadderChains(
            count,
            (net.channels, *canvas),
            steps=CHAIN_STEPS,
            lowest=noise_range[0],
            highest=noise_range[1],
            seed=seed,
            device=device,
        )

    def levels(self) -> Tensor:
        """The levels at which chains and data are compared now, (N,)."""
        return self.chains.levels()

    def shares(self) -> Tensor:
        """What F of each noisy image, and minus that of each chain, counts in the loss: (N,)."""
        return -self.weight * self.chains.walking()

    @torch.no_grad()
    def synthesised(self, net: LadderNet, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        """The chains' part of the loss and its gradients; the chains then move on by a step."""
        level, shares = self.levels(), -self.shares()
        sigma = (level.square() + 1).sqrt()[:, None, None, None]
        up = net.ascend(self.chains.crops(self.size) / sigma, level.log(), dtype)
        gradients = score_gradient(net, up, shares)
        loss = (shares * net.total(up)).sum()
        with self._as_sampled(net):
            self.chains.advance(lambda x, noise: denoise_each(net, x, noise, dtype))
        return loss, gradients

    @contextmanager
    def _as_sampled(self, net: LadderNet) -> Iterator[None]:
        """On a torus, as textures are made: no border, where a ladder has learned nothing."""
        lattice = net.lattice
        if self.stationary:
            net.lattice = Lattice.CIRCULAR
        try:
            yield
        finally:
            net.lattice = lattice
