"""Maximum likelihood on the ladder, beside denoising.

Denoising shows a ladder noisy data only. What its own samples look like it never sees, and their
errors add up on the way down the levels. So the last part of the learning is also the paper's
Algorithm 1, at all levels at once, with chains that walk down the ladder:

    dL/dw = mean over noisy data dF/dw - mean over chains dF/dw,

F and not f = F / s, and levels under SETTLED_LEVEL count less and less: there a chain bears the
errors of all levels above and, with one step a level, has no time left to mend them.
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
SETTLED_LEVEL = 0.3  # noise deviation under which what a picture shows is decided
HARMLESS, HARMFUL = 1.05, 1.15  # times the denoising loss of before: full say, none
OVERSHOT = 1.5  # times the denoising loss of before, above which losses count as this
LOSS_MEMORY = 0.95  # of the running mean of denoising losses
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
        self.loss_before = self.loss_now = 0.0  # running means of the denoising loss
        self.chains = LadderChains(
            count,
            (net.channels, *canvas),
            steps=CHAIN_STEPS,
            lowest=noise_range[0],
            highest=noise_range[1],
            seed=seed,
            device=device,
        )

    def note(self, loss: float, refines: bool) -> None:
        """Take down the denoising loss of an iteration, before (`refines` False) or now."""
        if refines and self.loss_before:  # one bad step is not held against it for long
            loss = min(loss, OVERSHOT * self.loss_before)
        mean = self.loss_now or loss
        self.loss_now = LOSS_MEMORY * mean + (1 - LOSS_MEMORY) * loss
        if not refines:
            self.loss_before = self.loss_now

    @property
    def say(self) -> float:
        """What the likelihood counts, 1 to 0: less where denoising gets worse by it.

        F is to tell data from chains that follow it; where they cannot, it would grow for ever.
        """
        if not self.loss_before:
            return 1.0
        worse = self.loss_now / self.loss_before
        return min(1.0, max(0.0, (HARMFUL - worse) / (HARMFUL - HARMLESS)))

    def levels(self) -> Tensor:
        """The levels at which chains and data are compared now, (N,)."""
        return self.chains.levels()

    def shares(self) -> Tensor:
        """What F of each noisy image, and minus that of each chain, counts in the loss: (N,)."""
        squared = self.levels().square()
        walking = self.chains.walking()
        return -self.say * self.weight * walking * squared / (squared + SETTLED_LEVEL**2)

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

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        losses = torch.tensor([self.loss_before, self.loss_now], dtype=torch.float64)
        return {**self.chains.state(), "losses": losses}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.chains.load_state(state)
        self.loss_before, self.loss_now = state["losses"].tolist()
