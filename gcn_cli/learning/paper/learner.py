"""The published learner: Algorithm 1 and contrastive divergence, stage by stage.

A stage adds a layer of filters, makes the optimiser anew at a lower rate, restarts the chains
and trains all layers together. One stage with all layers is the same code with growth off.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gcn_cli.config import PaperConfig
from gcn_cli.errors import DivergedError
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.paper.chains import Chains
from gcn_cli.learning.paper.contrast import (
    ascend,
    likelihood_gradient,
    make_optimiser,
    normalise,
)
from gcn_cli.learning.state import below, load_optimiser_state, optimiser_state
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.capture import Captured
from gcn_cli.model.energy import Gradient, energy, energy_gradient
from gcn_cli.model.paper.fast import fast_basis
from gcn_cli.model.paper.network import GenerativeConvNet
from gcn_cli.quality import contrast
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.sampling.noise import named_generator

RUNAWAY = 20.0  # deviation of chains over that of the data


class PaperLearner:
    """Model, chains and optimiser of one training; `step` is one iteration."""

    def __init__(
        self,
        config: PaperConfig,
        model: GenerativeConvNet,
        observed: Batches,
        chains: Chains,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
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
        self.optimiser = self._fresh_optimiser()
        self._recorded: Captured[Tensor] | None = None

    @property
    def iterations(self) -> int:
        """Iterations of all stages together."""
        return self.config.iterations * (1 + len(self.later_layers)) + self.extended

    @property
    def turns(self) -> list[int]:
        """None: with all layers, all iterations are alike."""
        return []

    def step(self, iteration: int) -> dict[str, float]:
        """Iteration number `iteration`, from 1: synthesise, compare, learn. Returns metrics."""
        due = min((iteration - 1) // self.config.iterations, len(self.later_layers))
        while self.stage < due:
            self._next_stage()
        observed = self.observed()
        synthesised = self.chains.advance(self._gradient(observed.device), observed)
        gradients = likelihood_gradient(self.model, observed, synthesised, self.ranks)
        areas = [h * w for h, w in self.model.map_sizes(*observed.shape[-2:])]
        ascend(self.model, self.optimiser, normalise(gradients, areas, self.config.gradient_cap))
        measured = self._measure(observed, synthesised)
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
        """The synthesised images as they are, (N, C, H, W)."""
        return self.chains.images

    def state(self) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        own = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        own |= {f"optimiser.{k}": v for k, v in optimiser_state(self.optimiser).items()}
        own |= {f"chains.{k}": v for k, v in self.chains.state().items()}
        own["batches"] = self.observed.generator.get_state()
        counts = {"stage": self.stage, "extended": self.extended}
        return {**own, **{name: torch.tensor(count) for name, count in counts.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        while self.stage < int(state["stage"]):
            self._next_stage()
        self.extended = int(state.get("extended", 0))
        self.model.load_state_dict(below(state, "model."))
        load_optimiser_state(self.optimiser, below(state, "optimiser."))
        self.chains.load_state(below(state, "chains."))
        self.observed.generator.set_state(state["batches"])

    def _gradient(self, device: torch.device) -> Gradient:
        """dU/dI of the model as it is now; on a GPU one recording serves the whole stage."""
        if device.type != "cuda":
            return energy_gradient(self.model.sigma, fast_basis(self.model, self.dtype))
        if self._recorded is None:
            self._recorded = Captured(self._basis)
        return energy_gradient(self.model.sigma, self._recorded)

    def _basis(self, x: Tensor) -> Tensor:
        """B, rearranged anew from where the parameters lie: what a recording has to do."""
        return fast_basis(self.model, self.dtype)(x)

    def _next_stage(self) -> None:
        self.stage += 1
        self._recorded = None
        generator = named_generator(self.config.seed, "layer", self.stage)
        self.model.grow(self.later_layers[self.stage - 1], self.config.init_std, generator)
        self.optimiser = self._fresh_optimiser()
        self.chains.restart()

    def _fresh_optimiser(self) -> torch.optim.SGD:
        return make_optimiser(
            self.model,
            learning_rate=self.config.learning_rate / self.config.rate_divisor**self.stage,
            bias_rate=self.config.bias_rate,
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
        )

    @torch.no_grad()
    def _measure(self, observed: Tensor, synthesised: Tensor) -> dict[str, float]:
        own = partial(energy, self.model)
        means = [self.ranks.part_of_mean(own, images) for images in (synthesised, observed)]
        self.ranks.sum_(means)
        return {
            "energy_gap": float(means[0] - means[1]) / observed[0].numel(),
            "contrast": contrast(synthesised, observed),
            **self.chains.measures(),
        }
