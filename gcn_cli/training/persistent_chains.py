"""Persistent chains of a noise-conditional model: they walk down the noise levels, again and again.

Of N chains, chain k starts k/N of the way after chain 0, so that at any iteration the chains are
spread evenly over the levels. After the lowest level a chain restarts from noise, a random fraction
of a step below the highest level, so that every level occurs, as in denoising. In a resolution
cascade, chains of a finer stage start from chains of the next coarser stage (cascade
initialization). Each chain of a regular pattern has its own lattice, as samples have
(`gcn_cli.pattern`); a chain that starts from a coarser one has that chain's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.models.cascade import add_upsampled_, downsample, remove_lowpass_
from gcn_cli.models.cuda_graph import from_host
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import block_centers
from gcn_cli.pattern import Pattern, PhaseField
from gcn_cli.samplers.annealed import annealed_step
from gcn_cli.samplers.rng import ImageNoise, named_generator
from gcn_cli.training.optim import substate, with_prefix

TRANSITION = -1  # in place of the index of a chain, in a saved state


@dataclass(frozen=True)
class TransitionState:
    """A chain of a coarser stage just before its step past the transition level."""

    image: Tensor  # (C, H, W)
    mean: Tensor  # that the step moves towards, (C, H, W)
    level: float
    phases: PhaseField | None  # of the lattice


@dataclass(frozen=True)
class CoarserChains:
    """The chains of the next coarser stage, and how their images become noisy finer ones."""

    chains: "PersistentChains"
    spectrum: SpectralGaussian  # of the finer stage's data
    gain: float  # of the coarser stage: its data over 2x2 means of the finer pixels

    def initialize_(
        self, white: Tensor, level: float, positions: torch.Generator
    ) -> tuple[bool, PhaseField | None]:
        """Turn white noise (C, H, W) into a noisy image at a level, in place.

        Low frequencies are a random crop of a coarser chain, details are Gaussian with the spectrum
        of the data. Returns whether a coarser chain has passed the transition level yet, and the
        phases of the lattice in the new image.
        """
        state = self.chains.transition
        if state is None:
            return False, None
        fine, lower = white[None], self.gain * level / 2
        window = _random_window(state.image, (white.shape[1] // 2, white.shape[2] // 2), positions)
        image, mean = state.image[window][None], state.mean[window][None]
        coarse = annealed_step(image, mean, lower / state.level, lower, 2 * downsample(fine))
        levels = white.new_full((1,), level)
        sample = self.spectrum.noisy_sample(fine, levels, PaddingMode.CIRCULAR)
        fine.copy_(remove_lowpass_(sample))
        add_upsampled_(fine, coarse, 1 / self.gain)
        if state.phases is None:
            return True, None
        corner = (window[1].start - 0.25, window[2].start - 0.25)  # of the first fine pixel
        return True, state.phases.window(0.5, corner)


class PersistentChains:
    """`count` chains of shape (C, H, W), each at its own noise level."""

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
        coarser: CoarserChains | None = None,
        pattern: Pattern | None = None,
        transition_level: float = 0.0,
    ) -> None:
        """`steps` levels from `highest` to `lowest`.

        `coarser`: where chains start; None starts them from noise. `pattern`: in these pixels.
        `transition_level`: the level at which chains initialize those of a finer stage, 0 for none.
        """
        self.coarser, self.pattern = coarser, pattern
        self.transition_level = transition_level
        self.transition: TransitionState | None = None  # of the last chain that passed this level
        self.fields: dict[int, PhaseField] = {}  # by chain, if there is a lattice
        self.images = torch.zeros(count, *shape, device=device)
        self.previous_means = torch.zeros_like(self.images)  # D at the level before
        self.steps, self.highest = steps, highest
        self.ratio = (lowest / highest) ** (1 / steps)  # of successive levels
        self.taken = [-(chain * steps // count) for chain in range(count)]  # steps; < 0: waiting
        self.offsets = [0.0] * count
        # Chain, level and image (C, H, W) before the step past the transition level.
        self._passing: tuple[int, float, Tensor] | None = None
        # Names of random streams: with other names the same seed would give other models.
        self.noise = ImageNoise(seed, "ladder chain", range(count), device)
        self.positions = named_generator(seed, "ladder chain places")
        if coarser is not None:
            self.taken = [taken - 1 for taken in self.taken]  # all wait for the coarser chains
            return
        for chain in range(count):
            self._restart(chain)

    def levels(self) -> Tensor:
        """The noise level of each chain, (N,); for a waiting chain the level it would have."""
        return torch.tensor(self._levels()).to(self.images)

    def active(self) -> Tensor:
        """1 for chains that have started, 0 for waiting chains: (N,)."""
        return torch.tensor(self._active()).to(self.images)

    def step_values(self) -> list[list[float]]:
        """What the next step depends on, by chain: three rows of N numbers.

        Noise levels; 1 for chains that have started, 0 for waiting ones; and the factor by which D
        is extrapolated: by half a step, as in sampling, once there is a previous one.
        """
        extrapolation = [0.5 * (taken > 0) for taken in self.taken]
        return [self._levels(), self._active(), extrapolation]

    def bands(self, count: int) -> list[float]:
        """Which of `count` equal parts of the levels each chain is in, from 0; -1 if it waits."""
        return [
            -1.0 if taken < 0 else min(count - 1, int(count * position / self.steps))
            for taken, position in zip(self.taken, self._progress(), strict=True)
        ]

    def _progress(self) -> list[float]:
        """Steps from the highest level to the level of each chain."""
        pairs = zip(self.taken, self.offsets, strict=True)
        return [taken % self.steps + offset for taken, offset in pairs]

    def _levels(self) -> list[float]:
        """`levels` in double precision, without waiting for the device."""
        return [self.highest * self.ratio**steps for steps in self._progress()]

    def _active(self) -> list[float]:
        return [float(taken >= 0) for taken in self.taken]

    def crops(self, size: tuple[int, int]) -> tuple[Tensor, list[tuple[int, int]]]:
        """A random crop (C, H, W) of each chain's image, (N, C, H, W), and their corners."""
        windows = [_random_window(image, size, self.positions) for image in self.images]
        crops = [image[window] for image, window in zip(self.images, windows, strict=True)]
        return torch.stack(crops), [(down.start, across.start) for _, down, across in windows]

    def phases(
        self, size: tuple[int, int], step: int, corners: Sequence[tuple[int, int]] | None = None
    ) -> Tensor | None:
        """Phases of a part (H, W) of each chain's image: (N, axes, h, w), `step` pixels apart.

        corners: of the parts, by default the upper left. None without a lattice.
        """
        if self.pattern is None:
            return None
        rows, columns = (block_centers(0, side, step, self.images.device) for side in size)
        shape = (1, self.pattern.axes, len(rows), len(columns))
        waiting = torch.zeros(shape, device=self.images.device)
        parts = []
        for chain, (top, left) in enumerate(corners or [(0, 0)] * len(self.images)):
            field = self.fields.get(chain)
            parts.append(waiting if field is None else field(rows + top, columns + left))
        return torch.cat(parts)

    def advance(self, means: Tensor) -> None:
        """One annealed Langevin step of every active chain; a restart after the lowest level.

        `means`: D of `images`, each at its own level, (N, C, H, W). The three parts of a step are
        apart because a CUDA graph holds the second.
        """
        noise = self.begin_step()
        self.end_step(self.move_(means, from_host(self.step_values(), means.device), noise))

    def begin_step(self) -> Tensor:
        """Keep images that pass the transition level in this step; returns the step's noise."""
        for chain, level in enumerate(self._levels()):
            if self.taken[chain] >= 0 and level * self.ratio <= self.transition_level <= level:
                self._passing = chain, level, self.images[chain].clone()
        return self.noise(self.images.shape)

    def move_(self, means: Tensor, values: Tensor, noise: Tensor) -> Tensor:
        """Move the active chains; returns the means that they move towards, (N, C, H, W).

        values: (3, N), see `step_values`. Reads no value into Python.
        """
        level, active, extrapolation = values.to(means)[..., None, None, None].unbind()
        targets = means + extrapolation * (means - self.previous_means)
        moved = annealed_step(self.images, targets, self.ratio, self.ratio * level, noise)
        self.images.copy_(torch.where(active > 0, moved, self.images))
        self.previous_means.copy_(torch.where(active > 0, means, self.previous_means))
        return targets

    def relative_deviation(self, values: Tensor) -> Tensor:
        """Deviation of each moved chain over that of noisy data, (N,); 1 if it waits.

        values: those of the step.
        """
        level, active, _ = values.to(self.images).unbind()
        expected = ((self.ratio * level).square() + 1).sqrt()
        deviation = self.images.flatten(1).std(dim=1) / expected
        return torch.where(active > 0, deviation, 1.0)

    def end_step(self, targets: Tensor) -> None:
        """Count the step, restart chains after the lowest level; targets: of `move_`."""
        if self._passing is not None:
            chain, level, image = self._passing
            target, field = targets[chain].clone(), self.fields.get(chain)
            self.transition = TransitionState(image, target, level, field)
            self._passing = None
        for chain, taken in enumerate(self.taken):
            self.taken[chain] = taken + 1
            if self.taken[chain] in (0, self.steps):
                self.taken[chain] = 0 if self._restart(chain) else -1

    def _restart(self, chain: int) -> bool:
        """Restart a chain from noise, or from the coarser chains.

        False if no coarser chain has reached its transition level yet.
        """
        self.offsets[chain] = float(torch.rand((), generator=self.positions))
        level = self.highest * self.ratio ** self.offsets[chain]
        white = self.images[chain].normal_(generator=self.noise.generators[chain])
        if self.coarser is not None:
            started, field = self.coarser.initialize_(white, level, self.positions)
            if field is not None:
                self.fields[chain] = field
            return started
        if self.pattern is not None:
            size = (white.shape[1], white.shape[2])
            field = self.pattern.on_torus(size, (True, True), self.positions)
            self.fields[chain] = field.to(white.device)
        white.mul_(math.sqrt(level**2 + 1))
        return True

    def state(self) -> dict[str, Tensor]:
        fields = dict(self.fields)
        state: dict[str, Tensor] = {}
        if self.transition is not None:
            image, mean, level, field = vars(self.transition).values()
            state |= {"transition.image": image, "transition.mean": mean}
            state["transition.level"] = torch.as_tensor(level)
            if field is not None:
                fields[TRANSITION] = field
        for chain, field in fields.items():
            state |= with_prefix(f"field{chain}.", field.state())
        return {
            **state,
            "images": self.images,
            "previous_means": self.previous_means,
            "taken": torch.tensor(self.taken),
            "offsets": torch.tensor(self.offsets, dtype=torch.float64),
            "noise": self.noise.state(),
            "positions": self.positions.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.images.copy_(state["images"])
        self.previous_means.copy_(state["previous_means"])
        self.taken, self.offsets = state["taken"].tolist(), state["offsets"].tolist()
        self.noise.load_state(state["noise"])
        self.positions.set_state(state["positions"])
        self._passing = None
        fields = {}
        for chain in (TRANSITION, *range(len(self.images))):
            values = substate(state, f"field{chain}.")
            if values:
                fields[chain] = PhaseField.from_state(values, self.images.device)
        if "transition.image" in state:
            image, mean = (state[f"transition.{key}"].to(self.images) for key in ("image", "mean"))
            level = float(state["transition.level"])
            self.transition = TransitionState(image, mean, level, fields.pop(TRANSITION, None))
        self.fields = fields


def _random_window(
    image: Tensor, size: tuple[int, int], generator: torch.Generator
) -> tuple[slice, slice, slice]:
    """The index of a random window of `size` in an image (C, H, W)."""
    top = int(torch.randint(image.shape[1] - size[0] + 1, (1,), generator=generator))
    left = int(torch.randint(image.shape[2] - size[1] + 1, (1,), generator=generator))
    return slice(None), slice(top, top + size[0]), slice(left, left + size[1])
