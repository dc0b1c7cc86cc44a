"""Noise taken off a picture: a ladder's D is the mean of the clean picture given the noisy one."""

import logging
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.config import LadderConfig
from gcn_cli.errors import InputError
from gcn_cli.runs.canvas import planned
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.synthesis import made_pixels
from gcn_cli.sampling.annealed import Denoiser
from gcn_cli.sampling.request import Request

log = logging.getLogger(__name__)

HIGHEST = 10.0  # deviations of the data: more noise than this is not looked for
HALVINGS = 11  # of the logarithm of the level


@torch.no_grad()
def denoise(
    loaded: Checkpoint, pixels: Tensor, sigma: float | None, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """A picture (C, H, W) in 0..255 without its white noise, and the noise's deviation.

    sigma: the deviation in grey levels, at most that of the model's highest level; None estimates
    it. Raises InputError for models without levels of noise, for more noise than was learned, and
    for linked maps, each of which has noise of its own.
    """
    config, family, scale = loaded.config, loaded.family, loaded.pixels.scale
    if len(set(scale)) > 1:
        raise InputError("--denoise: linked maps and transparency have noise of their own each")
    if config.head:
        raise InputError("--denoise: this model has a head, by place; use a texture's")
    if sigma is not None and not 0 < sigma < math.inf:
        raise InputError(f"--denoise {sigma}: must be a number of grey levels more than 0, or auto")
    height, width = pixels.shape[1:]
    stride = family.stride
    wider = [-side % stride for side in (height, width)]
    request = Request(lattice=config.lattice)
    size = (height + wider[0], width + wider[1])
    canvas = planned(family, request, size, dtype, "off")
    learned = family.denoiser(request, canvas, dtype)
    assert isinstance(config, LadderConfig)  # others have no denoiser
    most = config.noise_max * scale[0]
    if sigma is not None and sigma > most:
        allowed = math.floor(10 * most) / 10  # never above the limit, as rounding could be
        raise InputError(
            f"--denoise {sigma}: is above {allowed:.1f} grey levels, the most noise that the model "
            f"learned; give {allowed:.1f} or less, or auto"
        )
    run = below_lowest(learned, config.noise_min)
    x = loaded.seen(pixels)
    x = F.pad(x, (0, wider[1], 0, wider[0]), mode="reflect")
    if sigma is None:
        level = estimated_level(x, run, min(HIGHEST, config.noise_max))
        if level < config.noise_min:
            lowest = config.noise_min * scale[0]
            log.info("noise under the lowest level learned, %.1f grey levels (--denoise)", lowest)
        else:
            log.info("noise of %.1f grey levels (--denoise)", level * scale[0])
    else:
        level = sigma / scale[0]
    made = run(x, level)[:, :, :height, :width]
    return made_pixels(loaded, made.contiguous())[0], level * scale[0]


def below_lowest(denoise: Denoiser, lowest: float) -> Denoiser:
    """D at every level above 0, of a D that is known from the level `lowest` on.

    Below, the score is taken for that of `lowest`, s0. As D_s(I) = I + s^2 grad log p_s(I),

        D_s(I) = I + s^2 / s0^2 (D_s0(I) - I).

    Levels are in deviations of the data.
    """

    def mean(x: Tensor, noise: float) -> Tensor:
        if noise >= lowest:
            return denoise(x, noise)
        return x + (noise / lowest) ** 2 * (denoise(x, lowest) - x)

    return mean


def estimated_level(x: Tensor, denoise: Denoiser, highest: float) -> float:
    """The deviation of white noise on images (N, C, H, W), in units of the model.

    Stein's identity: noisy images of a level s have E <I, -grad log p_s(I)> = dimensions, and
    s^2 grad log p_s(I) = D(I) - I. Where the noise is stronger than s the model wonders at it, and
    the left side is larger; where it is weaker, smaller. The level between is found by halving. At
    levels below those learned the score, and with it the left side, is one and the same: noise that
    is weaker than all of them is found to be next to none.
    """
    low, high = math.log(1e-3), math.log(highest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        level = math.exp(middle)
        asked = float((x * (x - denoise(x, level))).mean()) / level**2
        low, high = (middle, high) if asked > 1 else (low, middle)
    return math.exp((low + high) / 2)
