"""The denoising loss and its gradient, that of a gradient by `double_backward`:

loss = mean over images and levels of |D_s(I + s Z) - I|^2 (s^2 + 1) / s^2.

By how much F tells data from chains that show different things, level by level.

Aligned images are each of another face, or digit: F of one differs from F of another by more than
a chain from its data, and what a bound on each gap would leave out is one kind of image. So their
bound is on running means over chains, in each of BANDS bands of levels by itself: under a bound on
the mean of all a single band could run away.

Maximum likelihood on the ladder, beside denoising.

Denoising shows a ladder noisy data only. What its own samples look like it never sees, and their
errors add up on the way down the levels. So the last part of the learning is also the paper's
Algorithm 1, at all levels at once, with chains that walk down the ladder:

    dL/dw = mean over noisy data dF/dw - mean over chains dF/dw,

F and not f = F / s, and levels under SETTLED_LEVEL count less and less: there a chain bears the
errors of all levels above and, with one step a level, has no time left to mend them. Where chains
cannot follow, F would learn to tell them from data ever better, and denoising and samples would
break. So of each image's gap g between the two F what is maximised is g - g^3 / (3 b^2), and beyond
the bound b no more than that: so far apart are what is learned by heart and any chain. From TOO_FAR
times b on it falls: there a step of the chain went too far, and a steeper F would make one that
goes further. b is LARGEST_GAP a value of up to BOUNDED chains: each may be as far from its data as
all of them together. Of aligned images the bound is on means (`gaps`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.models.backprop import (
    ForwardPass,
    PackedNet,
    backward,
    double_backward,
    forward,
    potential,
)
from gcn_cli.models.cascade import add_score_, denoise_batch
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.pattern import Pattern, pattern_fits
from gcn_cli.training.persistent_chains import CoarserChains, PersistentChains


class Denoised(NamedTuple):
    """What one batch says."""

    loss: Tensor
    scores: Tensor | None  # F of the noisy images (N,), where `times` was given
    gradients: dict[str, Tensor]  # of the loss, and of F as `times` says, by parameter name


@torch.no_grad()
def denoising_loss(
    net: NoiseConditionalNet,
    clean: Tensor,
    drawn: Tensor,
    level: Tensor,
    times: Callable[[Tensor], Tensor] | None = None,
    *,
    known: Tensor | None = None,
    margin: int,
    prepared: PackedNet,
) -> Denoised:
    """The loss at levels (N,) with standard noise `drawn`, and its parameter gradients.

    `prepared` are the parameters of `net` as they are now. Residuals within `margin` of the border,
    and where `known` (N, 1, H, W) is 0, do not count. `times` says of F of the noisy
    images (N,) what each counts beside the loss: its gradient so many times, (N,).
    """
    noise = level[:, None, None, None]
    sigma = (noise.square() + 1).sqrt()
    outward = noise / sigma
    noisy = clean + noise * drawn
    up = forward(net, noisy / sigma, level.log(), prepared, learning=True)
    down = backward(net, up)
    error = net.spectrum.mean(noisy, level, net.lattice) - clean
    add_score_(error, outward, down.slope)
    counted = torch.zeros_like(error)
    inner = slice(margin, -margin or None)
    counted[:, :, inner, inner] = 1 / error[:, :, inner, inner].numel()
    if known is not None:
        counted.mul_(known).div_(counted.sum())
    loss = (error.square() / outward.square() * counted).sum()
    # v = dloss / d grad F; brought to one for narrow number formats, and back after.
    along = 2 * error * counted / outward
    largest = along.abs().max().clamp_min(1e-30)
    scores, beside = None, None
    if times is not None:
        scores = potential(net, up)
        beside = times(scores) / largest
    gradients = double_backward(net, up, down, along / largest, beside)
    return Denoised(loss, scores, {name: g * largest for name, g in gradients.items()})


def counted_share(mask: Tensor | None, images: int, mine: slice, margin: int) -> Tensor:
    """Which share of all pixels that the loss counts lies in the images of `mine`, one number."""
    if mask is None:
        return torch.tensor((mine.stop - mine.start) / images)
    inner = mask[:, :, margin : -margin or None, margin : -margin or None]
    return inner[mine].sum() / inner.sum()


BANDS = 8  # parts of the way down the levels
MEMORY = 0.8  # of a band's running mean, from one chain in it to the next


class BandedDifferences:
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


CHAIN_STEPS = 16  # levels a chain meets on its way, fewer than a sample takes
SETTLED_LEVEL = 0.3  # noise deviation under which what a picture shows is decided
WAY = math.log(100 / 0.03)  # of these, in log s; ladders with less of a way have less steps
LARGEST_DIFFERENCE = (
    0.02  # in F a value of all chains: where these follow F it stays well under that
)
BOUNDED = 4  # chains; a bound that grew with their number would let many run away
TOO_FAR = 2.0
MOST_BENT_LEARNED = 0.05  # of a period, in chains: the likelihood would learn that it is wrong
SURROUNDINGS = 32  # pixels by which the torus of a chain is larger than the crops of it


class LikelihoodLoss:
    """The chains of a ladder, and what the likelihood gradient takes from them."""

    def __init__(
        self,
        net: NoiseConditionalNet,
        count: int,
        size: tuple[int, int],
        *,
        weight: float,
        noise_range: tuple[float, float],
        seed: int,
        device: torch.device,
        above: CoarserChains | None = None,
        pattern: Pattern | None = None,
        largest_gap: float = LARGEST_DIFFERENCE,
    ) -> None:
        """`count` chains to compare with images of `size`; `weight` is that of the gradient.

        `noise_range` is the lowest and the highest level, `above` where chains come from, `pattern`
        what they follow, where it fits; `largest_gap` is the bound on the gap.
        """
        self.net, self.size = net, size
        stride = net.total_stride
        around = SURROUNDINGS if net.image_size is None else 0
        canvas = [-(-(side + around) // stride) * stride for side in size]
        if pattern is not None and not pattern_fits(pattern, canvas, MOST_BENT_LEARNED):
            pattern = None
        self.weight, self.values = weight, count * net.channels * size[0] * size[1]
        share = min(1.0, math.log(noise_range[1] / noise_range[0]) / WAY)
        self.largest_gap = largest_gap * min(1.0, BOUNDED / count)
        self.band_gaps: BandedDifferences | None = None
        if net.image_size is not None:
            self.band_gaps = BandedDifferences(share, self.largest_gap)
        self.chains = PersistentChains(
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

    def slope(self, differences: Tensor) -> Tensor:
        """Of the objective, -1 to 1, where F of noisy images is so much above that of chains: (N,).

        Gradients are multiplied by it. A chain of which F is the higher one learns to the full. Of
        aligned images 1: theirs is in `held`.
        """
        if self.band_gaps is not None:
            return torch.ones_like(differences)
        gap = differences.clamp_min(0) / (self.values * self.largest_gap)
        return (1 - gap.square()).clamp_min(0) - (gap - TOO_FAR).clamp(0, 1)

    def counts(self, level: Tensor) -> Tensor:
        """What F of a noisy image, and minus F of a chain, counts in the gap at levels (N,)."""
        squared = level.square()
        telling = squared / (squared + SETTLED_LEVEL**2)
        return self.chains.walking() * telling / self.values

    def held(self) -> Tensor:
        """Of the objective's slope what is known before F is, (N,): 0 of chains that wait.

        1 of the others; of aligned images all there is, -1 to 1.
        """
        if self.band_gaps is None:
            return self.chains.walking()
        return torch.tensor(self.band_gaps.slopes(self.bands())).to(self.chains.images)

    def shares(self, level: Tensor) -> Tensor:
        """What F of a chain, and minus F of a noisy image, counts in the loss at levels (N,).

        To be multiplied by `slope`.
        """
        return self.weight * self.held() * self.counts(level)

    def bands(self) -> list[int | None]:
        """Of aligned images, which part of the way each chain is in; None: it waits."""
        return [] if self.band_gaps is None else self.chains.bands(len(self.band_gaps.means))

    def note(self, bands: Sequence[int | None], differences: Sequence[float]) -> None:
        """Of aligned images, take down by how much F of each was above that of its chain.

        `bands` are those of the chains at that time.
        """
        if self.band_gaps is not None:
            self.band_gaps.note(bands, [difference / self.values for difference in differences])

    def scores(
        self, prepared: PackedNet, crops: Tensor, level: Tensor
    ) -> tuple[Tensor, ForwardPass]:
        """F of crops of the chains (N,), and the way up to it, for its gradient.

        `prepared` are the parameters as they are now, `level` is where the chains are, (N,).
        """
        sigma = (level.square() + 1).sqrt()[:, None, None, None]
        up = forward(self.net, crops / sigma, level.log(), prepared, learning=True)
        return potential(self.net, up), up

    def means(self, prepared: PackedNet, images: Tensor, level: Tensor) -> Tensor:
        """D of whole chains, which are to `advance` with it: (N, C, H, W)."""
        if self.net.image_size is None:
            # On a torus, as textures are made: no border, where a ladder has learned nothing.
            prepared = replace(prepared, lattice=PaddingMode.CIRCULAR)
        return denoise_batch(self.net, images, level, prepared)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        if self.band_gaps is None:
            return self.chains.state()
        return {**self.chains.state(), "gap": self.band_gaps.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.chains.load_state(state)
        if self.band_gaps is not None:
            self.band_gaps.load_state(state["gap"])
