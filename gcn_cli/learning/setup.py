"""From a config and pictures to a learner, ready for its first step or for a saved state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.chains import Chains, DataChains, PersistentChains
from gcn_cli.learning.published import LearningRules, PublishedLearner
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.spec import LayerSpec
from gcn_cli.sampling.noise import ImageNoise, named_generator


def build_model(
    config: Config, image_size: tuple[int, int], layers: Sequence[LayerSpec]
) -> GenerativeConvNet:
    """The model of a config with the given layers, its parameters zero."""
    return GenerativeConvNet(
        layers,
        channels=config.channels,
        lattice=config.lattice,
        sigma=config.sigma,
        head_for=image_size if config.head else None,
    )


def published_learner(
    config: Config, pictures: Sequence[Tensor], device: torch.device, dtype: torch.dtype
) -> PublishedLearner:
    """The learner of `config` for pictures (C, H, W) in model units, on `device`.

    Raises ValueError where the pictures do not fit one another, the crop or the layers.
    """
    batches = Batches(
        [picture.to(device) for picture in pictures],
        crop=config.crop,
        batch_size=config.batch_size,
        generator=named_generator(config.seed, "batches"),
    )
    size = batches.image_size
    first = config.layers[:1] if config.growth else config.layers
    model = build_model(config, size, first)
    model.initialise(config.init_std, named_generator(config.seed, "layer", 0))
    build_model(config, size, config.layers).map_sizes(*size)  # the whole stack must fit
    return PublishedLearner(
        model.to(device),
        config.layers[len(first) :],
        batches,
        _chains(config, batches.batch_size, (config.channels, *size), device),
        LearningRules(
            learning_rate=config.learning_rate,
            rate_divisor=config.rate_divisor,
            bias_rate=config.bias_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            gradient_cap=config.gradient_cap,
            init_std=config.init_std,
        ),
        iterations_per_stage=config.iterations,
        seed=config.seed,
        dtype=dtype,
    )


def _chains(
    config: Config, batch_size: int, shape: tuple[int, int, int], device: torch.device
) -> Chains:
    count = batch_size if config.learner == "cd" else config.chains or 1
    images = torch.zeros(count, *shape, device=device)
    noise = ImageNoise(config.seed, "chain", range(count), device)
    if config.learner == "cd":
        return DataChains(images, noise, config.langevin_steps, config.step_size, config.sigma)
    return PersistentChains(images, noise, config.langevin_steps, config.step_size)
