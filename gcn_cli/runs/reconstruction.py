"""What a model's auto-encoder makes of a picture, and how far off that is."""

import torch
from torch import Tensor

from gcn_cli import quality
from gcn_cli.errors import InputError
from gcn_cli.model.energy import GenerativeModel, energy, reconstruct
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.pictures import Linked, to_pixels
from gcn_cli.sampling.langevin import mode_residual
from gcn_cli.sampling.modes import descend


def fitted(loaded: Checkpoint, picture: Linked, level: float | None = None) -> Tensor:
    """A picture as the model was trained to see it, (C, H, W) in 0..255, to look at at a level.

    What its layers do not fit on is cut off at the far border. Raises InputError where nothing is
    left.
    """
    config, net = loaded.config, loaded.family.net
    size = loaded.image_size if config.size or config.head else None
    pixels = to_pixels(picture, loaded.maps, size, config.shrink)
    height, width = loaded.family.fitting(pixels.shape[1], pixels.shape[2], level)
    pixels = pixels[:, :height, :width]
    try:
        if not min(height, width):
            raise ValueError(f"sides must be {net.total_stride} pixels or more for this model")
        net.map_sizes(height, width)
    except ValueError as error:
        named = f"{picture}: " if isinstance(picture, str) else "a picture: "
        raise InputError(f"{named}{error}") from error
    return pixels


@torch.no_grad()
def auto_encode(
    loaded: Checkpoint, density: GenerativeModel, pixels: Tensor, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """What is made of a `fitted` picture (C, H, W), and what is to be said of it.

    One step is an auto-encoding, whole. More are a descent towards a mode, which never raises the
    energy: `energy_fall` in all, `caught` where no step lowers it further, `at_kink` the share of
    gates that a small step flips.
    """
    start = loaded.seen(pixels)
    more: dict[str, float] = {}
    if steps == 1:
        result = reconstruct(density, start)
    else:
        found = descend(density, start, steps)
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
        "rms_error": quality.rms_error(back, pixels),
        "share_of_variance": quality.unexplained_variance(back, pixels),
        "psnr_db": quality.psnr(back, pixels),
        "residual": float(mode_residual(result, reconstruct(density, result))[0]),
        **more,
    }
