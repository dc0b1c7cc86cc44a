"""Maximum likelihood on the ladder, beside denoising.

Denoising shows a ladder noisy data only. What its own samples look like it never sees, and their
errors add up on the way down the levels. So the last part of the learning is also the paper's
Algorithm 1, at all levels at once, with chains that walk down the ladder:

    dL/dw = mean over noisy data dF/dw - mean over chains dF/dw,

F and not f = F / s, and levels under SETTLED_LEVEL count less and less: there a chain bears the
errors of all levels above and, with one step a level, has no time left to mend them. Where chains
cannot follow, F would learn to tell them from data ever better, and denoising and samples would
break. So what is maximised is not the gap of the two means but gap - gap^3 / (3 LARGEST_GAP^2),
in each band of levels by itself: under a bound on the mean of all a single band could run away.
That bound is for up to BOUNDED chains; of more, each may be as far from its data as one of so many.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gcn_cli.learning.ladder.chains import Above, LadderChains
from gcn_cli.model.ladder.denoiser import denoise_each
from gcn_cli.model.ladder.double_pass import score_gradient
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import Prepared, ascend, total
from gcn_cli.model.pattern import Pattern
from gcn_cli.model.spec import Lattice
from gcn_cli.sampling.pattern import fits

CHAIN_STEPS = 16  # levels a chain meets on its way, fewer than a sample takes
SETTLED_LEVEL = 0.3  # noise deviation under which what a picture shows is decided
WAY = math.log(100 / 0.03)  # of these, in log s; ladders with less of a way have less steps
BANDS = 8  # parts of it
LARGEST_GAP = 0.02  # in F a value of all chains: where these follow F it stays well under that
BOUNDED = 4  # chains; a bound that grew with their number would let many run away
GAP_MEMORY = 0.8  # of a band's running mean, from one chain in it to the next
MOST_BENT_LEARNED = 0.05  # of a period, in chains: the likelihood would learn that it is wrong
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
        above: Above | None = None,
        pattern: Pattern | None = None,
        largest_gap: float = LARGEST_GAP,
    ) -> None:
        """`count` chains to compare with images of `size`; `weight` is that of the gradient.

        `noise_range` is the lowest and the highest level, `above` where chains come from, `pattern`
        what they follow, where it fits; `largest_gap` is the bound on the gap.
        """
        self.net, self.size = net, size
        stride = net.total_stride
        around = SURROUNDINGS if net.image_size is None else 0
        canvas = [-(-(side + around) // stride) * stride for side in size]
        if pattern is not None and not fits(pattern, canvas, MOST_BENT_LEARNED):
            pattern = None
        self.weight, self.values = weight, count * net.channels * size[0] * size[1]
        share = min(1.0, math.log(noise_range[1] / noise_range[0]) / WAY)
        self.gaps = [0.0] * max(2, round(BANDS * share))  # running means, the highest levels first
        self.largest_gap = largest_gap * min(1.0, BOUNDED / count)
        self.chains = LadderChains(
            count,
            (net.channels, *canvas),
            steps=max(4, round(CHAIN_STEPS * share)),
            above=above,
            pattern=pattern,
            lowest=noise_range[0],
            highest=noise_range[1],
            seed=seed,
            device=device,
        )

    def note(self, bands: Sequence[int | None], differences: Sequence[float]) -> None:
        """Take down by how much F of each noisy image was above that of its chain.

        `bands` are those of the chains at that time. What leaps counts as 1.4 times the largest.
        """
        for band, difference in zip(bands, differences, strict=True):
            if band is not None:
                bounded = min(max(difference / self.values, 0.0), 2**0.5 * self.largest_gap)
                self.gaps[band] += (1 - GAP_MEMORY) * (bounded - self.gaps[band])

    def bands(self) -> list[int | None]:
        """Which part of the way each chain is in, from the highest levels on; None: it waits."""
        return self.chains.bands(len(self.gaps))

    def say(self) -> list[float]:
        """What each chain's gradient is multiplied by, in -1..1: the slope of the objective.

        0 of chains that wait.
        """
        return [
            0.0 if k is None else 1 - (self.gaps[k] / self.largest_gap) ** 2 for k in self.bands()
        ]

    def counts(self, level: Tensor) -> Tensor:
        """What F of a noisy image, and minus F of a chain, counts in the gap at levels (N,)."""
        squared = level.square()
        telling = squared / (squared + SETTLED_LEVEL**2)
        return self.chains.walking() * telling / self.values

    def shares(self, level: Tensor) -> Tensor:
        """What F of a chain, and minus F of a noisy image, counts in the loss at levels (N,)."""
        return self.weight * level.new_tensor(self.say()) * self.counts(level)

    def synthesised(
        self, prepared: Prepared, crops: Tensor, level: Tensor, shares: Tensor, images: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """F of crops of the chains (N,), its gradients weighted with `shares`, D of whole chains.

        `prepared` are the parameters as they are now, `level` is where the chains are, (N,).
        Chains are to `advance` with D.
        """
        net, sigma = self.net, (level.square() + 1).sqrt()[:, None, None, None]
        up = ascend(net, crops / sigma, level.log(), prepared, learning=True)
        scores, gradients = total(net, up), score_gradient(net, up, shares)
        if net.image_size is None:
            # On a torus, as textures are made: no border, where a ladder has learned nothing.
            prepared = replace(prepared, lattice=Lattice.CIRCULAR)
        return scores, gradients, denoise_each(net, images, level, prepared)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        return {**self.chains.state(), "gap": torch.tensor(self.gaps, dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.chains.load_state(state)
        # Up to format 7 there was one for all.
        self.gaps = state["gap"].expand(len(self.gaps)).tolist()
