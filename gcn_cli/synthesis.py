"""How a picture is gone through: at once, block by block, with its state in memory or on disk.

What a caller steers samples with, in the units of a model: a guide, a second model, a mask.

Pictures from a model, one after the other, or as many together as a GPU holds.
"""

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.images import Image
from gcn_cli.images.image import finish_maps
from gcn_cli.inputs import ImageLike, LinkedImages, open_image, several, to_pixels
from gcn_cli.kinds import ModelKind, TilingPlan
from gcn_cli.models.chunks import Allocator, row_chunks
from gcn_cli.options import SampleOptions
from gcn_cli.pattern import PatternProjection, fitting_side, pattern_fits, resampled_torus
from gcn_cli.runtime import free_memory
from gcn_cli.samplers.annealed import Denoiser
from gcn_cli.samplers.guidance import ImageGuide, ModelBlend, large_shapes
from gcn_cli.samplers.rng import named_generator

log = logging.getLogger(__name__)

Tile = int | Literal["auto", "off"]
"""Side of the blocks that a picture is made in; auto: where memory does not hold it at once."""

BLOCKS = (1024, 512, 256)  # pixels; larger ones are no faster, their maps outgrow the caches
USED = 0.8  # share of the free memory that is planned for
GIB = 2**30


def tiling_plan(
    family: ModelKind,
    request: SampleOptions,
    size: tuple[int, int],
    dtype: torch.dtype,
    tile: Tile,
    *,
    beside: int = 0,
) -> TilingPlan:
    """The canvas of a picture of `size` (H, W); what was chosen is said.

    `beside` are bytes that are needed for other things. Raises InputError where neither memory nor
    disk holds the picture, or the model cannot be evaluated in blocks.
    """
    device = family.net.weights[0].device
    free = free_memory(device)
    needed = family.state_bytes(size) + family.evaluation_bytes(size, dtype) + beside
    at_once = free is None or needed <= USED * free
    if tile == "auto" and (at_once or family.block(request, BLOCKS[-1]) is None):
        tile = "off"
    if tile == "off":
        if free is not None and needed > free:
            raise InputError(
                f"--size {size[1]}x{size[0]}: needs some {needed / GIB:.1f} GiB of memory, "
                f"{free / GIB:.1f} GiB are free on {device}; choose a smaller size"
            )
        return TilingPlan(size)
    sides = [side for side in BLOCKS if side < max(size)] if tile == "auto" else [tile]
    block = None
    for side in sides or BLOCKS[-1:]:
        block = family.block(request, side)
        if block is None:
            raise InputError(f"--tile {tile}: this model, or its border, takes pictures whole")
        evaluated = family.evaluation_bytes((block[1], block[1]), dtype) + beside
        if free is None or family.state_bytes(size) + evaluated <= USED * free:
            break
    assert block is not None
    canvas = TilingPlan(size, block[0])
    if free is not None and family.state_bytes(size) + evaluated > USED * free:
        if device.type != "cpu":
            raise InputError(
                f"--size {size[1]}x{size[0]}: {device} has {free / GIB:.1f} GiB free, too little "
                "for the picture; choose a smaller size, or --device cpu, which can use disk"
            )
        canvas = _on_disk(canvas, family.state_bytes(size), evaluated, free)
    if block[0] != tile:
        log.info("made in %d block(s) of %d pixels (--tile)", canvas.blocks, canvas.block)
    return canvas


def _on_disk(canvas: TilingPlan, state: int, evaluated: int, free: int) -> TilingPlan:
    """With the state in files. Raises InputError where they have no room, or a block has none."""
    folder = tempfile.gettempdir()
    disk = shutil.disk_usage(folder).free
    if evaluated > USED * free or state > USED * disk:
        height, width = canvas.size
        raise InputError(
            f"--size {width}x{height}: needs {state / GIB:.1f} GiB for the picture and "
            f"{evaluated / GIB:.1f} GiB for blocks of {canvas.block}; {free / GIB:.1f} GiB of "
            f"memory and {disk / GIB:.1f} GiB of disk in {folder} are free; choose a smaller "
            "--size or --tile, or set TMPDIR to a folder with more room"
        )
    log.info("memory does not hold it: %.1f GiB are laid in files in %s", state / GIB, folder)
    return replace(canvas, room=files_in(folder))


