"""The likelihood gradient: observed minus synthesized (equation 8), and the published rules.

    dL/dw = mean over observed df/dw - mean over synthesized df/dw

The rules, as in the authors' released code: the gradient of a layer is divided by the area of
its own map, then scaled down to a largest entry of `cap` where it exceeds that.

Where the synthesized images come from: kept chains, or short ones from the data.

Both answer `advance`, so that one learner serves maximum likelihood (Algorithm 1, persistent
chains) and contrastive divergence (k steps from the observed images).

The published learner: Algorithm 1 and contrastive divergence, stage by stage.

A stage adds a layer of filters, makes the optimizer anew at a lower rate, restarts the chains
and trains all layers together. One stage with all layers is the same code with growth off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from gcn_cli.config import PublishedConfig
from gcn_cli.errors import DivergedError
from gcn_cli.metrics import contrast
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.energy import Gradient, energy, energy_gradient
from gcn_cli.samplers.langevin import langevin_step, run_chain
from gcn_cli.samplers.rng import ImageNoise, NoiseSource, named_generator
from gcn_cli.training.data import TrainingData
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Metrics
from gcn_cli.training.optim import load_optimizer_state, optimizer_state, substate


def likelihood_gradient(
    model: GenerativeConvNet,
    observed: Tensor,
    synthesized: Tensor,
    ranks: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Tensor]:
    """dL/dw for every named parameter; images (N, C, H, W), (M, C, H, W), shared by `ranks`.

    Contrastive divergence is the same formula with images that started at the data.
    """
    names, parameters = zip(*model.named_parameters(), strict=True)
    parts = [ranks.part_of_mean(model.score, images) for images in (observed, synthesized)]
    gap = parts[0] - parts[1]
    gradients = [one.contiguous() for one in torch.autograd.grad(gap, parameters)]
    ranks.sum_(gradients)
    return dict(zip(names, gradients, strict=True))


def normalize_gradients(
    gradients: dict[str, Tensor], map_areas: list[int], cap: float
) -> dict[str, Tensor]:
    """Apply the published rules; `map_areas` holds each layer's h * w. A head's area is 1."""
    return {name: _capped(g / _area(name, map_areas), cap) for name, g in gradients.items()}


def _area(name: str, map_areas: list[int]) -> int:
    kind, _, layer = name.partition(".")
    return 1 if kind == "head" else map_areas[int(layer)]


def _capped(gradient: Tensor, cap: float) -> Tensor:
    # One scale for the whole tensor keeps its direction; no host synchronisation.
    return gradient * (cap / gradient.abs().max().clamp_min(cap))


def make_sgd(
    model: GenerativeConvNet,
    *,
    learning_rate: float,
    bias_rate: float,
    weight_decay: float,
    momentum: float,
) -> torch.optim.SGD:
    """SGD on the filters with weight decay, on the biases at `bias_rate` times the rate."""
    filters: list[nn.Parameter] = [*model.weights, *([] if model.head is None else [model.head])]
    groups = [
        {"params": filters, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": list(model.biases), "lr": learning_rate * bias_rate, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def likelihood_step(
    model: GenerativeConvNet, optimizer: torch.optim.Optimizer, gradients: dict[str, Tensor]
) -> None:
    """One step up the likelihood; optimizers descend, hence the sign."""
    for name, parameter in model.named_parameters():
        parameter.grad = -gradients[name]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class SynthesizedImages(Protocol):
    """A source of synthesized images."""

    images: Tensor

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor: ...

    def restart(self) -> None: ...

    def measures(self) -> dict[str, float]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class LangevinChains:
    """Langevin chains from the mean color (zero), kept from one iteration to the next."""

    images: Tensor
    noise: ImageNoise
    steps: int
    step_size: float
    ranks: ProcessGroup = SINGLE_PROCESS

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` more steps of every chain; the observed images play no part."""
        count = len(self.images)
        moved = run_chain(
            self.images[self.ranks.share(count)],
            gradient,
            steps=self.steps,
            step_size=self.step_size,
            noise=_shared(self.noise, self.ranks, count),
        )
        self.images = self.ranks.gathered(moved, count)
        return self.images

    def restart(self) -> None:
        """Back to zero, as published whenever a layer is added."""
        self.images = torch.zeros_like(self.images)

    def measures(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"images": self.images, "noise": self.noise.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.images = state["images"].to(self.images.device)
        self.noise.load_state(state["noise"])


@dataclass
class ContrastiveChains:
    """k Langevin steps from the observed images: contrastive divergence, CDk.

    `reconstruction_error` is |I - sigma^2 B(I)|^2 / |I|^2 over the batch, at its start.
    """

    images: Tensor
    noise: ImageNoise | None
    steps: int
    step_size: float
    sigma: float
    ranks: ProcessGroup = SINGLE_PROCESS
    reconstruction_error: float = float("nan")

    def advance(self, gradient: Gradient, observed: Tensor) -> Tensor:
        """`steps` steps from `observed`, with the first slope also read as the error."""
        count = len(observed)
        mine = observed[self.ranks.share(count)]
        noise = None if self.noise is None else _shared(self.noise, self.ranks, count)
        with torch.no_grad():
            slope = gradient(mine)
            error, whole = (self.sigma**2 * slope).square().sum(), mine.square().sum()
            self.ranks.sum_([error, whole])
            self.reconstruction_error = float(error / whole)
            drawn = None if noise is None else noise(mine.shape)
            first = langevin_step(mine, lambda _: slope, self.step_size, drawn)
        moved = run_chain(
            first,
            gradient,
            steps=self.steps - 1,
            step_size=self.step_size,
            noise=noise,
        )
        self.images = self.ranks.gathered(moved, count)
        return self.images

    def restart(self) -> None:
        """Nothing is kept between iterations."""

    def measures(self) -> dict[str, float]:
        """The reconstruction error of the last batch."""
        return {"reconstruction_error": self.reconstruction_error}

    def state(self) -> dict[str, Tensor]:
        return {} if self.noise is None else {"noise": self.noise.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if self.noise is not None:
            self.noise.load_state(state["noise"])


def _shared(noise: ImageNoise, ranks: ProcessGroup, count: int) -> NoiseSource:
    """This process's part of what is drawn for all chains, so that all generators go on alike."""
    if ranks.count == 1:
        return noise
    return lambda shape: noise((count, *shape[1:]))[ranks.share(count)]


RUNAWAY = 20.0  # deviation of chains over that of the data


class PublishedTrainer:
    """Model, chains and optimizer of one training; `step` is one iteration."""

    def __init__(
        self,
        config: PublishedConfig,
        model: GenerativeConvNet,
        observed: TrainingData,
        chains: SynthesizedImages,
        dtype: torch.dtype = torch.float32,
        ranks: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`model` is that of stage 0; stages 1, 2, ... add the layers of `config` it lacks."""
        self.config, self.ranks = config, ranks
        self.model = model
        self.later_layers = config.layers[len(model.layers) :]
        self.observed = observed
        self.chains = chains
        self.dtype = dtype
        self.stage = 0
        self.extended = 0  # iterations after those of the stages
        self.optimizer = self._fresh_optimizer()
        self._recorded: GraphedFunction[Tensor] | None = None

    @property
    def iterations(self) -> int:
        """Iterations of all stages together."""
        return self.config.iterations * (1 + len(self.later_layers)) + self.extended

    @property
    def turns(self) -> list[int]:
        """None: with all layers, all iterations are alike."""
        return []

    def step(self, iteration: int) -> dict[str, float]:
        """Iteration number `iteration`, from 1: synthesize, compare, learn. Returns metrics."""
        due = min((iteration - 1) // self.config.iterations, len(self.later_layers))
        while self.stage < due:
            self._next_stage()
        observed = self.observed()
        synthesized = self.chains.advance(self._gradient(observed.device), observed)
        gradients = likelihood_gradient(self.model, observed, synthesized, self.ranks)
        areas = [h * w for h, w in self.model.map_sizes(*observed.shape[-2:])]
        likelihood_step(
            self.model,
            self.optimizer,
            normalize_gradients(gradients, areas, self.config.gradient_cap),
        )
        measured = self._measure(observed, synthesized)
        if measured["contrast"] > RUNAWAY:
            told = f"the pixels of a chain ran away to {measured['contrast']:.3g} times the data's"
            raise DivergedError(f"iteration {iteration}: {told}")
        return {"stage": float(self.stage + 1), **measured}

    def verdicts(self, history: Sequence[Metrics]) -> list[str]:
        """None: f_obs - f_syn swings around 0 and tells nothing."""
        return []

    def cut_short(self, iteration: int) -> list[str]:
        """Nothing: a model is whole at any iteration."""
        return []

    def length_for(self, iteration: int, pace: float, left: float) -> int | None:
        """None: published stages have a length of their own, and samples are fit after each."""
        return None

    def set_length(self, iterations: int) -> None:
        """Nothing is changed; see `length_for`."""
        raise ValueError(f"a published course is not cut to {iterations} iterations")

    @property
    def was_extended(self) -> bool:
        """Whether iterations were added to those of the stages."""
        return self.extended > 0

    def extend(self, iterations: int) -> None:
        """So many more of the last stage."""
        self.extended += iterations

    def preview(self) -> Tensor:
        """The synthesized images as they are, (N, C, H, W)."""
        return self.chains.images

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        own = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        own |= {f"optimizer.{k}": v for k, v in optimizer_state(self.optimizer).items()}
        own |= {f"chains.{k}": v for k, v in self.chains.state().items()}
        own["batches"] = self.observed.generator.get_state()
        counts = {"stage": self.stage, "extended": self.extended}
        return {**own, **{name: torch.tensor(count) for name, count in counts.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        while self.stage < int(state["stage"]):
            self._next_stage()
        self.extended = int(state.get("extended", 0))
        self.model.load_state_dict(substate(state, "model."))
        load_optimizer_state(self.optimizer, substate(state, "optimizer."))
        self.chains.load_state(substate(state, "chains."))
        self.observed.generator.set_state(state["batches"])

    def _gradient(self, device: torch.device) -> Gradient:
        """dU/dI of the model as it is now; on a GPU one recording serves the whole stage."""
        if device.type != "cuda":
            return energy_gradient(self.model.sigma, fast_basis(self.model, self.dtype))
        if self._recorded is None:
            self._recorded = GraphedFunction(self._basis)
        return energy_gradient(self.model.sigma, self._recorded)

    def _basis(self, x: Tensor) -> Tensor:
        """B, rearranged anew from where the parameters lie: what a recording has to do."""
        return fast_basis(self.model, self.dtype)(x)

    def _next_stage(self) -> None:
        self.stage += 1
        self._recorded = None
        generator = named_generator(self.config.seed, "layer", self.stage)
        self.model.grow(self.later_layers[self.stage - 1], self.config.init_std, generator)
        self.optimizer = self._fresh_optimizer()
        self.chains.restart()

    def _fresh_optimizer(self) -> torch.optim.SGD:
        return make_sgd(
            self.model,
            learning_rate=self.config.learning_rate / self.config.rate_divisor**self.stage,
            bias_rate=self.config.bias_rate,
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
        )

    @torch.no_grad()
    def _measure(self, observed: Tensor, synthesized: Tensor) -> dict[str, float]:
        own = partial(energy, self.model)
        means = [self.ranks.part_of_mean(own, images) for images in (synthesized, observed)]
        self.ranks.sum_(means)
        return {
            "energy_gap": float(means[0] - means[1]) / observed[0].numel(),
            "contrast": contrast(synthesized, observed),
            **self.chains.measures(),
        }
