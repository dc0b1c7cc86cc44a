"""Where the synthesised images come from: kept chains, or short ones from the data.

Both answer `advance`, so that one learner serves maximum likelihood (Algorithm 1, persistent
chains) and contrastive divergence (k steps from the observed images).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.model.energy import Gradient
from gcn_cli.sampling.langevin import langevin_step, run_chain
from gcn_cli.sampling.noise import ImageNoise


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

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` more steps of every chain; the observed images play no part."""
        self.images = run_chain(
            self.images,
            gradient,
            steps=self.steps,
            step_size=self.step_size,
            noise=self.noise,
        )
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
    reconstruction_error: float = float("nan")

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` steps from `observed`, with the first slope also read as the error."""
        with torch.no_grad():
            slope = gradient(observed)
            error = (self.sigma**2 * slope).square().sum() / observed.square().sum()
            self.reconstruction_error = float(error)
            drawn = None if self.noise is None else self.noise(observed.shape)
            first = langevin_step(observed, lambda _: slope, self.step_size, drawn)
        self.images = run_chain(
            first,
            gradient,
            steps=self.steps - 1,
            step_size=self.step_size,
            noise=self.noise,
        )
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
