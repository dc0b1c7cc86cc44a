"""Training losses of noise-conditional models: denoising, and maximum likelihood by chains.

The denoising loss, whose gradient takes a double backward pass, since D holds grad F, is

    loss = mean over images and levels s of |D_s(I + s Z) - I|^2 (s^2 + 1) / s^2.

Denoising never shows the model its own samples, whose errors add up over the levels. The last part
of training is therefore also maximum likelihood (Algorithm 1 of the paper) at all levels at once,
with persistent chains that walk down the levels:

    s dL/dw = mean over noisy data dF/dw - mean over chains dF/dw,

the likelihood gradient times s, since f is F / s plus a term without parameters.

Levels well below RESOLVED_LEVEL count less: there a chain carries the errors of all higher levels
and, with one step for each level, has no time to correct them.

The clamp. Where chains cannot follow, F would learn to separate them from the data better and
better, and denoising and samples would degrade. So for the energy difference d of each image, its F
minus that of its chain, the objective is d - d^3 / (3 b^2) up to the bound b and constant beyond:
memorized images exceed the bound permanently. Above OVERSHOT times b it falls: such a chain made
too large a step, and a steeper F would make the next step larger. For n chains of C x H x W values

    b = max_difference min(n, BOUNDED_CHAINS) C H W.

Aligned images, such as faces or digits, differ in F from each other by more than a chain from its
data, and a clamp on each image would ignore one kind of image. For them the clamp acts on running
means over chains, separately in BANDS bands of noise levels: with one mean for all levels a single
band could diverge.
"""

import itertools
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
from gcn_cli.models.cascade import add_potential_gradient_, denoise_batch
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.pattern import Pattern, strain_on_torus
from gcn_cli.training.persistent_chains import CoarserChains, PersistentChains
from gcn_cli.training.schedule import StageSettings


class DenoisingLoss(NamedTuple):
    """The loss of a batch and its gradients."""

    loss: Tensor
    potentials: Tensor | None  # F of the noisy images (N,), if `potential_weights` was given
    gradients: dict[str, Tensor]  # of the loss plus the weighted potentials, by parameter name


@torch.no_grad()
def denoising_loss(
    packed: PackedNet,
    clean: Tensor,
    noise: Tensor,
    level: Tensor,
    potential_weights: Callable[[Tensor], Tensor] | None = None,
    *,
    known: Tensor | None = None,
    phases: Tensor | None = None,
    margin: int,
) -> DenoisingLoss:
    """The loss of clean images (N, C, H, W) at levels (N,), with its parameter gradients.

    `noise` is standard normal. Errors within `margin` pixels of the border, and where `known` (N,
    1, H, W) is 0, do not count. `potential_weights` maps F of the noisy images (N,) to weights
    (N,); the gradient of the weighted F is added. phases: of the lattice, (N, axes, h, w).
    """
    deviation = level[:, None, None, None]
    sigma = (deviation.square() + 1).sqrt()
    outward = deviation / sigma
    noisy = clean + deviation * noise
    forward_pass = forward(packed, noisy / sigma, level.log(), phases, training=True)
    backward_pass = backward(forward_pass)
    error = packed.net.spectrum.posterior_mean(noisy, level, packed.net.padding_mode) - clean
    add_potential_gradient_(error, outward, backward_pass.input_gradient)
    weights = torch.zeros_like(error)
    inner = slice(margin, -margin or None)
    weights[:, :, inner, inner] = 1 / error[:, :, inner, inner].numel()
    if known is not None:
        weights.mul_(known).div_(weights.sum())
    loss = (error.square() / outward.square() * weights).sum()
    # d loss / d grad F, scaled to a maximum of 1 for narrow number formats, and back afterwards.
    direction = 2 * error * weights / outward
    largest = direction.abs().max().clamp_min(1e-30)
    potentials, scaled_weights = None, None
    if potential_weights is not None:
        potentials = potential(forward_pass)
        scaled_weights = potential_weights(potentials) / largest
    gradients = double_backward(forward_pass, backward_pass, direction / largest, scaled_weights)
    scaled = torch._foreach_mul(list(gradients.values()), largest)
    return DenoisingLoss(loss, potentials, dict(zip(gradients, scaled, strict=True)))


