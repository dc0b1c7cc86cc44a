"""From a config and pictures to a learner, ready for its first step or for a saved state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.config import REFINED, Config, LadderConfig, PaperConfig
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.chains import Chains, DataChains, PersistentChains
from gcn_cli.learning.denoising import DenoisingLearner, DenoisingRules
from gcn_cli.learning.published import LearningRules, PublishedLearner
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.rectifier import Rectifier
from gcn_cli.model.spec import LayerSpec
from gcn_cli.sampling.noise import ImageNoise, named_generator

Model = GenerativeConvNet | LadderNet
AnyLearner = PublishedLearner | DenoisingLearner


def build_model(config: Config, image_size: tuple[int, int], layers: Sequence[LayerSpec]) -> Model:
    """The model of a config with the given layers, its parameters zero."""
    head_for = image_size if config.head else None
    if isinstance(config, LadderConfig):
        return LadderNet(
            layers,
            channels=config.channels,
            depth=config.depth,
            lattice=config.lattice,
            rectifier=Rectifier(config.smoothness, config.exact_gates),
            head_for=head_for,
        )
    return GenerativeConvNet(
        layers,
        channels=config.channels,
        lattice=config.lattice,
        sigma=config.sigma,
        head_for=head_for,
    )


def make_learner(
    config: Config, pictures: Sequence[Tensor], device: torch.device, dtype: torch.dtype
) -> AnyLearner:
    """The learner of `config` for pictures (C, H, W) in model units, on `device`.

    Raises ValueError where the pictures do not fit one another, the crop or the layers.
    """
    batches = Batches(
        [picture.to(device) for picture in pictures],
        crop=config.crop,
        batch_size=config.batch_size,
        generator=named_generator(config.seed, "batches"),
        flips=isinstance(config, LadderConfig) and config.flips,
        rotations=isinstance(config, LadderConfig) and config.rotations,
        shifts=config.shifts if isinstance(config, LadderConfig) else 0,
    )
    model = build_model(config, batches.image_size, config.layers)
    model.map_sizes(*batches.image_size)
    if isinstance(config, LadderConfig):
        assert isinstance(model, LadderNet)
        return _denoising(config, model, batches, device, dtype)
    return _published(config, batches, device, dtype)


def _denoising(
    config: LadderConfig,
    model: LadderNet,
    batches: Batches,
    device: torch.device,
    dtype: torch.dtype,
) -> DenoisingLearner:
    model.initialise(named_generator(config.seed, "layer", 0))
    if not config.head:
        # Half a picture at most, so that there are several windows to take the mean of.
        half = min(min(picture.shape[1:]) for picture in batches.pictures) // 2
        model.spectrum.fit(batches.pictures, min(half, *batches.image_size))
    rules = DenoisingRules(
        filter_rate=config.filter_rate,
        learning_rate=config.learning_rate,
        lowest_noise=config.noise_min,
        highest_noise=config.noise_max,
        margin=config.margin,
        iterations=config.iterations,
        refined=config.refined if config.learner == REFINED else 0.0,
        likelihood=config.likelihood,
        seed=config.seed,
    )
    return DenoisingLearner(model.to(device), batches, rules, device, dtype)


def _published(
    config: PaperConfig, batches: Batches, device: torch.device, dtype: torch.dtype
) -> PublishedLearner:
    size = batches.image_size
    first = config.layers[:1] if config.growth else config.layers
    model = build_model(config, size, first)
    assert isinstance(model, GenerativeConvNet)
    model.initialise(config.init_std, named_generator(config.seed, "layer", 0))
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
    config: PaperConfig, batch_size: int, shape: tuple[int, int, int], device: torch.device
) -> Chains:
    count = batch_size if config.learner == "cd" else config.chains or 1
    images = torch.zeros(count, *shape, device=device)
    noise = ImageNoise(config.seed, "chain", range(count), device)
    if config.learner == "cd":
        return DataChains(images, noise, config.langevin_steps, config.step_size, config.sigma)
    return PersistentChains(images, noise, config.langevin_steps, config.step_size)
