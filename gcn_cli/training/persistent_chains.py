"""Persistent chains of a ladder: they walk down it side by side, again and again.

Chain k of n is k/n of the way ahead of chain 0, so that at any iteration the chains are spread
evenly over the levels. At the foot a chain starts anew from noise, a random part of a step higher
or lower than before: every level is met, as in denoising. Where there is a coarser ladder, chains
start from what a chain of that one was when it came by their highest level. A regular pattern is
followed by chains as by samples (`sampling/pattern.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.models.cascade import add_upsampled_, downsample, remove_lowpass_
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import PaddingMode
from gcn_cli.pattern import Pattern, PatternProjection
from gcn_cli.samplers.annealed import annealed_step
from gcn_cli.samplers.rng import ImageNoise, named_generator


class PersistentChains:
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
        above: "CoarserChains | None" = None,
        pattern: Pattern | None = None,
    ) -> None:
        """`steps` is the number of levels a chain meets from `highest` to `lowest`.

        `above` are the chains of the coarser ladder, None where there is none; `pattern` is what
        chains from noise follow, and has to fit their shape.
        """
        self.above = above
        self.pattern = pattern
        self.moves = torch.zeros(count, 2, device=device)  # of the pattern, in shares of its cell
        self.held: dict[int, PatternProjection] = {}  # the pattern as each chain follows it
        self.passed: TransitionState | None = None  # the last that came by this level:
        self.handed_at = 0.0  # where chains are handed down to a finer ladder, if there is one
        self.images = torch.zeros(count, *shape, device=device)
        self.means = torch.zeros_like(self.images)  # D at the level before
        self.steps, self.highest = steps, highest
        self.ratio = (lowest / highest) ** (1 / steps)  # of one level to the one before
        self.taken = [-(chain * steps // count) for chain in range(count)]  # negative: waiting
        self.offsets = [0.0] * count
        self.noise = ImageNoise(seed, "ladder chain", range(count), device)
        self.places = named_generator(seed, "ladder chain places")
        if above is not None:
            self.taken = [taken - 1 for taken in self.taken]  # all wait for what is handed down
            return
        for chain in range(count):
            self._restart(chain)

    def levels(self) -> Tensor:
        """The noise deviation each chain is at, (N,); of a waiting one, where it would be."""
        return torch.tensor(self._levels()).to(self.images)

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

    def _levels(self) -> list[float]:
        """As `levels`, not rounded to the images' numbers, and without waiting for a device."""
        return [self.highest * self.ratio**steps for steps in self._way()]

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
        means = self._held(means)
        ahead = means + begun[:, None, None, None] * (means - self.means)
        below = (self.ratio * level)[:, None, None, None]
        drawn = self.noise(self.images.shape)
        moved = annealed_step(self.images, ahead, self.ratio, below, drawn)
        for chain, own in enumerate(self._levels()):
            if chain in moving and own * self.ratio <= self.handed_at <= own:
                self.passed = TransitionState(self.images[chain].clone(), ahead[chain].clone(), own)
        self.images[moving], self.means[moving] = moved[moving], means[moving]
        for chain, taken in enumerate(self.taken):
            self.taken[chain] = taken + 1
            if self.taken[chain] in (0, self.steps):
                self.taken[chain] = 0 if self._restart(chain) else -1

    def _held(self, means: Tensor) -> Tensor:
        """D with the pattern of every chain in it, where there is one."""
        if not self.held:
            return means
        means, levels = means.clone(), self._levels()
        for chain, held in self.held.items():
            own = slice(chain, chain + 1)
            held.hold_(self.images[own], means[own], levels[chain])
        return means

    def _follow(self, chain: int) -> None:
        """Have a chain follow the pattern where it was moved to, if there is one."""
        if self.pattern is not None:
            size = (self.images.shape[2], self.images.shape[3])
            self.held[chain] = PatternProjection(self.pattern, size, self.moves[chain : chain + 1])

    def _restart(self, chain: int) -> bool:
        """Noise of the variance that noisy data has at the first level, or what is handed down.

        False where there is nothing to hand down yet.
        """
        self.offsets[chain] = float(torch.rand((), generator=self.places))
        if self.pattern is not None:
            self.moves[chain] = torch.rand(2, generator=self.places)
            self._follow(chain)
        level = self.highest * self.ratio ** self.offsets[chain]
        white = self.images[chain].normal_(generator=self.noise.generators[chain])
        if self.above is not None:
            return self.above.hand_down_(white, level, self.places)
        white.mul_(math.sqrt(level**2 + 1))
        return True

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        last = {} if self.passed is None else vars(self.passed)
        passed = {f"passed.{name}": torch.as_tensor(own) for name, own in last.items()}
        return {
            **passed,
            **({} if self.pattern is None else {"moves": self.moves}),
            "images": self.images,
            "means": self.means,
            "taken": torch.tensor(self.taken),
            "offsets": torch.tensor(self.offsets, dtype=torch.float64),
            "noise": self.noise.state(),
            "places": self.places.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        if "moves" in state:
            self.moves.copy_(state["moves"])
            for chain in range(len(self.moves)):
                self._follow(chain)
        else:
            self.pattern, self.held = None, {}  # which chains of before did not follow
        self.images.copy_(state["images"])
        self.means.copy_(state["means"])
        self.taken, self.offsets = state["taken"].tolist(), state["offsets"].tolist()
        self.noise.load_state(state["noise"])
        self.places.set_state(state["places"])
        if "passed.image" in state:
            image, mean = (state[f"passed.{name}"].to(self.images) for name in ("image", "mean"))
            self.passed = TransitionState(image, mean, float(state["passed.level"]))


@dataclass(frozen=True)
class TransitionState:
    """A chain before the step past `handed_at`: (C, H, W), the mean it moves to, its level."""

    image: Tensor
    mean: Tensor
    level: float


@dataclass(frozen=True)
class CoarserChains:
    """The chains of the coarser ladder, and what they lack to be noisy images of the finer one."""

    chains: PersistentChains
    spectrum: SpectralGaussian  # of the finer ladder's data
    contrast: float  # of the coarser ladder's data to means of 2x2 of the finer's pixels

    def hand_down_(self, white: Tensor, level: float, places: torch.Generator) -> bool:
        """Make of white noise (C, H, W) a noisy image at a level, in place, if there is one.

        It is a random part of what a coarser chain was at that level; its details are Gaussian.
        """
        passed = self.chains.passed
        if passed is None:
            return False
        own, noise = white[None], white.new_full((1,), level)
        lower, kept = self.contrast * level / 2, []
        for axis, side in enumerate(white.shape[1:]):
            full = passed.image.shape[axis + 1]
            first = int(torch.randint(full - side // 2 + 1, (1,), generator=places))
            kept.append(slice(first, first + side // 2))
        image, mean = (one[None, :, kept[0], kept[1]] for one in (passed.image, passed.mean))
        step = annealed_step(image, mean, lower / passed.level, lower, 2 * downsample(own))
        own.copy_(remove_lowpass_(self.spectrum.drawn(own, noise, PaddingMode.CIRCULAR)))
        add_upsampled_(own, step, 1 / self.contrast)
        return True
