"""Given pictures on their way into a repair and back, as they were.

Pictures of which a part is kept and the rest made anew: repair, extension, seamless borders.

Kept pixels come back as they were, to the bit.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.images import Image, TextureMap, split_maps
from gcn_cli.inputs import to_pixels
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import SampleOptions
from gcn_cli.samplers.inpainting import KnownPixels
from gcn_cli.synthesis import OnEvaluation, made_pixels, tiling_plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenImages:
    """A picture, or linked maps, as a model sees them, and the way back to what they were."""

    pixels: Tensor  # (C, H, W)
    given: tuple[Image, ...]
    maps: tuple[TextureMap, ...]
    cleared: bool  # what was clear is made anew: the result has no transparency

    @classmethod
    def of(
        cls, given: Sequence[Image], maps: tuple[TextureMap, ...], *, cleared: bool
    ) -> "GivenImages":
        """Nothing is laid on white and nothing resized. Raises InputError for what is not alike."""
        bare: list[Image] = []
        for one, known in zip(given, maps, strict=False):  # too few are refused below
            if known.bands.startswith("L") and not one.bands.startswith("L"):
                raise InputError("a picture in color, a model of grays: its colors would be lost")
            own = one.bands.endswith("A") and not known.bands.endswith("A")
            bare.append(replace(one, values=one.values[:-1], bands=one.bands[:-1]) if own else one)
        return cls(to_pixels(bare, maps), tuple(given), maps, cleared)

    def as_given(self, made: Tensor, sides: tuple[int, int, int, int] | None) -> Tensor:
        """Channels (C, H, W) of a model in the bands that were given, `sides` wider."""
        parts = zip(self.given, split_maps(made, self.maps), self.maps, strict=True)
        whole = [self._one_as_given(*part, sides or (0, 0, 0, 0)) for part in parts]
        return torch.cat(whole) if len(whole) > 1 else whole[0]

    def _one_as_given(
        self, given: Image, made: Tensor, known: TextureMap, sides: tuple[int, int, int, int]
    ) -> Tensor:
        if given.bands.startswith("L") and known.bands.startswith("RGB"):
            # Kept grays are equal in all three, so that the middle one is exact.
            made = torch.cat([made[:3].median(dim=0, keepdim=True).values, made[3:]])
        if given.bands.endswith("A") and not known.bands.endswith("A") and not self.cleared:
            left, top, right, bottom = sides
            alpha = F.pad(given.values[-1:], (left, right, top, bottom), value=255.0)
            made = torch.cat([made, alpha])
        return made


SURROUNDINGS = 128  # pixels about what is made anew that the model is shown
MIRRORED_BORDER = 32  # pixels beyond the picture that are made too where it ends in what is new


def inpaint(
    loaded: Checkpoint,
    pixels: Tensor,
    anew: Tensor,
    request: SampleOptions,
    count: int,
    dtype: torch.dtype,
    on_step: OnEvaluation | None = None,
) -> Iterator[Tensor]:
    """`count` variants of a picture (C, H, W), 0..255, made anew where `anew` (H, W) is True.

    With a request that is seamless the whole picture is a torus; else only the surroundings of
    what is made anew are worked on, mirrored at the picture's border. Raises InputError where
    there is nothing to make or nothing to keep.
    """
    if not bool(anew.any()) or bool(anew.all()):
        raise InputError("a mask must have both: white, to be made anew, and black, to be kept")
    shrink = loaded.config.shrink
    if shrink is not None and min(anew.shape) > shrink:
        log.info(
            "pictures are worked on as they are, the model learned from one shrunk to %d; "
            "train with --shrink 0 where what is made is too large",
            shrink,
        )
    if request.seamless == "both":
        yield from _conditioned(loaded, pixels, anew, request, count, dtype, on_step)
        return
    stride = loaded.family.stride
    rows, columns = (_window(anew.any(dim=axis), stride) for axis in (1, 0))
    beyond = replace(request, lattice=PaddingMode.REFLECT)
    up, across = _mirrored(rows, len(anew)), _mirrored(columns, anew.shape[1])
    window, mask = pixels[:, up][:, :, across], anew[up][:, across]
    own = [(p >= 0) & (p < n) for p, n in zip((rows, columns), anew.shape, strict=True)]
    target = torch.meshgrid(rows[own[0]], columns[own[1]], indexing="ij")
    for made in _conditioned(loaded, window, mask, beyond, count, dtype, on_step):
        whole = pixels.clone()
        whole[:, target[0], target[1]] = made[:, own[0]][:, :, own[1]]
        yield whole


def extended(pixels: Tensor, sides: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """A picture (C, H, W) with room at its left, top, right and bottom, and where the room is.

    The room has the mean color. Raises InputError where no side is given.
    """
    left, top, right, bottom = sides
    if min(sides) < 0 or max(sides) < 1:
        raise InputError(
            f"--extend {','.join(map(str, sides))}: pixels to add at the left, top, right and "
            "bottom, 0 or more, one of them at least 1"
        )
    room = (left, right, top, bottom)
    anew = F.pad(torch.zeros(pixels.shape[1:], dtype=torch.bool), room, value=True)
    wider = F.pad(pixels, room)
    return torch.where(anew, pixels.mean(dim=(1, 2))[:, None, None], wider), anew


def band(size: tuple[int, int], width: int) -> Tensor:
    """True within `width` pixels of the edges of a picture of `size` (H, W)."""
    if not 0 < 2 * width < min(size):
        raise InputError(
            f"--make-seamless {width}: two bands must leave some of {min(size)} pixels between them"
        )
    anew = torch.ones(size, dtype=torch.bool)
    anew[width:-width, width:-width] = False
    return anew


def _conditioned(
    loaded: Checkpoint,
    pixels: Tensor,
    anew: Tensor,
    request: SampleOptions,
    count: int,
    dtype: torch.dtype,
    on_step: OnEvaluation | None,
) -> Iterator[Tensor]:
    """Samples of a whole canvas of which a part is given, kept pixels put back as they were."""
    family, device = loaded.family, loaded.family.net.weights[0].device
    height, width = anew.shape
    size = family.canvas(replace(request, size=(height, width)), loaded.image_size)
    if size != (height, width):
        raise InputError(f"a picture of {width}x{height}: sides do not fit the model")
    beside = 12 * loaded.config.bands * height * width  # what is known, and what is put back
    canvas = tiling_plan(family, request, size, dtype, "off", beside=beside)
    known = loaded.pixels.to_model(pixels)[None].to(device)
    given = KnownPixels(known, anew.to(device))
    steps = family.steps(request)
    for number in range(count):

        def note(step: int, _: Tensor, done: int = number * steps) -> None:
            if on_step is not None:
                on_step(done + step, count * steps)

        made = family.sample(request, [number], None, canvas, dtype, note, given)
        yield torch.where(anew, made_pixels(loaded, made)[0], pixels)


def _window(marked: Tensor, stride: int) -> Tensor:
    """Places along one axis around all that is marked, (n,) bool, as many as maps close on.

    They run past an end where what is marked is near it, or the axis too short.
    """
    found, side = marked.nonzero().flatten(), len(marked)
    first, last = int(found[0]), int(found[-1])
    low = -MIRRORED_BORDER if first < MIRRORED_BORDER else max(0, first - SURROUNDINGS)
    end = side - 1 - last
    high = side + MIRRORED_BORDER if end < MIRRORED_BORDER else min(side, last + 1 + SURROUNDINGS)
    length = -(-(high - low) // stride) * stride
    if high == side and low > 0:
        low = max(0, side - length)
    return torch.arange(low, low + length)


def _mirrored(places: Tensor, side: int) -> Tensor:
    """Places beyond the ends of an axis, mirrored there."""
    period = max(1, 2 * (side - 1))
    within = places % period
    return torch.minimum(within, period - within)
