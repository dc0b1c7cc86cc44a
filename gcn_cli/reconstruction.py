"""Auto-encoding, descent to modes, and removal of white noise."""

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
from gcn_cli.inputs import LinkedImages, linked_list, open_image, to_pixels
from gcn_cli.models.energy import Denoiser, GenerativeModel, energy, reconstruct
from gcn_cli.options import SampleOptions
from gcn_cli.samplers.langevin import mode_residual
from gcn_cli.samplers.modes import descend_to_modes
from gcn_cli.synthesis import plan_tiling, to_finished_pixels

log = logging.getLogger(__name__)

MOST_NOISE = 10.0  # deviations of the data: upper end of the search for the level of the noise
BISECTIONS = 11  # of the logarithm of the noise level


class Scale(NamedTuple):
    """Resizing of an image for a model. Sizes are (height, width)."""

    given: tuple[int, int]  # of the image
    resized: tuple[int, int]  # for the model, before its far border is cut off

    def inward(self, at: tuple[int, int]) -> tuple[int, int]:
        """The model's pixel (x, y) that contains the center of a pixel of the image."""
        (height, width), (rows, columns) = self.given, self.resized
        x, y = at
        return (2 * x + 1) * columns // (2 * width), (2 * y + 1) * rows // (2 * height)

    def outward(self, at: tuple[int, int]) -> tuple[int, int]:
        """The pixel (x, y) of the image that contains the center of a pixel of the model."""
        return Scale(self.resized, self.given).inward(at)


def fit_to_model(
    checkpoint: Checkpoint, image: LinkedImages, noise_level: float | None = None
) -> Tensor:
    """An image resized as for training and cut to the stride: (C, H, W) in 0..255.

    Raises InputError if the image is too small for the model at `noise_level`.
    """
    return fit_to_model_with_scale(checkpoint, image, noise_level)[0]


def fit_to_model_with_scale(
    checkpoint: Checkpoint, image: LinkedImages, noise_level: float | None = None
) -> tuple[Tensor, Scale]:
    """The pixels of `fit_to_model`, and how pixels of the image map to them."""
    config, net = checkpoint.config, checkpoint.kind.net
    size = checkpoint.image_size if config.size or config.head else None
    # Opened here because the original size is needed too, and standard input is read only once.
    opened = image if isinstance(image, Tensor) else [open_image(p) for p in linked_list(image)]
    pixels = to_pixels(opened, checkpoint.maps, size, config.shrink)
    given = opened.shape[-2:] if isinstance(opened, Tensor) else opened[0].size
    scale = Scale((given[0], given[1]), (pixels.shape[1], pixels.shape[2]))
    height, width = checkpoint.kind.fitting(pixels.shape[1], pixels.shape[2], noise_level)
    pixels = pixels[:, :height, :width]
    try:
        if not min(height, width):
            raise ValueError(f"sides must be {net.total_stride} pixels or more for this model")
        net.map_sizes(height, width)
    except ValueError as error:
        name = image if isinstance(image, str) else "an image"
        raise InputError(f"{name}: {error}") from error
    return pixels, scale


