"""Persistent chains of a ladder: they walk down it side by side, again and again.

Chain k of n is k/n of the way ahead of chain 0, so that at any iteration the chains are spread
evenly over the levels. At the foot a chain starts anew from noise, a random part of a step higher
or lower than before: every level is met, as in denoising.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.sampling.annealed import annealed_step
from gcn_cli.sampling.noise import ImageNoise, named_generator


class LadderChains:
    """`count` chains of shape (C, H, W), each with a level of its own."""

    def __init__(
        self,
        count: int,
        shape: Sequence[int],
        *,
        steps: int,
        highest: float,
        lowest: float,
        seed: int,
        device: torch.device,
    ) -> None:
        """`steps` is the number of levels a chain meets from `highest` to `lowest`."""
        self.images = torch.zeros(count, *shape, device=device)
        self.means = torch.zeros_like(self.images)  # D at the level before
        self.steps, self.highest = steps, highest
        self.ratio = (lowest / highest) ** (1 / steps)  # of one level to the one before
        self.taken = [-(chain * steps // count) for chain in range(count)]  # negative: waiting
        self.offsets = [0.0] * count
        self.noise = ImageNoise(seed, "ladder chain", range(count), device)
        self.places = named_generator(seed, "ladder chain places")
        for chain in range(count):
            self._restart(chain)

    def levels(self) -> Tensor:
        """The noise deviation each chain is at, (N,); of a waiting one, where it would be."""
        return torch.tensor([self.highest * self.ratio**p for p in self._way()]).to(self.images)

    def bands(self, count: int) -> list[int | None]:
        """In which of `count` equal parts of the way each chain is, from 0; None: it waits."""
        return [
            None if taken < 0 else min(count - 1, int(count * place / self.steps))
            for taken, place in zip(self.taken, self._way(), strict=True)
        ]

    def _way(self) -> list[float]:
        """Steps from the highest level to where each chain is."""
        return [
            taken % self.steps + offset
            for taken, offset in zip(self.taken, self.offsets, strict=True)
        ]

    def walking(self) -> Tensor:
        """1 for chains that have begun, 0 for those that wait: (N,)."""
        begun = [float(taken >= 0) for taken in self.taken]
        return torch.tensor(begun).to(self.images)

    def spread(self) -> Tensor:
        """The deviation of every chain over that of noisy data at its level, (N,); 1 if waiting."""
        expected = (self.levels().square() + 1).sqrt()
        own = self.images.flatten(1).std(dim=1) / expected
        return torch.where(self.walking() > 0, own, 1.0)

    def crops(self, size: tuple[int, int]) -> Tensor:
        """A random piece (C, H, W) of each chain's image."""
        pieces = []
        for image in self.images:
            top, left = (
                int(torch.randint(full - side + 1, (1,), generator=self.places))
                for full, side in zip(image.shape[1:], size, strict=True)
            )
            pieces.append(image[:, top : top + size[0], left : left + size[1]])
        return torch.stack(pieces)

    def advance(self, means: Tensor) -> None:
        """One annealed Langevin step of every chain that walks; at the foot, a new start.

        `means` is D of `images`, each at its own of `levels`: (N, C, H, W).
        """
        level = self.levels()
        moving = [chain for chain, taken in enumerate(self.taken) if taken >= 0]
        begun = torch.tensor([0.5 * (taken > 0) for taken in self.taken]).to(means)
        ahead = means + begun[:, None, None, None] * (means - self.means)
        below = (self.ratio * level)[:, None, None, None]
        drawn = self.noise(self.images.shape)
        moved = annealed_step(self.images, ahead, self.ratio, below, drawn)
        self.images[moving], self.means[moving] = moved[moving], means[moving]
        for chain, taken in enumerate(self.taken):
            self.taken[chain] = taken + 1
            if self.taken[chain] in (0, self.steps):
                self._restart(chain)
                self.taken[chain] = 0

    def _restart(self, chain: int) -> None:
        """White noise of the variance that noisy data has at the first level."""
        self.offsets[chain] = float(torch.rand((), generator=self.places))
        deviation = math.sqrt((self.highest * self.ratio ** self.offsets[chain]) ** 2 + 1)
        self.images[chain].normal_(generator=self.noise.generators[chain]).mul_(deviation)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        return {
            "images": self.images,
            "means": self.means,
            "taken": torch.tensor(self.taken),
            "offsets": torch.tensor(self.offsets, dtype=torch.float64),
            "noise": self.noise.state(),
            "places": self.places.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.images.copy_(state["images"])
        self.means.copy_(state["means"])
        self.taken, self.offsets = state["taken"].tolist(), state["offsets"].tolist()
        self.noise.load_state(state["noise"])
        self.places.set_state(state["places"])
