"""What `gcn reconstruct` and `gcn inspect` do with one picture."""

import torch
from torch import Tensor

from gcn_cli import images, quality
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.model.fast import fast_basis
from gcn_cli.sampling.langevin import find_mode, mode_residual


def read_for(loaded: Checkpoint, source: str) -> Tensor:
    """A picture as the model was trained to see it, (C, H, W) in 0..255.

    Raises InputError where the model's layers do not fit on it.
    """
    resized = loaded.config.size is not None or loaded.model.head is not None
    size = loaded.image_size if resized else None
    pixels = images.read(source, loaded.config.channels, size)
    try:
        loaded.model.map_sizes(pixels.shape[1], pixels.shape[2])
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    return pixels


def reconstruct_one(
    loaded: Checkpoint, pixels: Tensor, steps: int, dtype: torch.dtype
) -> tuple[Tensor, dict[str, float]]:
    """`steps` auto-encodings of a picture, and what is to be said of them."""
    model = loaded.model
    basis = fast_basis(model, dtype)

    def reconstruction(x: Tensor) -> Tensor:
        return model.sigma**2 * basis(x)

    result = find_mode(_to_device(loaded, pixels), reconstruction, steps=steps)
    again = reconstruction(result)
    back = loaded.pixels.to_pixels(result[0].cpu())
    return back, {
        "rms_error": quality.rms_error(back, pixels),
        "share_of_variance": quality.unexplained_variance(back, pixels),
        "psnr_db": quality.psnr(back, pixels),
        "residual": float(mode_residual(result, again)[0]),
    }


def _to_device(loaded: Checkpoint, pixels: Tensor) -> Tensor:
    return loaded.pixels.to_model(pixels)[None].to(loaded.model.weights[0].device)
