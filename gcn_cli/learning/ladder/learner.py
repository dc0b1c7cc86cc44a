"""Learning the ladder by denoising: contrastive divergence's "learn to reconstruct", with noise.

The levels of a batch are log-uniform between the lowest and the highest. Muon moves the filters,
Adam the rest; samples are drawn from the running average. The last part of the learning is by
maximum likelihood too (`refinement`).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gcn_cli.config import LadderConfig
from gcn_cli.learning.batches import Batches, roomiest
from gcn_cli.learning.ladder.chains import Above
from gcn_cli.learning.ladder.course import Course, Weighed, length_for
from gcn_cli.learning.ladder.descent import Descent, follow
from gcn_cli.learning.ladder.imputation import Imputation
from gcn_cli.learning.ladder.loss import counted_share, denoising_loss
from gcn_cli.learning.ladder.preview import preview
from gcn_cli.learning.ladder.refinement import LARGEST_GAP, Refinement
from gcn_cli.learning.ladder.verdict import apart, check_course, unrefined, verdict
from gcn_cli.learning.state import below
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.capture import Captured
from gcn_cli.model.ladder.denoiser import fast_denoiser
from gcn_cli.model.ladder.double_pass import score_gradient
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import prepare
from gcn_cli.model.pattern import Pattern
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.sampling.noise import named_generator

REFINED_RATE = 0.1  # share of the learning rates at which the likelihood begins to count
# Iterations with it for which that holds, of textures and of aligned images: as many as the presets
# have.
REFINED_FULLY, REFINED_FULLY_ALIGNED = 200, 400
LONGEST_MEMORY = 0.999  # of the running average
REFINED_MEMORY = 0.98  # of the same while the likelihood counts, which soon changes samples


class LadderLearner:
    """A ladder, its running average and its optimiser; `step` is one iteration."""

    def __init__(
        self,
        config: LadderConfig,
        model: LadderNet,
        observed: Batches,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        above: Above | None = None,
        pattern: Pattern | None = None,
        refined_rate: float = REFINED_RATE,
        refined_fully: int = REFINED_FULLY,
        largest_gap: float = LARGEST_GAP,
    ) -> None:
        """`ranks` share the images of every batch, `above` are the chains of a coarser ladder.

        `pattern` is what chains follow, `refined_rate` the share of the learning rates
        at which the likelihood begins to count, if it does for `refined_fully` iterations or less,
        `largest_gap` the bound on what it tells apart.
        """
        self.config, self.observed, self.ranks = config, observed, ranks
        self.refined_rate, self.refined_fully = refined_rate, refined_fully
        self.device, self.dtype = device, dtype
        self.begun = 0  # iterations before the present course of rates
        self.net = net = copy.deepcopy(model)  # what is learned
        self.model = model.requires_grad_(False)  # what is sampled: its running average
        self.descent = Descent(net, config.filter_rate, config.learning_rate)
        self.refinement = None
        if config.refined_share:
            self.refinement = self._make_refinement(above, pattern, largest_gap)
        self.imputation = None
        if observed.holes:
            self.imputation = Imputation(config.seed, config.noise_max, config.noise_min)
        self.noise_generator = named_generator(config.seed, "denoising", device=device)
        self._evaluate = Captured(self._evaluated)

    def _make_refinement(
        self, above: Above | None, pattern: Pattern | None, largest_gap: float
    ) -> Refinement:
        config = self.config
        return Refinement(
            self.net,
            self.observed.batch_size,
            self.observed.image_size,
            weight=config.likelihood,
            noise_range=(config.noise_min, config.noise_max),
            seed=config.seed,
            device=self.device,
            above=above,
            pattern=pattern,
            largest_gap=largest_gap,
        )

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.config.length

    @torch.no_grad()
    def step(self, iteration: int) -> dict[str, float]:
        """Iteration number `iteration`, from 1: noise, denoise, compare, learn.

        Returns the denoising loss, the gap in F a value between noisy data and chains, and the
        weight that the likelihood had.
        """
        if self.imputation and self.imputation.due(iteration / self.iterations):
            self.imputation.renew(self.observed, self.model, self.dtype)
        clean, mask = self.observed.observe()
        known = clean.new_ones(1) if mask is None else mask
        refinement = self.refinement if iteration > self.course.turn else None
        level = refinement.chains.levels() if refinement else self._levels(len(clean))
        drawn = torch.randn(clean.shape, generator=self.noise_generator, device=self.device)
        own = self.ranks.share(len(clean))
        idle = own.start == own.stop  # as fewer images than processes leave some
        mine = slice(0, 1) if idle else own
        counted = counted_share(mask, len(clean), mine, self.config.margin)
        compared: tuple[Tensor, ...] = ()
        bands: list[int | None] = []
        if refinement:
            counts, bands = refinement.counts(level), refinement.bands()
            crops, images = refinement.chains.crops(refinement.size), refinement.chains.images
            shares = refinement.shares(level) / counted
            compared = (shares[mine], crops[mine], images[mine])
        seen = known if mask is None else known[mine]
        loss, differences, gradients, means = self._evaluate(
            clean[mine], drawn[mine], level[mine], seen, *compared
        )
        loss = self._added_up(loss, gradients, 0 * counted if idle else counted)
        spread, gap, weight = loss.new_ones(1), loss.new_zeros(()), loss.new_zeros(())
        if refinement and means is not None:
            if idle:
                differences, means = differences[:0], means[:0]
            differences = self.ranks.gathered(differences, len(clean))
            gap = (counts * differences).sum()
            slope = refinement.held() * refinement.slope(differences)
            weight = refinement.weight * slope.mean()
            refinement.chains.advance(self.ranks.gathered(means, len(clean)))
            spread = refinement.chains.spread()
        self._descend(gradients, iteration)
        told = torch.stack([loss, gap, spread.min(), spread.max(), weight])
        # At once: each look waits for the device.
        numbers = torch.cat([told, differences.to(told)]).tolist()
        check_course(iteration, *numbers[:4])
        if refinement:
            refinement.note(bands, numbers[5:])
        return {"loss": numbers[0], "gap": numbers[1], "likelihood": numbers[4]}

    def _added_up(self, loss: Tensor, gradients: dict[str, Tensor], counted: Tensor) -> Tensor:
        """The loss of all ranks; gradients are added up in place.

        Loss and gradients are of this rank's images, which are so much of all that count.
        """
        if self.ranks.count == 1:
            return loss
        whole = loss * counted
        for gradient in gradients.values():
            gradient.mul_(counted)
        self.ranks.sum_([whole, *gradients.values()])
        return whole

    def _evaluated(
        self, clean: Tensor, drawn: Tensor, level: Tensor, known: Tensor, *compared: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None]:
        """The loss, by how much F of each noisy image is above that of its chain (N,), gradients of
        both, and D of the chains: all that a step reads of the net.

        `known`: which pixels are, one number where all are. `compared`: what F counts in the loss
        (N,), crops of the chains, the chains.
        """
        net, prepared = self.net, prepare(self.net, self.dtype)
        mask = known if known.ndim > 1 else None
        learn = partial(denoising_loss, net, clean, drawn, level, known=mask)
        margin = self.config.margin
        if self.refinement is None or not compared:
            loss, _, gradients = learn(margin=margin, prepared=prepared)
            return loss, loss.new_zeros(len(clean)), gradients, None
        refinement, (shares, crops, images) = self.refinement, compared
        scores_there, up = refinement.scores(prepared, crops, level)
        loss, scores, gradients = learn(
            lambda own: -shares * refinement.slope(own - scores_there),
            margin=margin,
            prepared=prepared,
        )
        assert scores is not None
        differences = scores - scores_there
        counted = shares * refinement.slope(differences)
        for name, gradient in score_gradient(net, up, counted).items():
            gradients[name] += gradient
        return loss, differences, gradients, refinement.means(prepared, images, level)

    @property
    def course(self) -> Course:
        """The present one."""
        share = self.config.refined_share
        return Course(self.begun, self.iterations, share, self.refined_rate, self.refined_fully)

    @property
    def side_by_side(self) -> Weighed:
        """The course, alone."""
        return [(1.0, self.course)]

    @property
    def turns(self) -> list[int]:
        """Where iterations begin to take longer: after the last of denoising alone."""
        return [self.course.turn]

    def length_for(self, iteration: int, pace: float, left: float) -> int | None:
        """So many that denoising and likelihood have their shares; None once the latter began."""
        return length_for(self.side_by_side, iteration, pace, left)

    def set_length(self, iterations: int) -> None:
        """Rates follow the new course from the next iteration on."""
        self.config = replace(self.config, iterations=iterations)

    @property
    def was_extended(self) -> bool:
        """Whether this is not the first course."""
        return self.begun > 0

    def extend(self, iterations: int) -> None:
        """A course of so many more: rates rise and fall again, and the likelihood has its part."""
        self.begun = self.iterations
        self.set_length(self.iterations + iterations)

    def verdicts(self, history: Sequence[Metrics], since: int = 0) -> list[str]:
        """What became of the denoising, and of the likelihood after it, in the last course.

        Losses count after iteration `since`. Rows count by their "iteration", wherever they are.
        """
        turn, first = self.course.turn, max(since, self.begun)
        said = (
            verdict([row["loss"] for row in history if first < row["iteration"] <= turn]),
            apart([row["gap"] for row in history if row["iteration"] > turn]),
        )
        return [sentence for sentence in said if sentence is not None]

    def cut_short(self, iteration: int) -> list[str]:
        """What a training that ends before its time lacks, and the remedy."""
        return [] if self.refinement is None else [unrefined(self.side_by_side, iteration)]

    def preview(self) -> Tensor:
        """Two samples of the running average at the size of the crops."""
        denoise = fast_denoiser(self.model, self.dtype)
        return preview(self.config, self.model, denoise, self.observed.image_size, self.device)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        chains = self.refinement.state() if self.refinement else {}
        holes = self.imputation.state(self.observed) if self.imputation else {}
        return {
            **{f"net.{name}": tensor for name, tensor in self.net.state_dict().items()},
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **self.descent.state(),
            **{f"chains.{key}": value for key, value in chains.items()},
            **{f"holes.{key}": value for key, value in holes.items()},
            "begun": torch.tensor(self.begun),
            "noise": self.noise_generator.get_state(),
            "batches": self.observed.generator.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.net.load_state_dict(below(state, "net."))
        self.model.load_state_dict(below(state, "model."))
        self.descent.load_state(state)
        if self.refinement:
            self.refinement.load_state(below(state, "chains."))
        if self.imputation:
            self.imputation.load_state(below(state, "holes."), self.observed)
        self.begun = int(state.get("begun", 0))
        self.noise_generator.set_state(state["noise"])
        self.observed.generator.set_state(state["batches"])

    def _descend(self, gradients: dict[str, Tensor], iteration: int) -> None:
        """One step of the net and one of the running average."""
        self.descent.step(gradients, self.course.rate(iteration))
        # A short memory at first, so that the average is never dominated by the start.
        longest = REFINED_MEMORY if iteration > self.course.turn else LONGEST_MEMORY
        follow(self.model, self.net, min(longest, iteration / (iteration + 9)))

    def _levels(self, count: int) -> Tensor:
        """One level an image, spread evenly over the ladder about one random offset."""
        config = self.config
        offset = torch.rand(1, generator=self.noise_generator, device=self.device)
        place = (torch.arange(count, device=self.device) + offset) / count
        span = math.log(config.noise_max / config.noise_min)
        return config.noise_min * torch.exp(span * place)


def fit_spectrum(net: LadderNet, observed: Batches) -> None:
    """Measure the spectrum of the pictures of a texture."""
    # Half a picture at most, so that there are several windows to take the mean of.
    half = min(roomiest(picture) for picture in observed.pictures) // 2
    net.spectrum.fit(observed.pictures, min(half, *observed.image_size))
