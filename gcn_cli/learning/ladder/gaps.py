"""By how much F tells data from chains that show different things, level by level.

Aligned images are each of another face, or digit: F of one differs from F of another by more than
a chain from its data, and what a bound on each gap would leave out is one kind of image. So their
bound is on running means over chains, in each of BANDS bands of levels by itself: under a bound on
the mean of all a single band could run away.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BANDS = 8  # parts of the way down the levels
MEMORY = 0.8  # of a band's running mean, from one chain in it to the next


class BandGaps:
    """Running means of the gap, in F a value, the highest levels first."""

    def __init__(self, share: float, largest: float) -> None:
        """`share` is the part that there is of the whole way, `largest` the bound."""
        self.means = [0.0] * max(2, round(BANDS * share))
        self.largest = largest

    def note(self, bands: Sequence[int | None], gaps: Sequence[float]) -> None:
        """Take down the gap of each chain, which is in a band, None: it waits.

        What leaps counts as 1.4 times the largest.
        """
        for band, gap in zip(bands, gaps, strict=True):
            if band is not None:
                bounded = min(max(gap, 0.0), 2**0.5 * self.largest)
                self.means[band] += (1 - MEMORY) * (bounded - self.means[band])

    def slopes(self, bands: Sequence[int | None]) -> list[float]:
        """Of gap - gap^3 / (3 largest^2) at each chain's band, in -1..1; 0 of chains that wait."""
        return [0.0 if k is None else 1 - (self.means[k] / self.largest) ** 2 for k in bands]

    def state(self) -> Tensor:
        """Everything to go on as if never stopped."""
        return torch.tensor(self.means, dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Put back what `state` returned."""
        # Up to format 7 there was one for all.
        self.means = state.expand(len(self.means)).tolist()
