"""Where the synthesised images come from: kept chains, or short ones from the data.

Both answer `advance`, so that one learner serves maximum likelihood (Algorithm 1, persistent
chains) and contrastive divergence (k steps from the observed images).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.model.energy import Gradient
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.sampling.langevin import langevin_step, run_chain
from gcn_cli.sampling.noise import ImageNoise, NoiseSource


class Chains(Protocol):
    """A source of synthesised images."""

    images: Tensor

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor: ...

    def restart(self) -> None: ...

    def measures(self) -> dict[str, float]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class PersistentChains:
    """Langevin chains from the mean colour (zero), kept from one iteration to the next."""

    images: Tensor
    noise: ImageNoise
    steps: int
    step_size: float
    ranks: Ranks = ALONE

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` more steps of every chain; the observed images play no part."""
        count = len(self.images)
        moved = run_chain(
            self.images[self.ranks.share(count)],
            gradient,
            steps=self.steps,
            step_size=self.step_size,
            noise=_shared(self.noise, self.ranks, count),
        )
        self.images = self.ranks.gathered(moved, count)
        return self.images

    def restart(self) -> None:
        """Back to zero, as published whenever a layer is added."""
        self.images = torch.zeros_like(self.images)

    def measures(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"images": self.images, "noise": self.noise.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.images = state["images"].to(self.images.device)
        self.noise.load_state(state["noise"])


@dataclass
class DataChains:
    """k Langevin steps from the observed images: contrastive divergence, CDk.

    `reconstruction_error` is |I - sigma^2 B(I)|^2 / |I|^2 over the batch, at its start.
    """

    images: Tensor
    noise: ImageNoise | None
    steps: int
    step_size: float
    sigma: float
    ranks: Ranks = ALONE
    reconstruction_error: float = float("nan")

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` steps from `observed`, with the first slope also read as the error."""
        count = len(observed)
        mine = observed[self.ranks.share(count)]
        noise = None if self.noise is None else _shared(self.noise, self.ranks, count)
        with torch.no_grad():
            slope = gradient(mine)
            error, whole = (self.sigma**2 * slope).square().sum(), mine.square().sum()
            self.ranks.sum_([error, whole])
            self.reconstruction_error = float(error / whole)
            drawn = None if noise is None else noise(mine.shape)
            first = langevin_step(mine, lambda _: slope, self.step_size, drawn)
        moved = run_chain(
            first,
            gradient,
            steps=self.steps - 1,
            step_size=self.step_size,
            noise=noise,
        )
        self.images = self.ranks.gathered(moved, count)
        return self.images

    def restart(self) -> None:
        """Nothing is kept between iterations."""

    def measures(self) -> dict[str, float]:
        """The reconstruction error of the last batch."""
        return {"reconstruction_error": self.reconstruction_error}

    def state(self) -> dict[str, Tensor]:
        return {} if self.noise is None else {"noise": self.noise.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if self.noise is not None:
            self.noise.load_state(state["noise"])


def _shared(noise: ImageNoise, ranks: Ranks, count: int) -> NoiseSource:
    """This process's part of what is drawn for all chains, so that all generators go on alike."""
    if ranks.count == 1:
        return noise
    return lambda shape: noise((count, *shape[1:]))[ranks.share(count)]
