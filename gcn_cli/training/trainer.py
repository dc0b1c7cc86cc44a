"""What a training shows of its samples on the way.

Learning the ladder by denoising: contrastive divergence's "learn to reconstruct", with noise.

The levels of a batch are log-uniform between the lowest and the highest. Muon moves the filters,
Adam the rest; samples are drawn from the running average. The last part of the learning is by
maximum likelihood too (`refinement`).

Learning ladders at several resolutions together, side by side, each its own range of levels.

Each ladder learns from the picture at its resolution, at the levels where it answers and at some
about them. In an iteration every ladder makes a step. Chains of the likelihood start from what
chains of the coarser ladder are at that level, as samples do.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.models.backprop import pack, potential_gradient
from gcn_cli.models.cascade import NoiseLevelModel, make_denoiser
from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.pattern import Pattern
from gcn_cli.samplers.annealed import Denoiser, anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise, named_generator
from gcn_cli.training.data import (
    SEEDS_APART,
    SETTLED_FULLY,
    SETTLING,
    SETTLING_GAP,
    Imputation,
    TrainingData,
    coarse_likelihood_rate,
    coarser_data,
    half_size,
    largest_crop,
    level_ranges,
)
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Metrics
from gcn_cli.training.losses import (
    LARGEST_DIFFERENCE,
    LikelihoodLoss,
    counted_share,
    denoising_loss,
)
from gcn_cli.training.optim import StageOptimizer, substate, update_average
from gcn_cli.training.persistent_chains import CoarserChains
from gcn_cli.training.schedule import (
    Schedule,
    WeightedSchedules,
    check_divergence,
    convergence,
    difference_warning,
    length_for,
    too_short_warning,
)

PREVIEW_STEPS = 16


def preview_samples(
    config: NoiseConditionalConfig,
    net: NoiseConditionalNet,
    denoise: Denoiser,
    size: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """Two samples of a net, (2, C, H, W), down the levels of a config."""
    noise = ImageNoise(config.seed, "preview", range(2), device)
    levels = noise_levels(PREVIEW_STEPS, config.noise_max, config.noise_min)
    start = NoiseLevelModel(net, levels[0]).sigma * noise((2, net.channels, *size))
    return anneal(start, denoise, levels, noise)


REFINED_RATE = 0.1  # share of the learning rates at which the likelihood begins to count
# Iterations with it for which that holds, of textures and of aligned images: as many as the presets
# have.
REFINED_FULLY, REFINED_FULLY_ALIGNED = 200, 400
LONGEST_MEMORY = 0.999  # of the running average
REFINED_MEMORY = 0.98  # of the same while the likelihood counts, which soon changes samples


class StageTrainer:
    """A ladder, its running average and its optimizer; `step` is one iteration."""

    def __init__(
        self,
        config: NoiseConditionalConfig,
        model: NoiseConditionalNet,
        observed: TrainingData,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: ProcessGroup = SINGLE_PROCESS,
        above: CoarserChains | None = None,
        pattern: Pattern | None = None,
        refined_rate: float = REFINED_RATE,
        refined_fully: int = REFINED_FULLY,
        largest_gap: float = LARGEST_DIFFERENCE,
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
        self.descent = StageOptimizer(net, config.filter_rate, config.learning_rate)
        self.refinement = None
        if config.refined_share:
            self.refinement = self._make_refinement(above, pattern, largest_gap)
        self.imputation = None
        if observed.holes:
            self.imputation = Imputation(config.seed, config.noise_max, config.noise_min)
        self.noise_generator = named_generator(config.seed, "denoising", device=device)
        self._evaluate = GraphedFunction(self._evaluated)

    def _make_refinement(
        self, above: CoarserChains | None, pattern: Pattern | None, largest_gap: float
    ) -> LikelihoodLoss:
        config = self.config
        return LikelihoodLoss(
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
        check_divergence(iteration, *numbers[:4])
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
        net, prepared = self.net, pack(self.net, self.dtype)
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
        for name, gradient in potential_gradient(net, up, counted).items():
            gradients[name] += gradient
        return loss, differences, gradients, refinement.means(prepared, images, level)

    @property
    def course(self) -> Schedule:
        """The present one."""
        share = self.config.refined_share
        return Schedule(self.begun, self.iterations, share, self.refined_rate, self.refined_fully)

    @property
    def side_by_side(self) -> WeightedSchedules:
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
            convergence([row["loss"] for row in history if first < row["iteration"] <= turn]),
            difference_warning([row["gap"] for row in history if row["iteration"] > turn]),
        )
        return [sentence for sentence in said if sentence is not None]

    def cut_short(self, iteration: int) -> list[str]:
        """What a training that ends before its time lacks, and the remedy."""
        return [] if self.refinement is None else [too_short_warning(self.side_by_side, iteration)]

    def preview(self) -> Tensor:
        """Two samples of the running average at the size of the crops."""
        denoise = make_denoiser(self.model, self.dtype)
        return preview_samples(
            self.config, self.model, denoise, self.observed.image_size, self.device
        )

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
        self.net.load_state_dict(substate(state, "net."))
        self.model.load_state_dict(substate(state, "model."))
        self.descent.load_state(state)
        if self.refinement:
            self.refinement.load_state(substate(state, "chains."))
        if self.imputation:
            self.imputation.load_state(substate(state, "holes."), self.observed)
        self.begun = int(state.get("begun", 0))
        self.noise_generator.set_state(state["noise"])
        self.observed.generator.set_state(state["batches"])

    def _descend(self, gradients: dict[str, Tensor], iteration: int) -> None:
        """One step of the net and one of the running average."""
        self.descent.step(gradients, self.course.rate(iteration))
        # A short memory at first, so that the average is never dominated by the start.
        longest = REFINED_MEMORY if iteration > self.course.turn else LONGEST_MEMORY
        update_average(self.model, self.net, min(longest, iteration / (iteration + 9)))

    def _levels(self, count: int) -> Tensor:
        """One level an image, spread evenly over the ladder about one random offset."""
        config = self.config
        offset = torch.rand(1, generator=self.noise_generator, device=self.device)
        place = (torch.arange(count, device=self.device) + offset) / count
        span = math.log(config.noise_max / config.noise_min)
        return config.noise_min * torch.exp(span * place)


def fit_spectrum(net: NoiseConditionalNet, observed: TrainingData) -> None:
    """Measure the spectrum of the pictures of a texture."""
    # Half a picture at most, so that there are several windows to take the mean of.
    half = min(largest_crop(picture) for picture in observed.pictures) // 2
    net.spectrum.fit(observed.pictures, min(half, *observed.image_size))


FEWEST = 2  # images of a coarser ladder in an iteration


class CascadeTrainer:
    """A learner for every ladder of a net; the first is that of full resolution."""

    def __init__(
        self,
        config: NoiseConditionalConfig,
        net: NoiseConditionalNet,
        observed: TrainingData,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: ProcessGroup = SINGLE_PROCESS,
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
        self.settling_rate = coarse_likelihood_rate(observed.batch_size, len(nets))
        coarser, contrasts = coarser_data(config, observed, len(nets) - 1, nets[-1].total_stride)
        handovers, ranges = level_ranges(config, contrasts)
        assert net.contrasts is not None
        assert net.handovers is not None
        net.contrasts.copy_(torch.tensor(contrasts))
        net.handovers.copy_(torch.tensor(handovers))
        whole = math.log(config.noise_max / config.noise_min)
        # Of the way down the levels; together more than one, as they overlap.
        self.shares = [math.log(high / low) / whole for low, high in ranges]
        self.learners: list[StageTrainer] = []
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
        net: NoiseConditionalNet,
        batches: TrainingData,
        ranges: Sequence[tuple[float, float]],
    ) -> StageTrainer:
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
        net.initialize(named_generator(config.seed, "layer", 0))
        fit_spectrum(net, batches)
        above = None
        if self.learners and self.learners[0].refinement is not None:
            _, contrast = self.model.handed_over()[number]
            chains = self.learners[0].refinement.chains
            chains.handed_at = highest * contrast / 2
            above = CoarserChains(chains, net.spectrum, contrast)
        return StageTrainer(
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
        return SETTLING_GAP if wide else LARGEST_DIFFERENCE

    @property
    def first(self) -> StageTrainer:
        """That of full resolution; all have the same course."""
        return self.learners[0]

    @property
    def config(self) -> NoiseConditionalConfig:
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
    def side_by_side(self) -> WeightedSchedules:
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
        return (
            []
            if self.first.refinement is None
            else [too_short_warning(self.side_by_side, iteration)]
        )

    def preview(self) -> Tensor:
        """Two samples of the running averages at the size of the crops."""
        denoise = make_denoiser(self.model, self.dtype, PaddingMode.CIRCULAR)  # any size, so pooled
        return preview_samples(
            self.asked, self.model, denoise, self.observed.image_size, self.device
        )

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
            own = substate(state, f"octave{number + 1}.")
            averages = substate(state, f"model.coarser.{number}.")
            learner.load_state(own | {f"model.{name}": one for name, one in averages.items()})
