"""Which of several models made a picture: the class posterior of the paper's first section.

p(class | I) is proportional to p_class(I) where all classes are as likely before. Of ladders
log p_class(I) is had from their denoisers, up to a constant that all share (`sampling.evidence`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.pictures import Linked, to_pixels
from gcn_cli.sampling.annealed import Denoiser, noise_levels
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.evidence import errors, log_evidence
from gcn_cli.sampling.request import Request

LEVELS, DRAWS = 16, 2
LOWEST, HIGHEST = 3.0, 600.0  # grey levels: below, all denoisers leave pictures as they are


@dataclass(frozen=True)
class Verdict:
    """What a picture says of one of several models."""

    log_ratio: float  # of the likelihood to that of the most likely model, 0 or less
    posterior: float  # probability that this of them made it, all being as likely before


def compare(models: Sequence[Checkpoint], picture: Linked, dtype: torch.dtype) -> list[Verdict]:
    """A verdict for every model, in their order.

    Raises InputError for models without levels of noise, or of other channels.
    """
    if len({model.config.bands for model in models}) > 1:
        raise InputError(
            "--compare: models of grey and of colour have no densities of the same thing; train "
            "them alike (--channels)"
        )
    # The same pixels for all, or their densities are not of the same thing.
    stride = math.lcm(*(model.family.stride for model in models))
    told = [_evidence(model, picture, stride, dtype) for model in models]
    best = max(told)
    weights = [math.exp(one - best) for one in told]
    return [
        Verdict(one - best, weight / sum(weights))
        for one, weight in zip(told, weights, strict=True)
    ]


def _evidence(loaded: Checkpoint, picture: Linked, stride: int, dtype: torch.dtype) -> float:
    """log p(I) in pixels, up to what all models share, of whole multiples of `stride` pixels."""
    config, family, scale = loaded.config, loaded.family, set(loaded.pixels.scale)
    if not config.texture_ladder or len(scale) > 1:
        raise InputError("--compare: is for ladders of textures, of one picture each")
    pixels = to_pixels(picture, loaded.maps)
    height, width = (side // stride * stride for side in pixels.shape[1:])
    if not min(height, width):
        raise InputError(f"a picture under {stride} pixels a side is too small to compare")
    # Its middle: what does not fill whole maps is left out at all sides alike.
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    x = loaded.pixels.to_model(pixels[:, top : top + height, left : left + width])[None]
    denoise = family.denoiser(Request(lattice=config.lattice), Canvas((height, width)), dtype)
    return _in_pixels(denoise, x.to(family.net.weights[0].device), scale.pop())


def _in_pixels(denoise: Denoiser, x: Tensor, scale: float) -> float:
    """The evidence of x in units of `scale` grey levels, as of pixels."""
    levels = noise_levels(LEVELS, HIGHEST, LOWEST)
    error = errors(denoise, x, [level / scale for level in levels], draws=DRAWS)
    return log_evidence(error * scale**2, levels)