@torch.no_grad()
def auto_encode(
    checkpoint: Checkpoint, density: GenerativeModel, pixels: Tensor, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """sigma^2 B(I) of `fit_to_model` pixels (C, H, W) in 0..255, and metrics of the result.

    rms_error in gray levels, share_of_variance (of the error), psnr_db, residual
    |I - sigma^2 B(I)| / |I| at the result. With several steps the image descends to a mode of the
    energy: also energy, energy_decrease, steps, stuck (1 if no step lowers the energy) and
    kink_share (share of gates that a small step flips).
    """
    start = checkpoint.to_model(pixels)
    more: dict[str, float] = {}
    if steps == 1:
        result = reconstruct(density, start)
    else:
        descent = descend_to_modes(density, start, steps)
        result = descent.images
        more = {
            "energy": float(energy(density, result)),
            "energy_decrease": float(descent.energy_decrease),
            "steps": descent.steps,
            "stuck": int(descent.stuck),
            "kink_share": float(descent.kink_share),
        }
    output = checkpoint.normalization.to_pixels(result[0].cpu())
    return output, {
        "rms_error": metrics.rms_error(output, pixels),
        "share_of_variance": metrics.unexplained_variance(output, pixels),
        "psnr_db": metrics.psnr(output, pixels),
        "residual": float(mode_residual(result, reconstruct(density, result))[0]),
        **more,
    }


@torch.no_grad()
def denoise_image(
    checkpoint: Checkpoint, pixels: Tensor, sigma: float | None, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """An image (C, H, W) in 0..255 without its white noise, and the deviation of the noise.

    sigma: the deviation in gray levels, at most the highest noise level of the model; None
    estimates it. Raises InputError for models without noise levels or of aligned objects, for
    linked maps, and for more noise than the model knows.
    """
    config, kind, scale = checkpoint.config, checkpoint.kind, checkpoint.normalization.scale
    if len(set(scale)) > 1:
        raise InputError("--denoise: not for linked maps or transparency, which differ in scale")
    if config.head:
        raise InputError("--denoise: not for models of aligned objects; use a texture's")
    if sigma is not None and not 0 < sigma < math.inf:
        raise InputError(f"--denoise {sigma}: must be a number of gray levels above 0, or auto")
    height, width = pixels.shape[1:]
    bottom, right = (-side % kind.net.total_stride for side in (height, width))
    options = SampleOptions(padding_mode=config.padding_mode)
    plan = plan_tiling(kind, options, (height + bottom, width + right), dtype, "off")
    learned = kind.denoiser(options, plan, dtype, checkpoint.phases(checkpoint.to_model(pixels)))
    assert isinstance(config, NoiseConditionalConfig)  # other kinds have no denoiser
    most = config.noise_max * scale[0]
    if sigma is not None and sigma > most:
        allowed = math.floor(10 * most) / 10  # rounding up would exceed the limit
        raise InputError(
            f"--denoise {sigma}: is above {allowed:.1f} gray levels, the most noise that the model "
            f"learned; give {allowed:.1f} or less, or auto"
        )
    denoise = extrapolated_denoiser(learned, config.noise_min)
    x = F.pad(checkpoint.to_model(pixels), (0, right, 0, bottom), mode="reflect")
    if sigma is not None:
        noise_level = sigma / scale[0]
    else:
        noise_level = estimate_noise_level(x, denoise, min(MOST_NOISE, config.noise_max))
        if noise_level < config.noise_min:
            lowest = config.noise_min * scale[0]
            log.info("--denoise: less noise than the lowest level, %.1f gray levels", lowest)
        else:
            log.info("--denoise: noise of %.1f gray levels", noise_level * scale[0])
    clean = denoise(x, noise_level)[:, :, :height, :width]
    return to_finished_pixels(checkpoint, clean.contiguous())[0], noise_level * scale[0]


def extrapolated_denoiser(denoise: Denoiser, lowest: float) -> Denoiser:
    """D at all noise levels s > 0, from a D that is known from `lowest` on.

    Below, the score is that of s0 = lowest. As D_s(I) = I + s^2 grad log p_s(I),

        D_s(I) = I + s^2 / s0^2 (D_s0(I) - I).
    """

    def extrapolated(x: Tensor, noise: float) -> Tensor:
        if noise >= lowest:
            return denoise(x, noise)
        return x + (noise / lowest) ** 2 * (denoise(x, lowest) - x)

    return extrapolated


def estimate_noise_level(x: Tensor, denoise: Denoiser, highest: float) -> float:
    """Deviation of the white noise on images (N, C, H, W), in model units, by bisection.

    Stein's identity: E <I, -grad log p_s(I)> is the dimension of I if its noise has level s, with
    s^2 grad log p_s(I) = D(I) - I. It is larger if the noise is stronger than s, smaller if it is
    weaker. Below the levels learned the score is constant, so weak noise is estimated as nearly 0.
    """
    low, high = math.log(1e-3), math.log(highest)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        noise_level = math.exp(middle)
        ratio = float((x * (x - denoise(x, noise_level))).mean()) / noise_level**2
        low, high = (middle, high) if ratio > 1 else (low, middle)
    return math.exp((low + high) / 2)