def files_in(folder: str) -> Allocator:
    """Tensors in files of `folder`, mapped into memory, without a name: gone when they are."""

    def mapped(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        handle, path = tempfile.mkstemp(dir=folder, prefix="gcn-")
        try:
            os.posix_fallocate(handle, 0, prod(shape) * dtype.itemsize)
            whole = torch.from_file(path, shared=True, size=prod(shape), dtype=dtype)
        finally:
            os.close(handle)
            os.unlink(path)
        return whole.view(tuple(shape))

    return mapped


GUIDE_CONTRAST = 0.6  # most deviation of a guide, in that of the data: beyond, highlights break
BLEND_BORDER = 6.0  # pixels over which one model gives way to another

Place = Callable[[Tensor], Tensor]
"""From a picture (..., H, W) to a canvas on which it lies at the upper left."""


@dataclass(frozen=True)
class Steering:
    """guide: a picture, followed by `strength` 0..1. other: a model where `mask` is white."""

    guide: LinkedImages | None = None
    strength: float = 0.5
    other: Checkpoint | None = None
    mask: ImageLike | None = None

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
        request: SampleOptions,
        canvas: TilingPlan,
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

    def _guide(self, loaded: Checkpoint, picture: tuple[int, int], place: Place) -> ImageGuide:
        """The guide about its own mean, with no more contrast than a texture's parts have.

        Both are those of the `picture` (H, W) alone, whatever lies beyond it.
        """
        assert self.guide is not None
        device = loaded.family.net.weights[0].device
        shapes = loaded.pixels.to_model(to_pixels(self.guide, loaded.maps, picture))[None]
        centered = shapes - shapes.mean(dim=(2, 3), keepdim=True)
        calm = centered / (centered.std() / GUIDE_CONTRAST).clamp_min(1)
        return ImageGuide(place(calm).to(device), self.strength)

    def _blend(
        self,
        loaded: Checkpoint,
        request: SampleOptions,
        canvas: TilingPlan,
        picture: tuple[int, int],
        place: Place,
        dtype: torch.dtype,
    ) -> ModelBlend:
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
        return ModelBlend(
            self.other.family.denoiser(request, canvas, dtype),
            _share(self.mask, picture, place).to(device),
            factor,
            ((means[0] - means[1]) / other.scale[0]).to(device),
        )


def _share(mask: ImageLike, picture: tuple[int, int], place: Place) -> Tensor:
    """How much the second model counts on the canvas, (H, W) in 0..1, soft at the border.

    `picture` (H, W) is the part of the canvas that the mask is for.
    """
    white = place(open_image(mask).resized(picture).to_bands("L") / 255)
    return large_shapes(white[None], BLEND_BORDER)[0, 0].clamp(0, 1)


def placing(loaded: Checkpoint, request: SampleOptions, canvas: tuple[int, int]) -> Place:
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


OnEvaluation = Callable[[int, int], None]
"""Called with how many evaluations are done and how many there will be, of all pictures and, of one
that is made in blocks, of all blocks."""


def samples(
    loaded: Checkpoint,
    request: SampleOptions,
    numbers: Sequence[int],
    dtype: torch.dtype,
    *,
    start: LinkedImages | None = None,
    control: Steering | None = None,
    tile: Tile = "auto",
    on_step: OnEvaluation | None = None,
    on_state: Callable[[Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """The pictures of these numbers, (C, H, W) in 0..255, each as soon as it is made.

    Picture k is the same whatever others are made and whatever `tile` is. On a GPU all chains of
    pictures without blocks run together, fewer where memory does not allow it. `start` is the
    picture that a request starts from, `control` what it is steered with. Raises InputError,
    before the first picture, for what the model cannot do; DivergedError where a chain left the
    finite numbers.
    """
    family, device = loaded.family, loaded.family.net.weights[0].device
    opened = None if start is None else [open_image(one) for one in several(start)]
    asked = _size(loaded, request, opened)
    whole = _whole_periods(loaded, request, asked)
    size = family.canvas(replace(request, size=whole), loaded.image_size)
    copies = 5 * (control is not None and control.steers) + (request.start != "noise")
    beside = copies * 4 * loaded.config.bands * size[0] * size[1]
    canvas = tiling_plan(family, request, size, dtype, tile, beside=beside)
    starts = _starts(loaded, request, numbers, opened, whole, size)
    count = len(numbers)
    batch = count if device.type != "cpu" and canvas.block is None else 1
    bent = None if control is None else control.bending(loaded, request, canvas, whole, dtype)
    pattern = loaded.pattern if bent is None and request.start == "noise" else None
    work, done = family.steps(request) * canvas.blocks, 0
    while done < count:
        places = range(done, min(done + batch, count))
        ticks = itertools.count(1)

        def note(places: range = places, ticks: Iterator[int] = ticks) -> None:
            if on_step is not None:
                on_step(places.start * work + next(ticks) * len(places), count * work)

        def evaluated(_: int, x: Tensor, note: Callable[[], None] = note) -> None:
            if canvas.block is None:
                note()
            if on_state is not None:
                on_state(x)

        here = None if starts is None else starts[places.start : places.stop]
        own = [numbers[place] for place in places]
        laid = replace(canvas, on_block=note)
        if pattern is not None and pattern_fits(pattern, size):
            # Nothing else bends these chains.
            bent = PatternProjection(pattern, size, _moves(request, own).to(device)).holding
        try:
            made = family.sample(request, own, here, laid, dtype, evaluated, bent=bent)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            log.info("out of memory on %s: going on with %d pictures at a time", device, batch)
            continue
        for one in made_pixels(loaded, made)[:, :, : whole[0], : whole[1]]:
            yield one if whole == asked else finish_maps(resampled_torus(one, asked), loaded.maps)
        done = places.stop


def _moves(request: SampleOptions, numbers: Sequence[int]) -> Tensor:
    """By which share of its cell the pattern is moved, image by image, (N, 2)."""
    drawn = [torch.rand(2, generator=named_generator(request.seed, "pattern", k)) for k in numbers]
    return torch.stack(drawn)


def made_pixels(loaded: Checkpoint, made: Tensor) -> Tensor:
    """Samples (N, C, H, W) of a model as pixels in 0..255, on the processor, in their place.

    Raises DivergedError where a chain left the finite numbers.
    """
    made = made.cpu().float()
    for one in made:
        for rows in row_chunks(one.shape[1], one.shape[2]):
            part = one[:, rows]
            if not bool(torch.isfinite(part).all()):
                raise DivergedError(
                    "a chain left the finite numbers; lower --step-size, or retrain"
                )
            part.copy_(finish_maps(loaded.pixels.to_pixels(part), loaded.maps))
    return made


def _size(
    loaded: Checkpoint, request: SampleOptions, opened: list[Image] | None
) -> tuple[int, int]:
    """(H, W) asked for: of a picture to start from its own, where the model takes any."""
    if request.size is not None:
        return request.size
    stored = loaded.learner_state.get("chains.images")
    if request.start == "chains" and stored is not None:
        return stored.shape[-2], stored.shape[-1]  # a crop's, where it learned from crops
    if opened is None or loaded.config.size or loaded.config.head:
        return loaded.image_size
    height, width = to_pixels(opened, loaded.maps, None, loaded.config.shrink).shape[1:]
    return height, width


def _whole_periods(
    loaded: Checkpoint, request: SampleOptions, asked: tuple[int, int]
) -> tuple[int, int]:
    """(H, W) that a regular pattern closes on without a bend, to be stretched to what is asked for.

    Of a picture to start from it is the picture that says where the pattern lies.
    """
    if request.start != "noise" or loaded.periods == (None, None):
        return asked
    closed = loaded.family.closed(request)
    held = loaded.pattern is not None and pattern_fits(loaded.pattern, asked)
    found, bent = list(asked), []
    for axis, (side, repeats, seam) in enumerate(zip(asked, loaded.periods, closed, strict=True)):
        if not seam or repeats is None:
            continue
        near_enough, whole = fitting_side(side, repeats)
        found[axis] = side if held else near_enough
        if not whole:
            near = [round(count * repeats) for count in (side // repeats, side // repeats + 1)]
            sides = " or ".join(str(one) for one in near if one)
            bent.append(f"{('down', 'across')[axis]} (every {repeats:g} pixels; {sides} fits)")
    if bent:
        log.info("the pattern has to bend so that it closes %s", " and ".join(bent))
    if found != list(asked):
        log.info("made at %dx%d, whole periods of the pattern, and stretched", found[1], found[0])
    return found[0], found[1]


def _starts(
    loaded: Checkpoint,
    request: SampleOptions,
    numbers: Sequence[int],
    opened: list[Image] | None,
    picture: tuple[int, int],
    size: tuple[int, int],
) -> Tensor | None:
    """What chains start from in model units, one each of `numbers`, (N, C, H, W); None: noise.

    `size` (H, W) is the canvas, `picture` (H, W) the part at its upper left that is kept.
    """
    if request.start == "chains":
        stored = loaded.learner_state.get("chains.images")
        if stored is None:
            raise InputError("--start chains: this run keeps none; use noise or a picture")
        if max(numbers) >= len(stored):
            raise InputError(f"--count {max(numbers) + 1}: the run keeps {len(stored)} chains")
        if size != tuple(stored.shape[-2:]):
            raise InputError("--size: stored chains have a size of their own; leave it out")
        return stored[list(numbers)].float()
    if opened is None:
        return None
    values = loaded.pixels.to_model(to_pixels(opened, loaded.maps, picture))
    values = placing(loaded, request, size)(values)
    return values.expand(len(numbers), *values.shape)
