"""Learning ladders at several resolutions together, side by side, each its own range of levels.

Each ladder learns from the picture at its resolution, at the levels where it answers and at some
about them. In an iteration every ladder makes a step. Chains of the likelihood start from what
chains of the coarser ladder are at that level, as samples do.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gcn_cli.config import LadderConfig
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.ladder.chains import Above
from gcn_cli.learning.ladder.coarser import (
    SEEDS_APART,
    SETTLED_FULLY,
    SETTLING,
    SETTLING_GAP,
    coarser_batches,
    half_size,
    level_ranges,
    settling_rate,
)
from gcn_cli.learning.ladder.course import Weighed, length_for
from gcn_cli.learning.ladder.imputation import Imputation
from gcn_cli.learning.ladder.learner import REFINED_FULLY, REFINED_RATE, LadderLearner, fit_spectrum
from gcn_cli.learning.ladder.preview import preview
from gcn_cli.learning.ladder.refinement import LARGEST_GAP
from gcn_cli.learning.ladder.verdict import unrefined
from gcn_cli.learning.state import below
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.ladder.denoiser import fast_denoiser
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.spec import Lattice
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.sampling.noise import named_generator

FEWEST = 2  # images of a coarser ladder in an iteration


class OctavesLearner:
    """A learner for every ladder of a net; the first is that of full resolution."""

    def __init__(
        self,
        config: LadderConfig,
        net: LadderNet,
        observed: Batches,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        *,
        patterned: bool = False,
    ) -> None:
        """`net` has its coarser ladders, all at zero; `patterned`: the pictures repeat themselves.

        Raises ValueError where pictures or levels are too few for them.
        """
        self.asked, self.model, self.observed = config, net, observed
        self.device, self.dtype, self.ranks = device, dtype, ranks
        self.patterned = patterned
        nets, net.coarser = net.octaves(), nn.ModuleList()
        self.settling_rate = settling_rate(observed.batch_size, len(nets))
        coarser, contrasts = coarser_batches(config, observed, len(nets) - 1, nets[-1].total_stride)
        handovers, ranges = level_ranges(config, contrasts)
        assert net.contrasts is not None
        assert net.handovers is not None
        net.contrasts.copy_(torch.tensor(contrasts))
        net.handovers.copy_(torch.tensor(handovers))
        whole = math.log(config.noise_max / config.noise_min)
        # Of the way down the levels; together more than one, as they overlap.
        self.shares = [math.log(high / low) / whole for low, high in ranges]
        self.learners: list[LadderLearner] = []
        # The coarsest first: chains of each start from those of the one above.
        for number in reversed(range(len(nets))):
            learner = self._ladder(number, nets[number], [observed, *coarser][number], ranges)
            self.learners.insert(0, learner)
        net.coarser = nn.ModuleList(learner.model for learner in self.learners[1:])
        self.renewed = 0  # how often holes in the pictures have been filled anew
        for learner in self.learners:
            learner.imputation = None
        if observed.holes:
            # By all ladders together; what coarser ones see follows.
            self.first.imputation = Imputation(config.seed, config.noise_max, config.noise_min)

    def _ladder(
        self,
        number: int,
        net: LadderNet,
        batches: Batches,
        ranges: Sequence[tuple[float, float]],
    ) -> LadderLearner:
        """The learner of one ladder, below those that there are; its filters drawn."""
        lowest, highest = ranges[number]
        if number:
            # Narrower crops, more of them.
            narrower = self.observed.image_size[0] / batches.image_size[0]
            own = max(FEWEST, round(batches.batch_size * self.shares[number]))
            batches.batch_size = round(own * narrower)
        config = replace(
            self.asked,
            octaves=1,
            iterations=self.asked.length,
            refined=max(self.asked.refined, SETTLING if number else 0.0),
            batch_size=batches.batch_size,
            margin=0 if number else self.asked.margin,
            noise_min=lowest,
            noise_max=highest,
            seed=self.asked.seed + SEEDS_APART * number,
        )
        net.initialise(named_generator(config.seed, "layer", 0))
        fit_spectrum(net, batches)
        above = None
        if self.learners and self.learners[0].refinement is not None:
            _, contrast = self.model.handed_over()[number]
            chains = self.learners[0].refinement.chains
            chains.handed_at = highest * contrast / 2
            above = Above(chains, net.spectrum, contrast)
        return LadderLearner(
            config,
            net,
            batches,
            self.device,
            self.dtype,
            self.ranks,
            above,
            refined_rate=self.settling_rate if number else REFINED_RATE,
            refined_fully=SETTLED_FULLY if number else REFINED_FULLY,
            largest_gap=self._largest_gap(number),
        )

    def _largest_gap(self, number: int) -> float:
        """The bound on the gap of a ladder, the higher one of coarser ladders.

        Where samples are told a pattern, which these chains are not, it is for the coarsest alone:
        the next one would make up for a layout that samples have, and blacken joints.
        """
        wide = number == len(self.shares) - 1 if self.patterned else number > 0
        return SETTLING_GAP if wide else LARGEST_GAP

    @property
    def first(self) -> LadderLearner:
        """That of full resolution; all have the same course."""
        return self.learners[0]

    @property
    def config(self) -> LadderConfig:
        """Of all ladders together."""
        return replace(self.asked, iterations=self.iterations)

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.first.iterations

    def step(self, iteration: int) -> Metrics:
        """A step of every ladder; measures are means over the levels."""
        told = [learner.step(iteration) for learner in reversed(self.learners)][::-1]
        imputation = self.first.imputation
        if imputation is not None and imputation.renewed != self.renewed:
            self._refresh(imputation.renewed)
        pairs = list(zip(told, self.shares, strict=True))
        return {
            name: sum(share * own[name] for own, share in pairs) / sum(self.shares)
            for name in told[0]
        }

    def _refresh(self, renewed: int) -> None:
        """Make coarser pictures anew of what holes have been filled with."""
        pictures, self.renewed = self.observed.pictures, renewed
        for (_, contrast), learner in zip(self.model.handed_over(), self.learners[1:], strict=True):
            pictures = [contrast * half_size(picture) for picture in pictures]
            for number in learner.observed.holes:
                learner.observed.pictures[number] = pictures[number]

    @property
    def side_by_side(self) -> Weighed:
        """The course of every ladder; an iteration costs the pixels of its batch."""
        return [
            (own.observed.batch_size * math.prod(own.observed.image_size), own.course)
            for own in self.learners
        ]

    @property
    def turns(self) -> list[int]:
        """After which the likelihood of some ladders begins."""
        return sorted({learner.course.turn for learner in self.learners})

    def length_for(self, iteration: int, pace: float, left: float) -> int | None:
        """So many that all ladders have their shares; None once all have begun with likelihood."""
        return length_for(self.side_by_side, iteration, pace, left)

    def set_length(self, iterations: int) -> None:
        """Rates follow the new course from the next iteration on."""
        for learner in self.learners:
            learner.set_length(iterations)

    @property
    def was_extended(self) -> bool:
        """Whether this is not the first course."""
        return self.first.was_extended

    def extend(self, iterations: int) -> None:
        """A course of so many more: rates rise and fall again, and the likelihood has its part."""
        for learner in self.learners:
            learner.extend(iterations)

    def verdicts(self, history: Sequence[Metrics]) -> list[str]:
        """What became of the denoising, and of the likelihood after it, in the last course."""
        # The likelihood of coarser ladders makes their loss rise anew.
        return self.first.verdicts(history, since=self.turns[0])

    def cut_short(self, iteration: int) -> list[str]:
        """What a training that ends before its time lacks, and the remedy."""
        return [] if self.first.refinement is None else [unrefined(self.side_by_side, iteration)]

    def preview(self) -> Tensor:
        """Two samples of the running averages at the size of the crops."""
        denoise = fast_denoiser(self.model, self.dtype, Lattice.CIRCULAR)  # any size, so pooled
        return preview(self.asked, self.model, denoise, self.observed.image_size, self.device)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        kept = self.first.state()
        for number, learner in enumerate(self.learners[1:]):
            # Its model is a part of the first's.
            own = {n: t for n, t in learner.state().items() if not n.startswith("model.")}
            kept |= {f"octave{number + 1}.{name}": tensor for name, tensor in own.items()}
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.first.load_state(state)
        if self.first.imputation is not None and self.first.imputation.renewed:
            self._refresh(self.first.imputation.renewed)
        for number, learner in enumerate(self.learners[1:]):
            own = below(state, f"octave{number + 1}.")
            averages = below(state, f"model.coarser.{number}.")
            learner.load_state(own | {f"model.{name}": one for name, one in averages.items()})
