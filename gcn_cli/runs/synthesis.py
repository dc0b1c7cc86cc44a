"""Pictures from a model, one after the other, or as many together as a GPU holds."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gcn_cli.errors import DivergedError, InputError
from gcn_cli.images import Raster
from gcn_cli.images.bands import finished
from gcn_cli.model.period import fitting_side, stretched
from gcn_cli.model.rooms import strips
from gcn_cli.runs.canvas import Tile, planned
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.control import Control, placing
from gcn_cli.runs.pictures import Linked, open_once, several, to_pixels
from gcn_cli.sampling.noise import named_generator
from gcn_cli.sampling.pattern import Held, fits
from gcn_cli.sampling.request import Request

log = logging.getLogger(__name__)

OnEvaluation = Callable[[int, int], None]
"""Called with how many evaluations are done and how many there will be, of all pictures and, of one
that is made in blocks, of all blocks."""


def samples(
    loaded: Checkpoint,
    request: Request,
    numbers: Sequence[int],
    dtype: torch.dtype,
    *,
    start: Linked | None = None,
    control: Control | None = None,
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
    opened = None if start is None else [open_once(one) for one in several(start)]
    asked = _size(loaded, request, opened)
    whole = _whole_periods(loaded, request, asked)
    size = family.canvas(replace(request, size=whole), loaded.image_size)
    copies = 5 * (control is not None and control.steers) + (request.start != "noise")
    beside = copies * 4 * loaded.config.bands * size[0] * size[1]
    canvas = planned(family, request, size, dtype, tile, beside=beside)
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
        if pattern is not None and fits(pattern, size):
            # Nothing else bends these chains.
            bent = Held(pattern, size, _moves(request, own).to(device)).holding
        try:
            made = family.sample(request, own, here, laid, dtype, evaluated, bent=bent)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            log.info("out of memory on %s: going on with %d pictures at a time", device, batch)
            continue
        for one in made_pixels(loaded, made)[:, :, : whole[0], : whole[1]]:
            yield one if whole == asked else finished(stretched(one, asked), loaded.maps)
        done = places.stop


def _moves(request: Request, numbers: Sequence[int]) -> Tensor:
    """By which share of its cell the pattern is moved, image by image, (N, 2)."""
    drawn = [torch.rand(2, generator=named_generator(request.seed, "pattern", k)) for k in numbers]
    return torch.stack(drawn)


def made_pixels(loaded: Checkpoint, made: Tensor) -> Tensor:
    """Samples (N, C, H, W) of a model as pixels in 0..255, on the processor, in their place.

    Raises DivergedError where a chain left the finite numbers.
    """
    made = made.cpu().float()
    for one in made:
        for rows in strips(one.shape[1], one.shape[2]):
            part = one[:, rows]
            if not bool(torch.isfinite(part).all()):
                raise DivergedError(
                    "a chain left the finite numbers; lower --step-size, or retrain"
                )
            part.copy_(finished(loaded.pixels.to_pixels(part), loaded.maps))
    return made


def _size(loaded: Checkpoint, request: Request, opened: list[Raster] | None) -> tuple[int, int]:
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


def _whole_periods(loaded: Checkpoint, request: Request, asked: tuple[int, int]) -> tuple[int, int]:
    """(H, W) that a regular pattern closes on without a bend, to be stretched to what is asked for.

    Of a picture to start from it is the picture that says where the pattern lies.
    """
    if request.start != "noise" or loaded.periods == (None, None):
        return asked
    closed = loaded.family.closed(request)
    held = loaded.pattern is not None and fits(loaded.pattern, asked)
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
    request: Request,
    numbers: Sequence[int],
    opened: list[Raster] | None,
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
