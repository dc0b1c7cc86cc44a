"""Noise taken off a picture: a ladder's D is the mean of the clean picture given the noisy one."""

import logging
import math

import torch
from torch import Tensor
from torch.nn import functional as F

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

    sigma: the deviation in grey levels; None estimates it. Raises InputError for models without
    levels of noise, and for linked maps, each of which has noise of its own.
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
    run = family.denoiser(request, canvas, dtype)
    x = loaded.seen(pixels)
    x = F.pad(x, (0, wider[1], 0, wider[0]), mode="reflect")
    if sigma is None:
        level = estimated_level(x, run, HIGHEST)
        log.info("noise of %.1f grey levels (--denoise)", level * scale[0])
    else:
        level = sigma / scale[0]
    made = run(x, level)[:, :, :height, :width]
    return made_pixels(loaded, made.contiguous())[0], level * scale[0]


def estimated_level(x: Tensor, denoise: Denoiser, highest: float) -> float:
    """The deviation of white noise on images (N, C, H, W), in units of the model.

    Stein's identity: noisy images of a level s have E <I, -grad log p_s(I)> = dimensions, and
    s^2 grad log p_s(I) = D(I) - I. Where the noise is stronger than s the model wonders at it, and
    the left side is larger; where it is weaker, smaller. The level between is found by halving.
    """
    low, high = math.log(1e-3), math.log(highest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        level = math.exp(middle)
        asked = float((x * (x - denoise(x, level))).mean()) / level**2
        low, high = (middle, high) if asked > 1 else (low, middle)
    return math.exp((low + high) / 2)
