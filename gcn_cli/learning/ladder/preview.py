"""What a training shows of its samples on the way."""

import torch
from torch import Tensor

from gcn_cli.config import LadderConfig
from gcn_cli.model.ladder.level import LadderLevel
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.sampling.annealed import Denoiser, anneal, noise_levels
from gcn_cli.sampling.noise import ImageNoise

PREVIEW_STEPS = 16


def preview(
    config: LadderConfig,
    net: LadderNet,
    denoise: Denoiser,
    size: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """Two samples of a net, (2, C, H, W), down the levels of a config."""
    noise = ImageNoise(config.seed, "preview", range(2), device)
    levels = noise_levels(PREVIEW_STEPS, config.noise_max, config.noise_min)
    start = LadderLevel(net, levels[0]).sigma * noise((2, net.channels, *size))
    return anneal(start, denoise, levels, noise)
