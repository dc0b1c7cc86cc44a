"""Training of a resolution cascade: all stages side by side, by denoising, then by likelihood too.

Each stage learns from the images at its resolution, at the noise levels it is in charge of and
some around them; an iteration is a step of every stage. The noise levels of a batch are
log-uniform. Muon updates the filters, Adam the rest; samples use the running average. The last part
of the training also maximizes the likelihood (`losses.py`), with persistent chains that start from
those of the next coarser stage, as samples do.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.models.backprop import pack, potential_gradient
from gcn_cli.models.cascade import Cascade, make_denoiser
from gcn_cli.models.cuda_graph import GraphedFunction, SideStream, from_host
from gcn_cli.models.layers import PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.pattern import Pattern
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise, named_generator, restore_generator
from gcn_cli.training.data import (
    STAGE_SEED_STEP,
    Imputation,
    TrainingData,
    coarser_data,
    downsample_known,
    largest_crop,
    turn_vectors,
)
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Metrics
from gcn_cli.training.losses import MAX_DIFFERENCE, LikelihoodLoss, counted_share, denoising_loss
from gcn_cli.training.optim import Number, StageOptimizer, substate, update_average, with_prefix
from gcn_cli.training.persistent_chains import CoarserChains
from gcn_cli.training.schedule import (
    Schedule,
    StageSettings,
    WeightedSchedules,
    check_divergence,
    convergence,
    difference_warning,
    length_for,
    too_short_warning,
)

# Transition level divided by the deviation of the details that downsampling removes: this noise
# hides them. First at full resolution, then at coarser ones, whose pixels are sharper.
TRANSITION_FACTORS = (2.5, 4.0)
# Stages also learn levels up to this factor above, and down to it below, the transition: chains
# over a longer range of levels show the errors of a stage.
LEVEL_OVERLAP = 2.5
# Samples change to the finest stage at this factor above the transition, within its range: it errs
# less there than the next stage, which knows much of its smaller images by heart.
FINEST_REACH = 1.6

LIKELIHOOD_RATE = 0.1  # share of the learning rates at which likelihood training starts
# Iterations of likelihood training that start at that rate: as many as the presets have.
FULL_RATE_ITERATIONS, FULL_RATE_ITERATIONS_ALIGNED = 200, 400

# Coarser stages learn large structures by likelihood: the denoising loss is low once local colors
# are right. So the share and the rate of the likelihood are higher there.
COARSE_LIKELIHOOD_SHARE = 0.8
COARSE_LIKELIHOOD_RATE = 0.3
COARSE_FULL_RATE_ITERATIONS = 560  # the default number
COARSE_RATE_IMAGES = 4  # images per iteration above which the rate falls in proportion
MANY_STAGES, MANY_STAGES_RATE = 4, 0.1  # with 4 or more, contrast diverges at the higher rate
# Bound on energy differences: whole structures differ by more than grain does; under the bound of
# full resolution joints and edges fade.
COARSE_MAX_DIFFERENCE = 0.035
MIN_COARSE_IMAGES = 2  # crops of full size per iteration

MEMORY = 0.999  # of the running average
LIKELIHOOD_MEMORY = 0.98  # the same during likelihood training, which changes samples quickly
PREVIEW_STEPS = 16


def level_ranges(
    config: NoiseConditionalConfig, gains: Sequence[float]
) -> tuple[list[float], list[tuple[float, float]]]:
    """The level at which samples change to each coarser stage, and the range of every stage.

    A range is the (lowest, highest) noise level that a stage learns, in deviations of its data; a
    change is in those of the finer stage. Downsampling keeps 1 / gain^2 of the variance. Raises
    ValueError if a stage has no levels left.
    """
    transitions, ranges = [], []
    lowest, highest = config.noise_min, config.noise_max
    for stage, gain in enumerate(gains):
        details = math.sqrt(max(0.0, 1 - 1 / gain**2))
        # Without details in the image there is little for the finer stage to do, but not nothing.
        transition = max(TRANSITION_FACTORS[min(stage, 1)] * details, 2 * lowest)
        if transition >= highest:
            raise ValueError(
                f"--set stages: noise_max is below the transition to stage {stage + 2}, "
                f"{transition:.2g}; use fewer stages"
            )
        ranges.append((lowest, min(LEVEL_OVERLAP * transition, highest)))
        reach = FINEST_REACH if stage == 0 else 1.0
        transitions.append(min(reach * transition, ranges[-1][1]))
        lowest, highest = transition * gain / 2 / LEVEL_OVERLAP, highest * gain / 2
    return transitions, [*ranges, (lowest, highest)]


def stage_settings(
    config: NoiseConditionalConfig,
    gains: Sequence[float],
    ranges: Sequence[tuple[float, float]],
    images: int,
) -> list[StageSettings]:
    """The settings of every stage, the finest first; `images` per iteration."""
    share, end, stages = config.fine_tuning_share, config.iteration_count, len(ranges)
    full_rate = FULL_RATE_ITERATIONS_ALIGNED if config.head else FULL_RATE_ITERATIONS
    finest = StageSettings(
        *ranges[0],
        seed=config.seed,
        margin=config.margin,
        max_difference=MAX_DIFFERENCE,
        transition_level=0,
        schedule=Schedule(0, end, share, LIKELIHOOD_RATE, full_rate),
    )
    # The more images, the less of a Muon step, whose length is fixed, is chance.
    rate = COARSE_LIKELIHOOD_RATE if stages < MANY_STAGES else MANY_STAGES_RATE
    rate *= min(1.0, COARSE_RATE_IMAGES / images)
    coarse_share = max(share, COARSE_LIKELIHOOD_SHARE) if share else 0.0
    coarse = [
        StageSettings(
            *ranges[stage],
            seed=config.seed + STAGE_SEED_STEP * stage,
            margin=0,  # F would separate crops by pixels that do not count, and D diverge there
            max_difference=COARSE_MAX_DIFFERENCE,
            transition_level=ranges[stage - 1][1] * gains[stage - 1] / 2,
            schedule=Schedule(0, end, coarse_share, rate, COARSE_FULL_RATE_ITERATIONS),
        )
        for stage in range(1, stages)
    ]
    return [finest, *coarse]


def fit_spectrum(net: NoiseConditionalNet, data: TrainingData) -> None:
    """Measure the power spectrum of the training images; of aligned images the mean too."""
    if net.image_size is not None:
        mirrored = [image.flip(-1) for image in data.images] if data.flips else []
        mirrored = [turn_vectors(image, True, 0, data.normals) for image in mirrored]
        net.spectrum.fit_aligned([*data.images, *mirrored])
        return
    # Windows of half an image at most, to average over several.
    half = min(map(largest_crop, data.known)) // 2
    net.spectrum.fit(data.images, min(half, *data.image_size), data.known)


class Evaluation(NamedTuple):
    """The loss of a batch, and what follows from the same passes."""

    loss: Tensor
    differences: Tensor  # of the energies, noisy data minus chains, (N,); 0 without likelihood
    gradients: dict[str, Tensor]  # by parameter name
    means: Tensor | None  # D of whole chains, (N, C, H, W)


FIGURES = ("loss", "energy_difference", "likelihood", "lowest_deviation", "highest_deviation")
"""What a step of a stage returns: the denoising loss; the mean F per value of noisy data minus that
of chains; the weight of the likelihood after the clamp; and of the deviations of the chains over
those of noisy data the lowest and the highest."""
METRICS = FIGURES[:3]  # that are logged


class Stage:
    """One net in training: its running average, data, optimizer, schedule and chains."""

    def __init__(
        self,
        config: NoiseConditionalConfig,
        settings: StageSettings,
        average: NoiseConditionalNet,
        data: TrainingData,
        dtype: torch.dtype,
        group: ProcessGroup,
        *,
        coarser: CoarserChains | None = None,
        pattern: Pattern | None = None,
    ) -> None:
        """Initializes `average`, the net that is sampled. `coarser`, `pattern`: of the chains."""
        self.settings, self.average, self.data = settings, average, data
        self.dtype, self.group = dtype, group
        average.initialize(named_generator(settings.seed, "layer", 0))
        fit_spectrum(average, data)
        self.net = copy.deepcopy(average)  # the net that is trained
        average.requires_grad_(False)
        self.optimizer = StageOptimizer(self.net, config.filter_rate, config.learning_rate)
        self.schedule = settings.schedule
        self.likelihood: LikelihoodLoss | None = None
        if self.schedule.likelihood_share:
            self.likelihood = LikelihoodLoss(
                self.net,
                data.batch_size,
                data.image_size,
                settings,
                weight=config.likelihood_weight,
                coarser=coarser,
                pattern=pattern,
            )
        self.noise = named_generator(settings.seed, "denoising", device=average.device)
        self._side = SideStream(average.device)
        # On a GPU one CUDA graph holds the whole step; several processes communicate in the middle
        # of it, and each has a graph of its share of the gradients.
        self._evaluate: Callable[..., Evaluation] = self._loss_and_gradients
        self._step: Callable[..., tuple[Tensor, Tensor | None]] = self._iterate
        if group.world_size == 1:
            self._step = GraphedFunction(self._iterate, state=self._changed_in_a_step)
        else:
            self._evaluate = GraphedFunction(self._loss_and_gradients)

    @torch.no_grad()
    def begin(self, iteration: int) -> list[Tensor | float]:
        """Draw what iteration number `iteration`, from 1, depends on: the inputs of `run`."""
        likelihood = self.likelihood if iteration > self.schedule.likelihood_start else None
        clean, known, phases = self.data.draw()
        device = clean.device
        mask = clean.new_ones(1) if known is None else known
        longest = LIKELIHOOD_MEMORY if likelihood else MEMORY
        # A short memory at first, so that the start does not dominate the average.
        memory = min(longest, iteration / (iteration + 9))
        scalars = [memory, *self.optimizer.scalars(self.schedule.rate(iteration))]
        values = None if likelihood is None else from_host(likelihood.step_values(), device)
        level = self._draw_levels(len(clean)) if values is None else values[0]
        noise = torch.randn(clean.shape, generator=self.noise, device=device)
        inputs: list[Tensor | float] = [clean, noise, level, mask, *scalars]
        if likelihood is None or values is None:
            return inputs if phases is None else [*inputs, phases]
        chains, step = likelihood.chains, self.data.phase_step
        crops, corners = chains.crops(likelihood.size)
        whole = (chains.images.shape[2], chains.images.shape[3])
        seen = (phases, chains.phases(likelihood.size, step, corners), chains.phases(whole, step))
        lattice = [part for part in seen if part is not None]
        chain_noise = chains.begin_step()
        return [*inputs, *lattice, values, crops, chain_noise]

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor | float]) -> tuple[Tensor, Tensor | None]:
        """The step itself. Returns figures and targets, which `end` takes."""
        return self._step(*inputs)

    @torch.no_grad()
    def end(self, figures: Tensor, targets: Tensor | None) -> Tensor:
        """Count the step of the chains. Returns the figures of the step, see `FIGURES`."""
        if targets is not None and self.likelihood is not None:
            self.likelihood.chains.end_step(targets)
        return figures.clone()  # a CUDA graph overwrites them

    def _iterate(
        self,
        clean: Tensor,
        noise: Tensor,
        level: Tensor,
        mask: Tensor,
        memory: Number,
        filter_rate: Number,
        decay: Number,
        step_size: Number,
        root: Number,
        *inputs: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """A step of the net, its running average and the chains. Reads no value into Python.

        mask: of known pixels (N, 1, H, W), or one number if all are. memory: of the running
        average; then come the scalars of the optimizer. inputs: with a lattice the phases of the
        images; with likelihood also those of crops of the chains and of whole chains, then the
        values of the step (4, N), crops of the chains and noise of the chains. Returns the
        figures, and the means that the chains moved towards.
        """
        count, likelihood = len(clean), None
        lattice_inputs = 0 if self.data.phases is None else 1
        if len(inputs) > lattice_inputs:
            likelihood, lattice_inputs = self.likelihood, 3 * lattice_inputs
        phases, chain_inputs = inputs[:lattice_inputs], inputs[lattice_inputs:]
        shard = self.group.shard(count)
        idle = shard.start == shard.stop  # fewer images than processes: compute one, count none
        shard = slice(0, 1) if idle else shard
        known = mask if mask.ndim > 1 else None
        share = counted_share(known, count, shard, self.settings.margin)
        given = [clean, noise, level, *([] if known is None else [known]), *phases]
        if likelihood is not None:
            values, crops, chain_noise = chain_inputs
            weights = likelihood.weights(values) / share
            given += [weights, crops, likelihood.chains.images]
        loss, differences, gradients, means = self._evaluate(*(x[shard] for x in given))
        loss = self._reduce_(loss, gradients, 0 * share if idle else share)
        difference, weight, targets = loss.new_zeros(()), loss.new_zeros(()), None
        deviations = loss.new_ones(1)
        if likelihood is not None:
            assert means is not None
            if idle:
                differences, means = differences[:0], means[:0]
            differences = self.group.gather(differences, count)
            difference = (likelihood.level_weights(values) * differences).sum()
            slopes = likelihood.base_slopes(values) * likelihood.slopes(differences)
            weight = likelihood.weight * slopes.mean()
            likelihood.update(values, differences)
            targets = likelihood.chains.move_(
                self.group.gather(means, count), values[:3], chain_noise
            )
            deviations = likelihood.chains.relative_deviation(values[:3])
        self.optimizer.step(gradients, filter_rate, decay, step_size, root)
        update_average(self.average, self.net, memory)
        figures = [loss, difference, weight, deviations.min(), deviations.max()]
        return torch.stack(figures).float(), targets

    def _changed_in_a_step(self) -> list[Tensor]:
        """What `_iterate` changes in place."""
        return [*self.average.parameters(), *self.state().values()]

    def _draw_levels(self, count: int) -> Tensor:
        """Noise levels (count,), evenly spaced in log s from a random offset."""
        device = self.average.device
        offset = torch.rand(1, generator=self.noise, device=device)
        position = (torch.arange(count, device=device) + offset) / count
        return self.settings.noise_min * torch.exp(self.settings.log_range * position)

    def _loss_and_gradients(
        self, clean: Tensor, noise: Tensor, level: Tensor, *inputs: Tensor
    ) -> Evaluation:
        """The loss and its gradients, and D of the chains.

        inputs: the mask, if there are holes; with a lattice the phases of the images; with
        likelihood also those of crops of the chains and of whole chains, then the weights of the
        energy differences (N,), crops of the chains, whole chains.
        """
        packed, margin = pack(self.net, self.dtype), self.settings.margin
        rest = list(inputs)
        mask = rest.pop(0) if self.data.holes else None
        phases: list[Tensor | None] = [None, None, None]
        chain_inputs = rest
        if self.data.phases is not None:
            count = 3 if len(rest) > 1 else 1  # each kind of image sees its own phases
            phases, chain_inputs = [*rest[:count], None, None], rest[count:]
        evaluate = partial(
            denoising_loss, packed, clean, noise, level, known=mask, phases=phases[0], margin=margin
        )
        if self.likelihood is None or not chain_inputs:
            loss, _, gradients = evaluate()
            return Evaluation(loss, loss.new_zeros(len(clean)), gradients, None)
        likelihood, (weights, crops, images) = self.likelihood, chain_inputs
        chain_gradients: dict[str, Tensor] = {}
        branches: list[Tensor] = []  # differences, D of the chains
        with self._side.branch():
            chain_potentials, passed = likelihood.chain_potentials(packed, crops, level, phases[1])

        def weigh(potentials: Tensor) -> Tensor:
            """Weights of the potentials; starts all that needs no more of the noisy images."""
            self._side.join()
            differences = potentials - chain_potentials
            factors = weights * likelihood.slopes(differences)
            with self._side.branch():
                chain_gradients.update(potential_gradient(passed, factors))
                means = likelihood.denoise_chains(packed, images, level, phases[2])
            branches.extend((differences, means, factors))
            return -factors

        loss, _, gradients = evaluate(weigh)
        self._side.join()
        torch._foreach_add_(
            [gradients[name] for name in chain_gradients], list(chain_gradients.values())
        )
        return Evaluation(loss, branches[0], gradients, branches[1])

    def _reduce_(self, loss: Tensor, gradients: dict[str, Tensor], share: Tensor) -> Tensor:
        """The loss of the whole batch, of which this process has a share; gradients in place."""
        if self.group.world_size == 1:
            return loss
        total = loss * share
        for gradient in gradients.values():
            gradient.mul_(share)
        self.group.all_reduce_([total, *gradients.values()])
        return total

    def state(self) -> dict[str, Tensor]:
        """All tensors needed to resume exactly, except the running average."""
        chains = self.likelihood.state() if self.likelihood else {}
        return {
            **with_prefix("net.", self.net.state_dict()),
            **self.optimizer.state(),
            **with_prefix("chains.", chains),
            "noise": self.noise.get_state(),
            "batches": self.data.generator.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict(substate(state, "net."))
        self.optimizer.load_state(state)
        if self.likelihood:
            self.likelihood.load_state(substate(state, "chains."))
        restore_generator(self.noise, state["noise"])
        self.data.generator.set_state(state["batches"])


class CascadeTrainer:
    """Trains all stages of a cascade; `model` is the running average, which is sampled."""

    def __init__(
        self,
        config: NoiseConditionalConfig,
        model: Cascade,
        data: TrainingData,
        dtype: torch.dtype = torch.float32,
        group: ProcessGroup = SINGLE_PROCESS,
        *,
        pattern: Pattern | None = None,
    ) -> None:
        """Initializes `model`, which is on its device.

        dtype: of the maps. group: the processes that share each batch. pattern: of the training
        images. Raises ValueError if images or noise levels are too few for the stages.
        """
        self.model, self.data, self.dtype, self.group = model, data, dtype, group
        self._config, self._pattern = config, pattern
        nets = model.stages
        coarser, gains = coarser_data(data, len(nets) - 1, nets[-1].total_stride, config.seed)
        transitions, ranges = level_ranges(config, gains)
        model.gains.copy_(torch.tensor(gains))
        model.transitions.copy_(torch.tensor(transitions))
        settings = stage_settings(config, gains, ranges, data.batch_size)
        whole = math.log(config.noise_max / config.noise_min)
        # Shares of the range of noise levels; their sum is more than 1, as ranges overlap.
        self.shares = [stage.log_range / whole for stage in settings]
        for stage_data, share in zip(coarser, self.shares[1:], strict=True):
            images = max(MIN_COARSE_IMAGES, round(data.batch_size * share))
            # Smaller crops, but more of them.
            stage_data.batch_size = round(images * data.image_size[0] / stage_data.image_size[0])
        self.stages: list[Stage] = []
        for index in reversed(range(len(nets))):  # chains start from those of the coarser stage
            chains = None
            if self.stages and self.stages[0].likelihood:
                _, gain = model.links()[index]
                coarser_chains = self.stages[0].likelihood.chains
                chains = CoarserChains(coarser_chains, nets[index].spectrum, gain)
            stage = Stage(
                config,
                settings[index],
                nets[index],
                [data, *coarser][index],
                dtype,
                group,
                coarser=chains,
                pattern=pattern and pattern.coarser(index),
            )
            self.stages.insert(0, stage)
        self.imputation = Imputation(data, config) if data.holes else None
        self._sides = [SideStream(model.device) for _ in self.stages]

    @property
    def config(self) -> NoiseConditionalConfig:
        """The training settings, with the present number of iterations."""
        return replace(self._config, iterations=self.iterations)

    @property
    def iterations(self) -> int:
        return self.stages[0].schedule.end

    def step(self, iteration: int) -> Tensor:
        """A step of every stage. Returns figures, to be read by `metrics`, on the device."""
        stages, figures = self.stages[::-1], []
        if self.imputation and self.imputation.due(iteration / self.iterations):
            figures = self._step_stages(stages[:-1], iteration)
            self.imputation.impute(self.model, self.dtype)
            self._update_coarser_images()
            stages = stages[-1:]
        figures += self._step_stages(stages, iteration)
        return torch.cat(figures[::-1])

    def _step_stages(self, stages: Sequence[Stage], iteration: int) -> list[Tensor]:
        """A step of these stages, on a GPU side by side; coarser ones first."""
        inputs = [stage.begin(iteration) for stage in stages]
        results = []
        for stage, side, given in zip(stages, self._sides, inputs, strict=False):
            with side.branch():
                results.append(stage.run(given))
        for side in self._sides:
            side.join()
        return [stage.end(*result) for stage, result in zip(stages, results, strict=True)]

    def metrics(self, iteration: int, figures: Sequence[float]) -> Metrics:
        """Means over the noise levels of what `step` returned. Raises DivergedError."""
        total = dict.fromkeys(METRICS, 0.0)
        for index, share in enumerate(self.shares):
            start = index * len(FIGURES)
            values = dict(zip(FIGURES, figures[start : start + len(FIGURES)], strict=True))
            check_divergence(iteration, *(values[n] for n in FIGURES if n != "likelihood"))
            for name in METRICS:
                total[name] += share * values[name]
        return {name: value / sum(self.shares) for name, value in total.items()}

    def _update_coarser_images(self) -> None:
        """Downsample the imputed images for the coarser stages."""
        for index in self.data.holes:
            image, known = self.data.images[index], self.data.known[index]
            for (_, gain), stage in zip(self.model.links(), self.stages[1:], strict=True):
                image, known = downsample_known(image, known)
                image = gain * image
                if index in stage.data.holes:
                    stage.data.images[index] = image

    @property
    def schedules(self) -> WeightedSchedules:
        """The pixels of a batch, as the cost of an iteration, and the schedule of every stage."""
        return [
            (stage.data.batch_size * math.prod(stage.data.image_size), stage.schedule)
            for stage in self.stages
        ]

    @property
    def likelihood_starts(self) -> list[int]:
        return sorted({schedule.likelihood_start for _, schedule in self.schedules})

    def length_for(self, iteration: int, pace: float, seconds_left: float) -> int | None:
        return length_for(self.schedules, iteration, pace, seconds_left)

    def set_length(self, iterations: int) -> None:
        self._set_schedules(self.stages[0].schedule.start, iterations)

    @property
    def was_extended(self) -> bool:
        return self.stages[0].schedule.start > 0

    def extend(self, iterations: int) -> None:
        """Add iterations to a finished training: rates rise and fall again, likelihood included."""
        self._set_schedules(self.iterations, self.iterations + iterations)

    def _set_schedules(self, start: int, end: int) -> None:
        for stage in self.stages:
            stage.schedule = replace(stage.schedule, start=start, end=end)

    def check_convergence(self, history: Sequence[Metrics]) -> list[str]:
        """Messages on the denoising loss and on the energy difference of the present schedule."""
        schedule = self.stages[0].schedule
        start, end = schedule.start, schedule.likelihood_start
        if len(self.stages) > 1 and schedule.likelihood_share:
            start = self.likelihood_starts[0]  # likelihood of coarser stages raises their loss
        losses = [row["loss"] for row in history if start < row["iteration"] <= end]
        differences = [row["energy_difference"] for row in history if row["iteration"] > end]
        messages = (convergence(losses), difference_warning(differences))
        return [str(message) for message in messages if message is not None]

    def early_stop_advice(self, iteration: int) -> list[str]:
        if self.stages[0].likelihood is None:
            return []
        return [too_short_warning(self.schedules, iteration)]

    def preview(self) -> Tensor:
        """Two samples (2, C, H, W) of the running average, of the size of the crops."""
        # A crop may be no multiple of the cascade's stride, which circular padding allows.
        mode = PaddingMode.CIRCULAR if len(self.stages) > 1 else None
        config, phases = self._config, None
        if self._pattern is not None:
            generator = named_generator(config.seed, "pattern", 0)
            field = self._pattern.on_torus(self.data.image_size, (True, True), generator)
            phases = field.to(self.model.device)
        denoise = make_denoiser(self.model, self.dtype, mode, phases=phases)
        noise = ImageNoise(config.seed, "preview", range(2), self.model.device)
        levels = noise_levels(PREVIEW_STEPS, config.noise_max, config.noise_min)
        shape = (2, self.model.finest.channels, *self.data.image_size)
        start = math.sqrt(levels[0] ** 2 + 1) * noise(shape)
        return anneal(start, denoise, levels, noise)

    def state(self) -> dict[str, Tensor]:
        state = with_prefix("model.", self.model.state_dict())
        for index, stage in enumerate(self.stages):
            state |= with_prefix(f"stage{index}.", stage.state())
        if self.imputation:
            state |= with_prefix("holes.", self.imputation.state())
        return {**state, "start": torch.tensor(self.stages[0].schedule.start)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(substate(state, "model."))
        for index, stage in enumerate(self.stages):
            stage.load_state(substate(state, f"stage{index}."))
        if self.imputation:
            self.imputation.load_state(substate(state, "holes."))
            if self.imputation.count:
                self._update_coarser_images()
        self._set_schedules(int(state["start"]), self.iterations)
