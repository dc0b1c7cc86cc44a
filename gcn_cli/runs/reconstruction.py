"""What a model's auto-encoder makes of a picture, and how far off that is."""

from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli import quality
from gcn_cli.errors import InputError
from gcn_cli.model.energy import GenerativeModel, energy, reconstruct
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.pictures import Linked, open_once, several, to_pixels
from gcn_cli.sampling.langevin import mode_residual
from gcn_cli.sampling.modes import descend


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


def fitted(loaded: Checkpoint, picture: Linked, level: float | None = None) -> Tensor:
    """A picture as the model was trained to see it, (C, H, W) in 0..255, to look at at a level.

    What its layers do not fit on is cut off at the far border. Raises InputError where nothing is
    left.
    """
    return fitted_to_scale(loaded, picture, level)[0]


def fitted_to_scale(
    loaded: Checkpoint, picture: Linked, level: float | None = None
) -> tuple[Tensor, Scale]:
    """A picture as `fitted`, and the scale from the pixels of the picture as given to its own."""
    config, net = loaded.config, loaded.family.net
    size = loaded.image_size if config.size or config.head else None
    # Opened here: the size as given is needed too, and standard input can be read once only.
    opened = picture if isinstance(picture, Tensor) else [open_once(p) for p in several(picture)]
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