def counted_share(mask: Tensor | None, images: int, shard: slice, margin: int) -> Tensor:
    """The share of all pixels in the loss of a batch that lies in the images of `shard`."""
    if mask is None:
        return torch.tensor((shard.stop - shard.start) / images)
    inner = mask[:, :, margin : -margin or None, margin : -margin or None]
    return inner[shard].sum() / inner.sum()


BANDS = 8  # of the whole range of noise levels
MEMORY = 0.8  # of the running mean of a band, from one chain in it to the next


class BandedDifferences:
    """Running means of the energy difference per value in bands of noise levels, highest first."""

    def __init__(self, share: float, bound: float, device: torch.device) -> None:
        """`share`: of the whole range of levels; `bound`: of the clamp."""
        precise = torch.float32 if device.type == "mps" else torch.float64
        count = max(2, round(BANDS * share))
        self.means = torch.zeros(count, dtype=precise, device=device)
        self.bound = bound

    def update(self, bands: Tensor, differences: Tensor) -> None:
        """Add the difference of each chain to the mean of its band, both (N,).

        bands: indices, -1 for a chain that waits. Values above the bound are clipped to sqrt(2)
        times the bound.
        """
        indices = torch.arange(len(self.means), device=self.means.device)
        clipped = differences.to(self.means).clamp(0.0, 2**0.5 * self.bound)
        for band, difference in zip(bands, clipped, strict=True):
            updated = self.means + (1 - MEMORY) * (difference - self.means)
            self.means.copy_(torch.where(indices == band, updated, self.means))

    def slopes(self, bands: Tensor) -> Tensor:
        """Slope of d - d^3 / (3 bound^2) in each chain's band, -1 to 1; 0 for waiting chains."""
        slopes = 1 - (self.means / self.bound).square()
        return torch.where(bands >= 0, slopes[bands.clamp_min(0).long()], 0.0)


CHAIN_STEPS = 16  # of a chain over the whole range of levels; a sample takes more
WHOLE_RANGE = math.log(100 / 0.03)  # of noise levels; a smaller range has fewer steps and bands
RESOLVED_LEVEL = 0.3  # noise level below which the content of an image is decided
MAX_DIFFERENCE = 0.02  # per value, all chains together; chains that follow F stay well below
BOUNDED_CHAINS = 4  # a bound that grew with the number of chains would let many diverge
OVERSHOT = 2.0  # times the bound
MAX_STRAIN = 0.02  # of the lattice to fit the chains; likelihood would learn it as an error
LARGEST_CHAIN = 1.6  # times the usual side, so that the lattice fits the chains
SURROUNDINGS = 32  # pixels by which the torus of a chain exceeds the crops taken from it


def whole_periods(pattern: Pattern, size: Sequence[int], stride: int) -> list[int]:
    """The smallest torus (H, W), at least `size`, on which the lattice keeps its shape.

    Sides are multiples of the stride. The lattice is strained by MAX_STRAIN at most, or as little
    as sides up to LARGEST_CHAIN times `size` allow.
    """
    steps = [range(side, round(LARGEST_CHAIN * side) + 1, stride) for side in size]
    sizes = sorted(itertools.product(*steps), key=math.prod)
    strains = [strain_on_torus(pattern, torus) for torus in sizes]
    fitting = [torus for torus, bent in zip(sizes, strains, strict=True) if bent <= MAX_STRAIN]
    return list(fitting[0] if fitting else sizes[strains.index(min(strains))])


