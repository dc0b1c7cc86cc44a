"""What a model's auto-encoder makes of a picture, and how far off that is.

Noise taken off a picture: a ladder's D is the mean of the clean picture given the noisy one.
"""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import metrics
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.inputs import LinkedImages, open_image, several, to_pixels
from gcn_cli.models.energy import GenerativeModel, energy, reconstruct
from gcn_cli.options import SampleOptions
from gcn_cli.samplers.annealed import Denoiser
from gcn_cli.samplers.langevin import mode_residual
from gcn_cli.samplers.modes import descend_to_modes
from gcn_cli.synthesis import made_pixels, tiling_plan

log = logging.getLogger(__name__)


class Scale(NamedTuple):
    """How a picture as given was resized for a model. Sizes are (H, W)."""

    given: tuple[int, int]  # in pixels of the picture as given
    resized: tuple[int, int]  # in pixels of the model, before any are cut off at the far border

    def inward(self, at: tuple[int, int]) -> tuple[int, int]:
        """The model's pixel (x, y) that the middle of a given one lies in."""
        (height, width), (rows, columns) = self.given, self.resized
        x, y = at
        return (2 * x + 1) * columns // (2 * width), (2 * y + 1) * rows // (2 * height)

    def outward(self, at: tuple[int, int]) -> tuple[int, int]:
        """The given pixel (x, y) that the middle of one of the model's lies in."""
        return Scale(self.resized, self.given).inward(at)


def fit_to_model(loaded: Checkpoint, picture: LinkedImages, level: float | None = None) -> Tensor:
    """A picture as the model was trained to see it, (C, H, W) in 0..255, to look at at a level.

    What its layers do not fit on is cut off at the far border. Raises InputError where nothing is
    left.
    """
    return fitted_to_scale(loaded, picture, level)[0]


def fitted_to_scale(
    loaded: Checkpoint, picture: LinkedImages, level: float | None = None
) -> tuple[Tensor, Scale]:
    """A picture as `fit_to_model`, and the scale from the pixels of the picture as given to its own."""
    config, net = loaded.config, loaded.family.net
    size = loaded.image_size if config.size or config.head else None
    # Opened here: the size as given is needed too, and standard input can be read once only.
    opened = picture if isinstance(picture, Tensor) else [open_image(p) for p in several(picture)]
    pixels = to_pixels(opened, loaded.maps, size, config.shrink)
    given = opened.shape[-2:] if isinstance(opened, Tensor) else opened[0].size
    scale = Scale((given[0], given[1]), (pixels.shape[1], pixels.shape[2]))
    height, width = loaded.family.fitting(pixels.shape[1], pixels.shape[2], level)
    pixels = pixels[:, :height, :width]
    try:
        if not min(height, width):
            raise ValueError(f"sides must be {net.total_stride} pixels or more for this model")
        net.map_sizes(height, width)
    except ValueError as error:
        named = f"{picture}: " if isinstance(picture, str) else "a picture: "
        raise InputError(f"{named}{error}") from error
    return pixels, scale


@torch.no_grad()
def auto_encode(
    loaded: Checkpoint, density: GenerativeModel, pixels: Tensor, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """What is made of a `fit_to_model` picture (C, H, W), and what is to be said of it.

    One step is an auto-encoding, whole. More are a descent towards a mode, which never raises the
    energy: `energy_fall` in all, `caught` where no step lowers it further, `at_kink` the share of
    gates that a small step flips.
    """
    start = loaded.seen(pixels)
    more: dict[str, float] = {}
    if steps == 1:
        result = reconstruct(density, start)
    else:
        found = descend_to_modes(density, start, steps)
        result = found.images
        more = {
            "energy": float(energy(density, result)),
            "energy_fall": float(found.falls),
            "steps": found.steps,
            "caught": int(found.caught),
            "at_kink": float(found.at_kink),
        }
    back = loaded.pixels.to_pixels(result[0].cpu())
    return back, {
        "rms_error": metrics.rms_error(back, pixels),
        "share_of_variance": metrics.unexplained_variance(back, pixels),
        "psnr_db": metrics.psnr(back, pixels),
        "residual": float(mode_residual(result, reconstruct(density, result))[0]),
        **more,
    }


HIGHEST_NOISE = 10.0  # deviations of the data: more noise than this is not looked for
HALVINGS = 11  # of the logarithm of the level


@torch.no_grad()
def denoise_image(
    loaded: Checkpoint, pixels: Tensor, sigma: float | None, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """A picture (C, H, W) in 0..255 without its white noise, and the noise's deviation.

    sigma: the deviation in gray levels, at most that of the model's highest level; None estimates
    it. Raises InputError for models without levels of noise, for more noise than was learned, and
    for linked maps, each of which has noise of its own.
    """
    config, family, scale = loaded.config, loaded.family, loaded.pixels.scale
    if len(set(scale)) > 1:
        raise InputError("--denoise: linked maps and transparency have noise of their own each")
    if config.head:
        raise InputError("--denoise: this model has a head, by place; use a texture's")
    if sigma is not None and not 0 < sigma < math.inf:
        raise InputError(f"--denoise {sigma}: must be a number of gray levels more than 0, or auto")
    height, width = pixels.shape[1:]
    stride = family.stride
    wider = [-side % stride for side in (height, width)]
    request = SampleOptions(lattice=config.lattice)
    size = (height + wider[0], width + wider[1])
    canvas = tiling_plan(family, request, size, dtype, "off")
    learned = family.denoiser(request, canvas, dtype)
    assert isinstance(config, NoiseConditionalConfig)  # others have no denoiser
    most = config.noise_max * scale[0]
    if sigma is not None and sigma > most:
        allowed = math.floor(10 * most) / 10  # never above the limit, as rounding could be
        raise InputError(
            f"--denoise {sigma}: is above {allowed:.1f} gray levels, the most noise that the model "
            f"learned; give {allowed:.1f} or less, or auto"
        )
    run = below_lowest(learned, config.noise_min)
    x = loaded.seen(pixels)
    x = F.pad(x, (0, wider[1], 0, wider[0]), mode="reflect")
    if sigma is None:
        level = estimated_level(x, run, min(HIGHEST_NOISE, config.noise_max))
        if level < config.noise_min:
            lowest = config.noise_min * scale[0]
            log.info("noise under the lowest level learned, %.1f gray levels (--denoise)", lowest)
        else:
            log.info("noise of %.1f gray levels (--denoise)", level * scale[0])
    else:
        level = sigma / scale[0]
    made = run(x, level)[:, :, :height, :width]
    return made_pixels(loaded, made.contiguous())[0], level * scale[0]


def below_lowest(denoise_image: Denoiser, lowest: float) -> Denoiser:
    """D at every level above 0, of a D that is known from the level `lowest` on.

    Below, the score is taken for that of `lowest`, s0. As D_s(I) = I + s^2 grad log p_s(I),

        D_s(I) = I + s^2 / s0^2 (D_s0(I) - I).

    Levels are in deviations of the data.
    """

    def mean(x: Tensor, noise: float) -> Tensor:
        if noise >= lowest:
            return denoise_image(x, noise)
        return x + (noise / lowest) ** 2 * (denoise_image(x, lowest) - x)

    return mean


def estimated_level(x: Tensor, denoise_image: Denoiser, highest: float) -> float:
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
        asked = float((x * (x - denoise_image(x, level))).mean()) / level**2
        low, high = (middle, high) if asked > 1 else (low, middle)
    return math.exp((low + high) / 2)
