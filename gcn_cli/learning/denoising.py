"""Learning the ladder by denoising: contrastive divergence's "learn to reconstruct", with noise.

The levels of a batch are log-uniform between the lowest and the highest. Muon moves the filters,
Adam the rest; samples are drawn from the running average. The last part of the learning is by
maximum likelihood too (`refinement`).
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.learning.batches import Batches
from gcn_cli.learning.denoising_loss import denoising_loss
from gcn_cli.learning.muon import Muon
from gcn_cli.learning.refinement import Refinement
from gcn_cli.learning.state import below, load_optimiser_state, optimiser_state
from gcn_cli.model.capture import Captured
from gcn_cli.model.fast import fast_denoiser
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.level import LadderLevel
from gcn_cli.sampling.annealed import anneal, noise_levels
from gcn_cli.sampling.noise import ImageNoise, named_generator

FILTER_DECAY = 0.01  # keeps filters from growing until a step overshoots
OUTLIER = 3.0  # a gradient this many times longer than usual is cut down to that
USUAL_MEMORY = 0.98  # of the mean length of gradients
WARM_UP = 50  # iterations in which the learning rate rises
LAST_RATE = 0.01  # share of the learning rate that is left at the end
REFINED_RATE = 0.1  # share of it at which the likelihood begins to count
LONGEST_MEMORY = 0.999  # of the running average
REFINED_MEMORY = 0.98  # of the same while the likelihood counts, which soon changes samples
PREVIEW_STEPS = 16


@dataclass(frozen=True)
class DenoisingRules:
    """How the ladder is learned."""

    filter_rate: float  # of Muon, on filters
    learning_rate: float  # of Adam, on biases, level terms and readouts
    lowest_noise: float
    highest_noise: float
    margin: int  # pixels at the border of a crop that do not count: beyond it lies a mirror
    iterations: int
    refined: float  # share of the iterations, at the end, in which the likelihood counts
    likelihood: float  # weight of its gradient beside that of denoising
    seed: int


class DenoisingLearner:
    """A ladder, its running average and its optimiser; `step` is one iteration."""

    def __init__(
        self,
        model: LadderNet,
        observed: Batches,
        rules: DenoisingRules,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.observed, self.rules = observed, rules
        self.device, self.dtype = device, dtype
        self.net = net = copy.deepcopy(model)  # what is learned
        self.model = model.requires_grad_(False)  # what is sampled: its running average
        others = [*net.biases, *net.levels, *net.readouts]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "filters": Muon(net.weights, rules.filter_rate, weight_decay=FILTER_DECAY),
            "others": torch.optim.AdamW(
                others, rules.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
            ),
        }
        self.usual_length = torch.zeros((), device=device)  # of gradients; 0 before the first
        self.refinement = Refinement(
            net,
            observed.batch_size,
            observed.image_size,
            dtype,
            weight=rules.likelihood,
            noise_range=(rules.lowest_noise, rules.highest_noise),
            seed=rules.seed,
            device=device,
        )
        self.noise_generator = named_generator(rules.seed, "denoising", device=device)
        self._denoise = Captured(
            lambda *batch: denoising_loss(net, *batch, margin=rules.margin, dtype=dtype)
        )

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.rules.iterations

    @torch.no_grad()
    def step(self, iteration: int) -> dict[str, float]:
        """Iteration number `iteration`, from 1: noise, denoise, compare, learn.

        Returns the denoising loss, the gap in F a value between noisy data and chains, and the
        weight that the likelihood had.
        """
        refinement = self.refinement if iteration > self.denoised_until else None
        clean = self.observed()
        level = refinement.chains.levels() if refinement else self._levels(len(clean))
        drawn = torch.randn(clean.shape, generator=self.noise_generator, device=self.device)
        shares = [-refinement.shares(level)] if refinement else []
        loss, scores, gradients = self._denoise(clean, drawn, level, *shares)
        gap, weight = torch.zeros_like(loss), 0.0
        if refinement and scores is not None:
            counts, weight = refinement.counts(level), refinement.weight * refinement.say
            scores_there, gradients_there = refinement.synthesised(level)
            gap = (counts * (scores - scores_there)).sum()
            for name, gradient in gradients_there.items():
                gradients[name] += gradient
        self._descend(gradients, iteration)
        measured = dict(zip(("loss", "gap"), torch.stack([loss, gap]).tolist(), strict=True))
        if refinement:
            refinement.note(measured["gap"])
        return {**measured, "likelihood": weight}

    @property
    def denoised_until(self) -> int:
        """The last iteration of denoising alone."""
        return math.ceil(self.rules.iterations * (1 - self.rules.refined))

    def fitting(self, iteration: int) -> int:
        """The length of a whole training that takes as long as the first `iteration` of this."""
        # An iteration with likelihood takes as long as two of denoising alone.
        denoised = min(iteration, self.denoised_until)
        work = denoised + 2 * (iteration - denoised)
        return max(1, int(work / (1 + self.rules.refined)))

    def _course(self, iteration: int) -> float:
        """Share of the learning rates at an iteration: down to REFINED_RATE, from there to 0."""
        turn = self.denoised_until
        if iteration > turn:
            done = (iteration - turn) / (self.rules.iterations - turn)
            return REFINED_RATE * _half_cosine(done) + LAST_RATE * REFINED_RATE
        last = REFINED_RATE if self.rules.refined else LAST_RATE
        falling = last + (1 - last) * _half_cosine(iteration / turn)
        return min(1, iteration / WARM_UP) * falling

    def preview(self) -> Tensor:
        """Two samples of the running average at the size of the crops."""
        rules, net = self.rules, self.model
        shape = (2, net.channels, *self.observed.image_size)
        noise = ImageNoise(rules.seed, "preview", range(2), self.device)
        levels = noise_levels(PREVIEW_STEPS, rules.highest_noise, rules.lowest_noise)
        start = LadderLevel(net, levels[0]).sigma * noise(shape)
        return anneal(start, fast_denoiser(net, self.dtype), levels, noise)

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        return {
            **{f"net.{name}": tensor for name, tensor in self.net.state_dict().items()},
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{
                f"{name}.{key}": tensor
                for name, optimiser in self.optimisers.items()
                for key, tensor in optimiser_state(optimiser).items()
            },
            **{f"chains.{key}": value for key, value in self.refinement.state().items()},
            "usual_length": self.usual_length,
            "noise": self.noise_generator.get_state(),
            "batches": self.observed.generator.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.net.load_state_dict(below(state, "net."))
        self.model.load_state_dict(below(state, "model."))
        for name, optimiser in self.optimisers.items():
            load_optimiser_state(optimiser, below(state, f"{name}."))
        self.refinement.load_state(below(state, "chains."))
        self.usual_length.copy_(state["usual_length"])
        self.noise_generator.set_state(state["noise"])
        self.observed.generator.set_state(state["batches"])

    def _levels(self, count: int) -> Tensor:
        """One level an image, spread evenly over the ladder about one random offset."""
        rules = self.rules
        offset = torch.rand(1, generator=self.noise_generator, device=self.device)
        place = (torch.arange(count, device=self.device) + offset) / count
        span = math.log(rules.highest_noise / rules.lowest_noise)
        return rules.lowest_noise * torch.exp(span * place)

    def _shortened(self, length: Tensor) -> Tensor:
        """A gradient's length, cut down where it is an outlier; keeps the mean of such lengths."""
        usual = torch.where(self.usual_length > 0, self.usual_length, length)
        shortened = torch.minimum(length, OUTLIER * usual)
        self.usual_length.copy_(usual.lerp(shortened, 1 - USUAL_MEMORY))
        return shortened

    def _descend(self, gradients: dict[str, Tensor], iteration: int) -> None:
        """One optimiser step and one step of the running average."""
        rules = self.rules
        squares = torch.stack([g.square().sum() for g in gradients.values()])
        length = squares.sum().sqrt().float()
        scale = self._shortened(length) / length.clamp_min(1e-30)
        for name, parameter in self.net.named_parameters():
            parameter.grad = gradients[name] * scale
        course = self._course(iteration)
        rates = {"filters": rules.filter_rate, "others": rules.learning_rate}
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name] * course
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        # A short memory at first, so that the average is never dominated by the start.
        longest = REFINED_MEMORY if iteration > self.denoised_until else LONGEST_MEMORY
        memory = min(longest, iteration / (iteration + 9))
        averaged: list[Tensor] = list(self.model.parameters())
        newest: list[Tensor] = list(self.net.parameters())
        torch._foreach_lerp_(averaged, newest, 1 - memory)


def _half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))
