"""The paper's training with the authors' settings: Algorithm 1 and contrastive divergence.

The likelihood gradient (equation 8) is

    dL/dw = mean over data df/dw - mean over synthesized images df/dw.

Synthesized images are persistent Langevin chains that start from zero (maximum likelihood,
Algorithm 1) or k Langevin steps from the data (contrastive divergence, CDk). As in the authors'
released code, the gradient of a layer is divided by the area of its map, then scaled down to a
largest entry of `gradient_cap`. Layerwise training adds a layer at each stage: the optimizer
restarts at a lower rate, the chains restart from zero, and all layers train together.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gcn_cli.config import PublishedConfig
from gcn_cli.errors import DivergedError
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.energy import Gradient, energy, energy_gradient
from gcn_cli.samplers.langevin import langevin_step, run_chain
from gcn_cli.samplers.rng import ImageNoise, NoiseSource, named_generator
from gcn_cli.training.data import TrainingData
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from gcn_cli.training.loop import Metrics
from gcn_cli.training.optim import load_optimizer_state, optimizer_state, substate, with_prefix


def likelihood_gradient(
    model: GenerativeConvNet,
    data: Tensor,
    synthesized: Tensor,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Tensor]:
    """dL/dw by parameter name, from images (N, C, H, W) and (M, C, H, W).

    The gradient of contrastive divergence is this with its images as `synthesized`. `group` divides
    the images among its processes.
    """
    names, parameters = zip(*model.named_parameters(), strict=True)
    mean_data, mean_synthesized = (
        group.partial_mean(model.score, images) for images in (data, synthesized)
    )
    gradients = torch.autograd.grad(mean_data - mean_synthesized, parameters)
    contiguous = [gradient.contiguous() for gradient in gradients]
    group.all_reduce_(contiguous)
    return dict(zip(names, contiguous, strict=True))


def normalize_gradients(
    gradients: dict[str, Tensor], map_areas: Sequence[int], cap: float
) -> dict[str, Tensor]:
    """Divide by each layer's map area (head: 1), then scale the largest entry down to `cap`."""
    normalized = {}
    for name, gradient in gradients.items():
        kind, _, layer = name.partition(".")
        mean = gradient / (1 if kind == "head" else map_areas[int(layer)])
        # One factor for the whole tensor keeps its direction, without waiting for the device.
        normalized[name] = mean * (cap / mean.abs().max().clamp_min(cap))
    return normalized


def make_sgd(model: GenerativeConvNet, config: PublishedConfig, stage: int = 0) -> torch.optim.SGD:
    """SGD with weight decay on filters and another rate on biases, lower in later stages."""
    filters: list[nn.Parameter] = [*model.weights, *([] if model.head is None else [model.head])]
    rate = config.learning_rate / config.stage_rate_divisor**stage
    groups = [
        {"params": filters, "weight_decay": config.weight_decay},
        {"params": list(model.biases), "lr": rate * config.bias_rate_factor},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=config.momentum)


def likelihood_step(
    model: GenerativeConvNet, optimizer: torch.optim.Optimizer, gradients: dict[str, Tensor]
) -> None:
    """One ascent step on the likelihood; optimizers minimize, hence the sign."""
    for name, parameter in model.named_parameters():
        parameter.grad = -gradients[name]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def run_langevin(
    images: Tensor, gradient: Gradient, *, steps: int, step_size: float, noise: NoiseSource | None
) -> tuple[Tensor, Tensor]:
    """Langevin steps from images (N, C, H, W); also dU/dI at the images themselves."""
    start = gradient(images)
    drawn = None if noise is None else noise(images.shape)
    first = langevin_step(images, lambda _: start, step_size, drawn)
    moved = run_chain(first, gradient, steps=steps - 1, step_size=step_size, noise=noise)
    return moved, start


