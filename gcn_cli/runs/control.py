"""What a caller steers samples with, in the units of a model: a guide, a second model, a mask."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.pictures import Linked, Picture, open_once, to_pixels
from gcn_cli.sampling.annealed import Denoiser
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.control import Blend, Guide, large_shapes
from gcn_cli.sampling.request import Request

CONTRAST = 0.6  # most deviation of a guide, in that of the data: beyond, highlights break
BORDER = 6.0  # pixels over which one model gives way to another

Place = Callable[[Tensor], Tensor]
"""From a picture (..., H, W) to a canvas on which it lies at the upper left."""


@dataclass(frozen=True)
class Control:
    """guide: a picture, followed by `strength` 0..1. other: a model where `mask` is white."""

    guide: Linked | None = None
    strength: float = 0.5
    other: Checkpoint | None = None
    mask: Picture | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"--guide-strength {self.strength}: must be 0 to 1")
        if (self.other is None) != (self.mask is None):
            raise InputError("--blend and --mask: a model and where it applies; give both")

    @property
    def steers(self) -> bool:
        """Whether there is anything to steer with."""
        return self.guide is not None or self.other is not None

    def bending(
        self,
        loaded: Checkpoint,
        request: Request,
        canvas: Canvas,
        picture: tuple[int, int],
        dtype: torch.dtype,
    ) -> Callable[[Denoiser], Denoiser] | None:
        """What D is to be wrapped in, on a canvas; None where nothing is asked.

        `picture` (H, W) is the part of the canvas, at its upper left, that is kept: guide and mask
        are as large as that. Raises InputError where the models do not fit.
        """
        if not self.steers:
            return None
        if loaded.config.head:
            raise InputError("--guide, --blend: this model has a head, by place; use a texture's")
        place = placing(loaded, request, canvas.size)
        blend = None
        if self.other is not None:
            blend = self._blend(loaded, request, canvas, picture, place, dtype)
        guide = None if self.guide is None else self._guide(loaded, picture, place)

        def bent(denoise: Denoiser) -> Denoiser:
            mixed = denoise if blend is None else blend.mixing(denoise)
            return mixed if guide is None else guide.drawing(mixed)

        return bent

    def _guide(self, loaded: Checkpoint, picture: tuple[int, int], place: Place) -> Guide:
        """The guide about its own mean, with no more contrast than a texture's parts have.

        Both are those of the `picture` (H, W) alone, whatever lies beyond it.
        """
        assert self.guide is not None
        device = loaded.family.net.weights[0].device
        shapes = loaded.pixels.to_model(to_pixels(self.guide, loaded.maps, picture))[None]
        centred = shapes - shapes.mean(dim=(2, 3), keepdim=True)
        calm = centred / (centred.std() / CONTRAST).clamp_min(1)
        return Guide(place(calm).to(device), self.strength)

    def _blend(
        self,
        loaded: Checkpoint,
        request: Request,
        canvas: Canvas,
        picture: tuple[int, int],
        place: Place,
        dtype: torch.dtype,
    ) -> Blend:
        assert self.other is not None
        assert self.mask is not None
        one, other = loaded.pixels, self.other.pixels
        bands = [[part.bands for part in some.maps] for some in (loaded, self.other)]
        if bands[0] != bands[1]:
            raise InputError(f"--blend: models of {bands[0]} and {bands[1]}; they must be alike")
        if self.other.config.head:
            raise InputError("--blend: a model with a head, by place; use one of a texture")
        if len(set(one.scale)) > 1 or len(set(other.scale)) > 1:
            raise InputError("--blend: linked maps and transparency have noise of their own each")
        factor = one.scale[0] / other.scale[0]
        means = [torch.tensor(some.mean)[:, None, None] for some in (one, other)]
        device = loaded.family.net.weights[0].device
        return Blend(
            self.other.family.denoiser(request, canvas, dtype),
            _share(self.mask, picture, place).to(device),
            factor,
            ((means[0] - means[1]) / other.scale[0]).to(device),
        )


def _share(mask: Picture, picture: tuple[int, int], place: Place) -> Tensor:
    """How much the second model counts on the canvas, (H, W) in 0..1, soft at the border.

    `picture` (H, W) is the part of the canvas that the mask is for.
    """
    white = place(open_once(mask).resized(picture).to_bands("L") / 255)
    return large_shapes(white[None], BORDER)[0, 0].clamp(0, 1)


def placing(loaded: Checkpoint, request: Request, canvas: tuple[int, int]) -> Place:
    """`placed` on a canvas of that size (H, W), as the model's chains of a request close it."""
    # A model closes on all sides, if asked to, just where its canvas is a torus.
    torus = all(loaded.family.closed(replace(request, seamless="both")))
    return lambda values: placed(values, canvas, torus=torus)


def placed(values: Tensor, canvas: tuple[int, int], *, torus: bool) -> Tensor:
    """A picture (..., H, W) at the upper left of a canvas (H, W) that is no smaller.

    Beyond its sides the picture is mirrored, again and again where the canvas is far larger. On a
    torus one half of what lies beyond mirrors the right or lower side, the other half the left or
    upper side. A picture as large as the canvas comes back as it is.
    """
    for axis, length in zip((-2, -1), canvas, strict=True):
        side = values.shape[axis]
        if side == length:
            continue
        places = torch.arange(length)
        if torus:
            # The end of the canvas lies beside the picture's first pixel: a jump is hidden midway.
            midway = side + (length - side + 1) // 2
            places = torch.where(places < midway, places, places - length)
        period = max(1, 2 * side - 2)
        places = places % period
        values = values.index_select(axis, torch.minimum(places, period - places))
    return values