class LikelihoodLoss:
    """Persistent chains of a net and the weights of the likelihood gradient.

    Differences are F of a noisy image minus F of its chain, (N,). The gradient of the loss is the
    gradient of the sum of `weights` times `slopes` times (F of the chain - F of the noisy image).
    """

    def __init__(
        self,
        net: NoiseConditionalNet,
        count: int,
        size: tuple[int, int],
        settings: StageSettings,
        *,
        weight: float,
        coarser: CoarserChains | None = None,
        pattern: Pattern | None = None,
    ) -> None:
        """`count` chains for batches of images of `size` (H, W); `weight` of the gradient.

        `pattern`: in the pixels of the net. `coarser`: see `PersistentChains`.
        """
        self.net, self.size, self.weight = net, size, weight
        self.values = count * net.channels * size[0] * size[1]
        share = min(1.0, settings.log_range / WHOLE_RANGE)
        self.max_difference = settings.max_difference * min(1.0, BOUNDED_CHAINS / count)
        self.aligned = net.image_size is not None
        self.banded = (
            BandedDifferences(share, self.max_difference, net.device) if self.aligned else None
        )
        extra, stride = 0 if self.aligned else SURROUNDINGS, net.total_stride
        torus = [-(-(side + extra) // stride) * stride for side in size]
        if pattern is not None and coarser is None:
            torus = whole_periods(pattern, torus, stride)
        self.chains = PersistentChains(
            count,
            (net.channels, *torus),
            steps=max(4, round(CHAIN_STEPS * share)),
            coarser=coarser,
            pattern=pattern,
            transition_level=settings.transition_level,
            lowest=settings.noise_min,
            highest=settings.noise_max,
            seed=settings.seed,
            device=net.device,
        )

    def slopes(self, differences: Tensor) -> Tensor:
        """Slope of the clamped objective at each difference: (N,) -> (N,), -1 to 1.

        1 for negative differences. For aligned images always 1: `base_slopes` has the clamp.
        """
        if self.aligned:
            return torch.ones_like(differences)
        relative = differences.clamp_min(0) / (self.values * self.max_difference)
        return (1 - relative.square()).clamp_min(0) - (relative - OVERSHOT).clamp(0, 1)

    def step_values(self) -> list[list[float]]:
        """Four rows of N numbers: those of `PersistentChains.step_values`, and bands.

        The band of levels of each chain is -1 if it waits, and for images that are not aligned.
        """
        count = len(self.chains.images)
        bands = [-1.0] * count if self.banded is None else self.chains.bands(len(self.banded.means))
        return [*self.chains.step_values(), bands]

    def base_slopes(self, values: Tensor) -> Tensor:
        """The factor of the slope that does not depend on this batch's F, (N,).

        0 for waiting chains, else 1; for aligned images the clamp of the chain's band. values: of
        `step_values`, (4, N).
        """
        _, active, _, bands = values.unbind()
        return active if self.banded is None else self.banded.slopes(bands).to(active)

    def level_weights(self, values: Tensor) -> Tensor:
        """Weights (N,) of the differences in the mean difference per value."""
        level, active, _, _ = values.unbind()
        squared = level.square()
        resolved = squared / (squared + RESOLVED_LEVEL**2)
        return active * resolved / self.values

    def weights(self, values: Tensor) -> Tensor:
        """Weights (N,) of the differences in the loss, before `slopes`."""
        return self.weight * self.base_slopes(values) * self.level_weights(values)

    def update(self, values: Tensor, differences: Tensor) -> None:
        """Update the running means of aligned images by the differences (N,)."""
        if self.banded is not None:
            self.banded.update(values[3], differences.to(self.banded.means) / self.values)

    def chain_potentials(
        self, packed: PackedNet, crops: Tensor, level: Tensor, phases: Tensor | None
    ) -> tuple[Tensor, ForwardPass]:
        """F of crops of the chains (N,) at levels (N,), and the forward pass for its gradient."""
        sigma = (level.square() + 1).sqrt()[:, None, None, None]
        forward_pass = forward(packed, crops / sigma, level.log(), phases, training=True)
        return potential(forward_pass), forward_pass

    def denoise_chains(
        self, packed: PackedNet, images: Tensor, level: Tensor, phases: Tensor | None
    ) -> Tensor:
        """D of whole chains (N, C, H, W) at levels (N,), for `PersistentChains.advance`."""
        if not self.aligned:  # on a torus, as textures are sampled: the loss leaves borders out
            packed = replace(packed, padding_mode=PaddingMode.CIRCULAR)
        phase_map = None if phases is None else lambda rows, columns: phases
        return denoise_batch(self.net, images, level, packed, phases=phase_map)

    def state(self) -> dict[str, Tensor]:
        state = self.chains.state()
        if self.banded is not None:
            state["difference_means"] = self.banded.means
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.chains.load_state(state)
        if self.banded is not None:
            self.banded.means.copy_(state["difference_means"])
