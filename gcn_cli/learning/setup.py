"""From a config and pictures to a learner, ready for its first step or for a saved state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.config import Config, LadderConfig
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.family import Family
from gcn_cli.learning.ladder.family import LadderFamily
from gcn_cli.learning.paper.family import PaperFamily
from gcn_cli.learning.trainer import Learner
from gcn_cli.model.pattern import Pattern
from gcn_cli.model.spec import LayerSpec
from gcn_cli.ranks import ALONE, Ranks
from gcn_cli.sampling.noise import named_generator


def build(
    config: Config, image_size: tuple[int, int], layers: Sequence[LayerSpec] | None = None
) -> Family:
    """The family of a config with a network of `layers`, by default its own, all zero."""
    chosen = config.layers if layers is None else layers
    if isinstance(config, LadderConfig):
        return LadderFamily.build(config, image_size, chosen)
    return PaperFamily.build(config, image_size, chosen)


def make_learner(
    config: Config,
    pictures: Sequence[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
    *,
    pattern: Pattern | None = None,
) -> tuple[Family, Learner]:
    """The model of `config` and its learner, for pictures (C, H, W) in model units, on `device`.

    `pattern` is that of the pictures, None where they have none.

    Raises ValueError where the pictures do not fit one another, the crop or the layers, InputError
    where there is too little for all `ranks`.
    """
    batches = Batches(
        [picture.to(device) for picture in pictures],
        crop=config.crop,
        batch_size=config.batch_size,
        generator=named_generator(config.seed, "batches"),
        flips=config.flips,
        rotations=config.rotations,
        shifts=config.shifts,
    )
    build(config, batches.image_size).net.map_sizes(*batches.image_size)
    family = build(config, batches.image_size, config.first_layers)
    return family, family.learner(batches, device, dtype, ranks, pattern=pattern)