def cd_step(
    model: GenerativeConvNet,
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    step_size: float,
    steps: int = 1,
    noise: NoiseSource | None = None,
) -> Tensor:
    """One step of contrastive divergence CDk on `model`; returns the synthesized images.

    Runs k = `steps` Langevin steps of size `step_size` from `images` (N, C, H, W), in the units of
    the model, computes the likelihood gradient and steps the optimizer. For k = 1 without `noise`
    this is learning to reconstruct: while no gate flips, the likelihood gradient of an image is
    -(step_size^2 / 2) d/dw 1/2 |I / sigma^2 - B|^2. The gradient is not normalized as by
    `PublishedTrainer`, so learning rates are not those of the presets.
    """
    gradient = energy_gradient(model.sigma, fast_basis(model, images.dtype))
    synthesized, _ = run_langevin(images, gradient, steps=steps, step_size=step_size, noise=noise)
    likelihood_step(model, optimizer, likelihood_gradient(model, images, synthesized))
    return synthesized


MAX_CONTRAST = 20.0  # deviation of synthesized pixels over the data's: above it, chains diverged


class PublishedTrainer:
    """Trains a `GenerativeConvNet` as published, layer by layer or all layers at once."""

    def __init__(
        self,
        config: PublishedConfig,
        model: GenerativeConvNet,
        data: TrainingData,
        dtype: torch.dtype = torch.float32,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`model` has the layers of stage 0; each later stage adds a layer of `config`.

        `dtype` is that of the maps. Raises InputError if there are fewer images than processes.
        """
        self.config, self.model, self.data = config, model, data
        self.dtype, self.group = dtype, group
        self.later_layers = config.layers[len(model.layers) :]
        self.stage = 0
        self.extension = 0  # iterations after those of the stages
        self.optimizer = make_sgd(model, config)
        self.contrastive = config.learner == "cd"
        count = data.batch_size if self.contrastive else config.chains or 1
        group.require_images("--batch-size" if self.contrastive else "--set chains", count)
        self.device = model.weights[0].device
        shape = (count, config.channel_count, *data.image_size)
        self.chains = torch.zeros(shape, device=self.device)  # from the mean color
        self.noise = ImageNoise(config.seed, "chain", range(count), self.device)
        self._graphed_basis: GraphedFunction[Tensor] | None = None

    @property
    def iterations(self) -> int:
        return self.config.iteration_count * (1 + len(self.later_layers)) + self.extension

    @property
    def likelihood_starts(self) -> list[int]:
        """Empty: all iterations train the likelihood."""
        return []

    @property
    def was_extended(self) -> bool:
        return self.extension > 0

    def step(self, iteration: int) -> Tensor:
        """One iteration, numbered from 1: synthesize, compare, update the parameters.

        Returns, on the device, the stage, the energy difference, the contrast of the chains, and
        for CD the reconstruction error.
        """
        stage = min((iteration - 1) // self.config.iteration_count, len(self.later_layers))
        while self.stage < stage:
            self._next_stage()
        data = self.data.draw().images
        reconstruction = self._synthesize(data)
        gradients = likelihood_gradient(self.model, data, self.chains, self.group)
        areas = [h * w for h, w in self.model.map_sizes(*data.shape[-2:])]
        normalized = normalize_gradients(gradients, areas, self.config.gradient_cap)
        likelihood_step(self.model, self.optimizer, normalized)
        stage_number = torch.full((), float(self.stage + 1), device=self.device)
        difference = self._energy_difference(data)
        relative = self.chains.std() / data.std()
        figures = [stage_number, difference, relative, *reconstruction]
        return torch.stack([value.float() for value in figures])

    def metrics(self, iteration: int, figures: Sequence[float]) -> Metrics:
        """The metrics in what `step` returned. Raises DivergedError if the chains diverged."""
        names = ("stage", "energy_difference", "contrast", "reconstruction_error")
        metrics = dict(zip(names, figures, strict=False))  # the last is of CD alone
        if metrics["contrast"] > MAX_CONTRAST:
            raise DivergedError(
                f"iteration {iteration}: the chains diverged, their pixels deviate "
                f"{metrics['contrast']:.3g} times as much as the data's"
            )
        return metrics

    def check_convergence(self, history: Sequence[Metrics]) -> list[str]:
        """Always empty: the energy difference oscillates around 0 and is no criterion."""
        return []

    def early_stop_advice(self, iteration: int) -> list[str]:
        """Always empty: the model can be sampled after any iteration."""
        return []

    def length_for(self, iteration: int, pace: float, seconds_left: float) -> int | None:
        """None: the stages have a fixed length."""
        return None

    def set_length(self, iterations: int) -> None:
        """Raises ValueError: the stages have a fixed length."""
        raise ValueError(f"published stages cannot be changed to {iterations} iterations")

    def extend(self, iterations: int) -> None:
        self.extension += iterations

    def preview(self) -> Tensor:
        """The synthesized images (N, C, H, W)."""
        return self.chains

    def state(self) -> dict[str, Tensor]:
        return {
            **with_prefix("model.", self.model.state_dict()),
            **with_prefix("optimizer.", optimizer_state(self.optimizer)),
            **({} if self.contrastive else {"chains": self.chains}),
            "noise": self.noise.state(),
            "batches": self.data.generator.get_state(),
            "stage": torch.tensor(self.stage),
            "extension": torch.tensor(self.extension),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        while self.stage < int(state["stage"]):
            self._next_stage()
        self.extension = int(state["extension"])
        self.model.load_state_dict(substate(state, "model."))
        load_optimizer_state(self.optimizer, substate(state, "optimizer."))
        if not self.contrastive:
            self.chains = state["chains"].to(self.device)
        self.noise.load_state(state["noise"])
        self.data.generator.set_state(state["batches"])

    def _synthesize(self, data: Tensor) -> list[Tensor]:
        """Langevin steps of the persistent chains, or for CD from the data.

        Returns for CD the reconstruction error |I - sigma^2 B(I)|^2 / |I|^2 of the data, else
        nothing.
        """
        count = len(self.chains)
        shard = self.group.shard(count)
        start = (data if self.contrastive else self.chains)[shard]
        moved, gradient = run_langevin(
            start,
            self._energy_gradient(),
            steps=self.config.langevin_steps,
            step_size=self.config.step_size,
            # All processes draw the noise of all chains.
            noise=lambda shape: self.noise((count, *shape[1:]))[shard],
        )
        self.chains = self.group.gather(moved, count)
        if not self.contrastive:
            return []
        sums = [(self.config.sigma**2 * gradient).square().sum(), start.square().sum()]
        self.group.all_reduce_(sums)
        return [sums[0] / sums[1]]

    def _energy_gradient(self) -> Gradient:
        """dU/dI of the current model; on a GPU one CUDA graph serves the whole stage."""
        if self.device.type != "cuda":
            return energy_gradient(self.model.sigma, fast_basis(self.model, self.dtype))
        if self._graphed_basis is None:

            def basis(x: Tensor) -> Tensor:
                # Copies the parameters in the graph, as they change between replays.
                return fast_basis(self.model, self.dtype)(x)

            self._graphed_basis = GraphedFunction(basis)
        return energy_gradient(self.model.sigma, self._graphed_basis)

    def _next_stage(self) -> None:
        """Add a layer; optimizer and persistent chains restart, as published."""
        self.stage += 1
        self._graphed_basis = None
        generator = named_generator(self.config.seed, "layer", self.stage)
        self.model.grow(self.later_layers[self.stage - 1], self.config.init_deviation, generator)
        self.optimizer = make_sgd(self.model, self.config, self.stage)
        self.chains = torch.zeros_like(self.chains)

    @torch.no_grad()
    def _energy_difference(self, data: Tensor) -> Tensor:
        """Mean energy of the synthesized images minus that of the data, per value."""
        energies = partial(energy, self.model)
        means = [self.group.partial_mean(energies, images) for images in (self.chains, data)]
        self.group.all_reduce_(means)
        return (means[0] - means[1]) / data[0].numel()
