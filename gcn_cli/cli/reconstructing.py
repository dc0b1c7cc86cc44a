"""What `gcn reconstruct` and `gcn inspect` do with one picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli import images, quality
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import LadderConfig
from gcn_cli.errors import InputError
from gcn_cli.model.capture import Captured
from gcn_cli.model.energy import Gradient
from gcn_cli.model.fast import fast_basis
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.level import LadderLevel
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.sampling.langevin import find_mode, mode_residual

DEFAULT_LEVEL = 1.0  # where a ladder's noise is as strong as its data


def read_for(loaded: Checkpoint, source: str) -> Tensor:
    """A picture as the model was trained to see it, (C, H, W) in 0..255.

    Raises InputError where the model's layers do not fit on it.
    """
    config = loaded.config
    size = loaded.image_size if config.size or config.head else None
    longest = config.shrink if isinstance(config, LadderConfig) else None
    pixels = images.read(source, config.channels, size, longest)
    if isinstance(loaded.model, LadderNet):
        stride = loaded.model.total_stride  # what does not divide is cut off at the far border
        height, width = (side // stride * stride for side in pixels.shape[1:])
        pixels = pixels[:, :height, :width]
    try:
        loaded.model.map_sizes(pixels.shape[1], pixels.shape[2])
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    return pixels


@dataclass(frozen=True)
class ModelHere:
    """A model at one level: its reference deviation, its B, and the model itself."""

    model: GenerativeConvNet | LadderLevel
    basis: Gradient

    def reconstruction(self, x: Tensor) -> Tensor:
        """sigma^2 B(I)."""
        return self.model.sigma**2 * self.basis(x)


def model_at(loaded: Checkpoint, level: float | None, dtype: torch.dtype) -> ModelHere:
    """The checkpoint's model, a ladder at `level`. Raises InputError for levels of no ladder."""
    if isinstance(loaded.model, LadderNet):
        rung = LadderLevel(loaded.model, DEFAULT_LEVEL if level is None else level, dtype)
        return ModelHere(rung, rung.basis)
    if level is not None:
        raise InputError("--level: this model has one level of noise; leave it out")
    return ModelHere(loaded.model, Captured(fast_basis(loaded.model, dtype)))


@torch.no_grad()
def reconstruct_one(
    loaded: Checkpoint, here: ModelHere, pixels: Tensor, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """`steps` auto-encodings of a picture, and what is to be said of them."""
    device = next(loaded.model.parameters()).device
    start = loaded.pixels.to_model(pixels)[None].to(device)
    result = find_mode(start, here.reconstruction, steps=steps)
    back = loaded.pixels.to_pixels(result[0].cpu())
    return back, {
        "rms_error": quality.rms_error(back, pixels),
        "share_of_variance": quality.unexplained_variance(back, pixels),
        "psnr_db": quality.psnr(back, pixels),
        "residual": float(mode_residual(result, here.reconstruction(result))[0]),
    }
