"""Samples of a model as pixels, and how large ones fit into memory.

Chains may run at a larger size than the images: along axes that do not tile a border is cut off
afterwards. Images that steer the chains (start, guide, mask) have the size of the samples and are
placed at the upper left of the sampling size, mirrored beyond.
"""

import itertools
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.images.image import Image, finish_maps
from gcn_cli.inputs import ImageLike, LinkedImages, linked_list, open_image, open_mask, to_pixels
from gcn_cli.kinds import DenoiserWrapper, ModelKind, TilingPlan
from gcn_cli.models.chunks import Allocator, row_chunks
from gcn_cli.models.energy import Denoiser
from gcn_cli.models.gaussian import low_pass
from gcn_cli.options import SampleOptions, Tile
from gcn_cli.pattern import LARGEST_STRAIN, PhaseField, fitting_sides, fitting_size, strain_on_torus
from gcn_cli.runtime import free_memory
from gcn_cli.samplers.guidance import ImageGuide, ModelBlend
from gcn_cli.samplers.rng import named_generator

log = logging.getLogger(__name__)

OnEvaluation = Callable[[int, int], None]
"""Called with the number of evaluations done, and the number in all, over all images and blocks."""


def evaluation_counter(on_step: OnEvaluation | None, total: int) -> Callable[..., None]:
    """A function to call after every evaluation, with any arguments: it calls on_step."""
    done = itertools.count(1)

    def count(*_: object) -> None:
        if on_step is not None:
            on_step(next(done), total)

    return count


BLOCK_SIDES = (1024, 512, 256)  # pixels; larger blocks are no faster, they outgrow the caches
MEMORY_SHARE = 0.8  # of the free memory that is planned for
GIB = 2**30
GUIDE_STRENGTH = 0.5
GUIDE_DEVIATION = 0.6  # largest deviation of a guide, in that of the data; more burns highlights
BLEND_BORDER = 6.0  # pixels over which one model fades into another
CHAIN_KEY = "chains"  # persistent chains in the state of a published trainer


def samples(
    checkpoint: Checkpoint,
    options: SampleOptions,
    indices: Sequence[int],
    dtype: torch.dtype,
    *,
    on_step: OnEvaluation | None = None,
    on_state: Callable[[Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """The samples of these indices, (C, H, W) in 0..255, each as soon as it is complete.

    A sample depends on its index and the seed, not on the other indices nor on the tiling. On a
    GPU all images run as one batch, or as smaller ones if memory does not hold it. `on_state` gets
    the chains (N, C, H, W), in model units, after every evaluation. Raises InputError for options
    that the model does not support, DivergedError if a chain diverged.
    """
    plan = _plan(checkpoint, options, indices, dtype)
    kind, device, count = checkpoint.kind, checkpoint.kind.device, len(indices)
    evaluations = kind.evaluations(options) * plan.tiling.blocks

    def sample_batch(first: int, batch: Sequence[int]) -> Tensor:
        ticks = itertools.count(1)

        def count_evaluation() -> None:
            if on_step is not None:
                on_step(first * evaluations + next(ticks) * len(batch), count * evaluations)

        def callback(_: int, x: Tensor) -> None:
            if plan.tiling.block is None:
                count_evaluation()
            if on_state is not None:
                on_state(x)

        starts = None if plan.starts is None else plan.starts[first : first + len(batch)]
        tiling = replace(plan.tiling, on_block=count_evaluation)
        phases = _sample_phases(checkpoint, options, plan, batch[0])
        return kind.sample(
            options, batch, starts, tiling, dtype, callback, guidance=plan.guidance, phases=phases
        )

    # Each sample of a regular pattern has its own lattice.
    together = device.type != "cpu" and plan.tiling.block is None and checkpoint.pattern is None
    batch_size = count if together else 1
    done = 0
    while done < count:
        batch = list(indices[done : done + batch_size])
        try:
            x = sample_batch(done, batch)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            log.info("out of memory on %s: continuing with %d images at a time", device, batch_size)
            continue
        height, width = plan.size
        yield from to_finished_pixels(checkpoint, x)[:, :, :height, :width]
        done += len(batch)


@dataclass(frozen=True)
class _SamplingPlan:
    """How the images of a request are sampled. Sizes are (height, width)."""

    size: tuple[int, int]
    tiling: TilingPlan
    starts: Tensor | None  # one for each index, in model units; None starts from noise
    guidance: DenoiserWrapper | None
    phases: PhaseField | None  # of the lattice in the start image or the guide


def _plan(
    checkpoint: Checkpoint, options: SampleOptions, indices: Sequence[int], dtype: torch.dtype
) -> _SamplingPlan:
    if options.regularity and checkpoint.pattern is None:
        raise InputError("--regularity: this model has no regular pattern; leave it out")
    start = None
    if options.start_kind == "image":
        start = [open_image(image) for image in linked_list(options.start)]
    if options.guide is not None:  # opened once: standard input is read only once
        opened = options.guide
        if not isinstance(opened, Tensor):
            opened = [open_image(image) for image in linked_list(opened)]
        options = replace(options, guide=opened)
    size = requested_size(checkpoint, options, start)
    check_lattice(checkpoint, options, size)
    larger_size = sampling_size(checkpoint, options, size)
    steered = options.guide is not None or options.blend is not None
    copies = 5 * steered + (options.start_kind != "noise")
    extra_bytes = 4 * copies * checkpoint.config.channel_count * math.prod(larger_size)
    tiling = plan_tiling(
        checkpoint.kind, options, larger_size, dtype, options.tile, extra_bytes=extra_bytes
    )
    starts = _starts(checkpoint, options, indices, start, size, larger_size)
    wrapper = guidance(checkpoint, options, tiling, size, dtype) if steered else None
    # The lattice of a start image, or of a guide that shows the pattern, is kept.
    phases = None if starts is None else checkpoint.phases(starts[:1])
    if starts is None and options.guide is not None and checkpoint.pattern is not None:
        x, _ = _guide_image(checkpoint, options.guide, size)
        phases = checkpoint.phases(placement(checkpoint, options, larger_size)(x)[None])
    return _SamplingPlan(size, tiling, starts, wrapper, phases)


def to_finished_pixels(checkpoint: Checkpoint, x: Tensor) -> Tensor:
    """Samples (N, C, H, W) in model units as pixels in 0..255 on the CPU, in place if possible.

    Raises DivergedError if a value is not finite.
    """
    x = x.cpu().float()
    for image in x:
        for rows in row_chunks(image.shape[1], image.shape[2]):
            part = image[:, rows]
            if not bool(torch.isfinite(part).all()):
                raise DivergedError("a chain diverged; use a smaller step_size, or train again")
            part.copy_(finish_maps(checkpoint.normalization.to_pixels(part), checkpoint.maps))
    return x


# Sizes


def sampling_size(
    checkpoint: Checkpoint, options: SampleOptions, size: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) that chains run at for images of `size`. Raises InputError if none."""
    if checkpoint.config.head and size != checkpoint.image_size:
        height, width = checkpoint.image_size
        raise InputError(f"--size: this model has a head for {width}x{height} and no other size")
    return checkpoint.kind.sampling_size(options, size)


def requested_size(
    checkpoint: Checkpoint, options: SampleOptions, start: list[Image] | None = None
) -> tuple[int, int]:
    """(height, width) of the options, or else of the start, or else of training."""
    if options.fit and checkpoint.pattern is not None and start is None:
        width, height = options.size or checkpoint.image_size[::-1]
        return fitting_size(checkpoint.pattern, (height, width))
    if options.size is not None:
        width, height = options.size
        return height, width
    chains = checkpoint.trainer_state.get(CHAIN_KEY)
    if options.start_kind == "chains" and chains is not None:
        return chains.shape[-2], chains.shape[-1]  # of a crop, after training on crops
    if start is None or checkpoint.config.size or checkpoint.config.head:
        return checkpoint.image_size
    pixels = to_pixels(start, checkpoint.maps, None, checkpoint.config.shrink)
    return pixels.shape[1], pixels.shape[2]


def check_lattice(checkpoint: Checkpoint, options: SampleOptions, size: tuple[int, int]) -> None:
    """Say by how much a regular pattern is distorted to tile at a size, and which sizes fit."""
    pattern = checkpoint.pattern
    if pattern is None or options.start_kind != "noise":
        return
    periodic = checkpoint.kind.periodic_axes(options)
    distortion = strain_on_torus(pattern, size, periodic)
    if distortion <= LARGEST_STRAIN:
        return
    fitting = [
        f"a {side} of {' or '.join(map(str, sides))}"
        for side, axis in (("width", 1), ("height", 0))
        if (sides := [s for s in fitting_sides(pattern, size, axis) if s != size[axis]])
    ]
    remedy = f"{', '.join(fitting)} fit" if fitting else "--seamless off keeps its shape"
    amount = f"by {distortion:.0%}" if distortion < 1 else "out of shape"
    log.info(
        "--size %dx%d: the pattern is distorted %s to tile; %s", size[1], size[0], amount, remedy
    )


# Images that steer the chains


def _starts(
    checkpoint: Checkpoint,
    options: SampleOptions,
    indices: Sequence[int],
    start: list[Image] | None,
    size: tuple[int, int],
    larger_size: tuple[int, int],
) -> Tensor | None:
    """Start of the chain of every index, (N, C, *larger_size) in model units; None is noise."""
    if options.start_kind == "chains":
        chains = checkpoint.trainer_state.get(CHAIN_KEY)
        if chains is None:
            raise InputError("--start chains: this run keeps no chains; use noise or an image")
        if max(indices) >= len(chains):
            raise InputError(f"--count {max(indices) + 1}: the run keeps {len(chains)} chains")
        if larger_size != tuple(chains.shape[-2:]):
            raise InputError("--size: must be left out with --start chains")
        return chains[list(indices)].float()
    if start is None:
        return None
    x = checkpoint.normalization.to_model(to_pixels(start, checkpoint.maps, size))
    x = placement(checkpoint, options, larger_size)(x)
    return x.expand(len(indices), *x.shape)


def guidance(
    checkpoint: Checkpoint,
    options: SampleOptions,
    tiling: TilingPlan,
    size: tuple[int, int],
    dtype: torch.dtype,
) -> DenoiserWrapper:
    """Wraps the denoiser by --blend, then by --guide. `size` is that of the samples.

    Raises InputError if the models do not fit.
    """
    if checkpoint.config.head:
        raise InputError("--guide, --blend: not for models of aligned objects; use a texture's")
    place = placement(checkpoint, options, tiling.size)
    wrappers: list[ImageGuide | ModelBlend] = []
    if options.blend is not None:
        wrappers.append(_blend(checkpoint, options, tiling, size, place, dtype))
    if options.guide is not None:
        strength = GUIDE_STRENGTH if options.guide_strength is None else options.guide_strength
        shapes = _guide_shapes(checkpoint, options.guide, size)
        wrappers.append(ImageGuide(place(shapes).to(checkpoint.kind.device), strength))

    def wrap(denoise: Denoiser) -> Denoiser:
        for wrapper in wrappers:
            denoise = wrapper.wrap(denoise)
        return denoise

    return wrap


def _guide_image(
    checkpoint: Checkpoint, guide: LinkedImages, size: tuple[int, int]
) -> tuple[Tensor, int]:
    """The guide (C, *size) in model units, and how many of its channels it has.

    A single image for linked maps is one of the first map; the other maps have their means.
    """
    maps = checkpoint.maps
    count = sum(texture_map.channels for texture_map in maps)
    whole = isinstance(guide, Tensor) and len(guide) == count
    if not whole and len(linked_list(guide)) == 1:
        maps = maps[:1]
    pixels = to_pixels(guide, maps, size)
    means = pixels.new_tensor(checkpoint.normalization.mean[len(pixels) :])[:, None, None]
    others = means.expand(-1, *pixels.shape[1:])
    return checkpoint.normalization.to_model(torch.cat([pixels, others])), len(pixels)


def _guide_shapes(checkpoint: Checkpoint, guide: LinkedImages, size: tuple[int, int]) -> Tensor:
    """The channels (1, K, *size) of the guide in model units, mean 0, at most GUIDE_DEVIATION."""
    x, channels = _guide_image(checkpoint, guide, size)
    shapes = x[None, :channels]
    centered = shapes - shapes.mean(dim=(2, 3), keepdim=True)
    return centered / (centered.std() / GUIDE_DEVIATION).clamp_min(1)


def _blend(
    checkpoint: Checkpoint,
    options: SampleOptions,
    tiling: TilingPlan,
    size: tuple[int, int],
    place: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
) -> ModelBlend:
    other: Checkpoint = options.blend
    modes = [[part.mode for part in model.maps] for model in (checkpoint, other)]
    if modes[0] != modes[1]:
        raise InputError(f"--blend: models of {modes[0]} and {modes[1]}; they must be alike")
    if other.config.head:
        raise InputError("--blend: not for models of aligned objects; use a texture's")
    pixels, other_pixels = checkpoint.normalization, other.normalization
    if len({*pixels.scale}) > 1 or len({*other_pixels.scale}) > 1:
        raise InputError("--blend: not for linked maps or transparency, which differ in scale")
    means = [torch.tensor(part.mean)[:, None, None] for part in (pixels, other_pixels)]
    device = checkpoint.kind.device
    return ModelBlend(
        other.kind.denoiser(options, tiling, dtype, lattice(other, options, tiling.size, 0)),
        _blend_weights(options.mask, size, place).to(device),
        pixels.scale[0] / other_pixels.scale[0],
        ((means[0] - means[1]) / other_pixels.scale[0]).to(device),
    )


def _blend_weights(
    mask: ImageLike, size: tuple[int, int], place: Callable[[Tensor], Tensor]
) -> Tensor:
    """Weight of the second model at every pixel of the sampling size, in 0..1, with soft edges."""
    white = place(open_mask(mask, soft=True).resized(size).to_mode("L") / 255)
    return low_pass(white[None], BLEND_BORDER)[0, 0].clamp(0, 1)


def _sample_phases(
    checkpoint: Checkpoint, options: SampleOptions, plan: _SamplingPlan, index: int
) -> PhaseField | None:
    """Phases of the lattice in a sample: those of its start or guide, or a lattice of its own."""
    if plan.phases is not None:
        return plan.phases
    return lattice(checkpoint, options, plan.tiling.size, index)


def lattice(
    checkpoint: Checkpoint, options: SampleOptions, size: tuple[int, int], index: int
) -> PhaseField | None:
    """Phases of a new lattice at random, for the sample of an index; None without a pattern."""
    if checkpoint.pattern is None:
        return None
    periodic = checkpoint.kind.periodic_axes(options)
    generator = named_generator(options.seed, "pattern", index)
    field = checkpoint.pattern.on_torus(size, periodic, generator, options.regularity)
    return field.to(checkpoint.kind.device)


def placement(
    checkpoint: Checkpoint, options: SampleOptions, larger_size: tuple[int, int]
) -> Callable[[Tensor], Tensor]:
    """`place_image` at a sampling size, periodic if chains with these options are."""
    periodic = all(checkpoint.kind.periodic_axes(replace(options, seamless="both")))
    return lambda image: place_image(image, larger_size, periodic=periodic)


def place_image(image: Tensor, larger_size: tuple[int, int], *, periodic: bool) -> Tensor:
    """An image (..., H, W) at the upper left of a larger size (height, width), mirrored beyond.

    Mirrored again and again if necessary. If the larger image is periodic, the border is split:
    one half mirrors the right or lower side, the other half the left or upper side.
    """
    for axis, length in zip((-2, -1), larger_size, strict=True):
        side = image.shape[axis]
        if side == length:
            continue
        places = torch.arange(length)
        if periodic:
            # The end is next to the first pixel: the jump is halfway, where it is cut off.
            middle = side + (length - side + 1) // 2
            places = torch.where(places < middle, places, places - length)
        image = image.index_select(axis, mirror_positions(places, side))
    return image


def mirror_positions(positions: Tensor, side: int) -> Tensor:
    """Positions beyond the ends of an axis of `side` pixels, mirrored at the ends, (n,)."""
    period = max(1, 2 * (side - 1))
    positions = positions % period
    return torch.minimum(positions, period - positions)


# Memory


def plan_tiling(
    kind: ModelKind,
    options: SampleOptions,
    size: tuple[int, int],
    dtype: torch.dtype,
    tile: Tile,
    *,
    extra_bytes: int = 0,
) -> TilingPlan:
    """Blocks and storage for chains of `size` (height, width); logged unless the image is whole.

    `extra_bytes`: needed in addition to the chain and its evaluation. Raises InputError if neither
    memory nor disk holds the image, or if the model cannot be evaluated in blocks.
    """
    known_free = free_memory(kind.device)
    free = math.inf if known_free is None else known_free
    state = kind.state_bytes(size)
    whole = state + kind.evaluation_bytes(size, dtype) + extra_bytes
    if tile == "auto":
        indivisible = kind.block(options, BLOCK_SIDES[-1]) is None
        tile = "off" if whole <= MEMORY_SHARE * free or indivisible else "auto"
    if tile == "off":
        if whole > free:
            raise InputError(
                f"--size {size[1]}x{size[0]}: needs about {whole / GIB:.1f} GiB of memory, "
                f"{free / GIB:.1f} GiB are free on {kind.device}; choose a smaller size"
            )
        return TilingPlan(size)
    sides = [side for side in BLOCK_SIDES if side < max(size)] if tile == "auto" else [tile]
    for side in sides or BLOCK_SIDES[-1:]:
        block = kind.block(options, side)
        if block is None:
            raise InputError(f"--tile {tile}: this model or padding mode takes whole images only")
        evaluation = kind.evaluation_bytes((block[1], block[1]), dtype) + extra_bytes
        fits = state + evaluation <= MEMORY_SHARE * free
        if fits:
            break
    assert block is not None
    plan = TilingPlan(size, block[0])
    if not fits:
        plan = _on_disk(plan, kind.device, state, evaluation, free)
    if block[0] != tile:
        log.info("computed in %d block(s) of %d pixels (--tile)", plan.blocks, plan.block)
    return plan


def _on_disk(
    plan: TilingPlan, device: torch.device, state: int, evaluation: int, free: float
) -> TilingPlan:
    """The plan with its chains in files. Raises InputError if disk or memory is too small."""
    height, width = plan.size
    if device.type != "cpu":
        raise InputError(
            f"--size {width}x{height}: {device} has {free / GIB:.1f} GiB free, too little for the "
            "image; choose a smaller size, or --device cpu, which can use the disk"
        )
    folder = tempfile.gettempdir()
    disk = shutil.disk_usage(folder).free
    if evaluation > MEMORY_SHARE * free or state > MEMORY_SHARE * disk:
        raise InputError(
            f"--size {width}x{height}: needs {state / GIB:.1f} GiB for the image and "
            f"{evaluation / GIB:.1f} GiB for blocks of {plan.block}; {free / GIB:.1f} GiB of "
            f"memory and {disk / GIB:.1f} GiB of disk in {folder} are free; choose a smaller "
            "--size or --tile, or set TMPDIR to a folder with more space"
        )
    log.info("memory is short: %.1f GiB are kept in files in %s", state / GIB, folder)
    return replace(plan, allocator=file_allocator(folder))


def file_allocator(folder: str) -> Allocator:
    """Allocates tensors in unnamed files of `folder`, mapped into memory; freed with the tensor."""

    def allocate(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        handle, path = tempfile.mkstemp(dir=folder, prefix="gcn-")
        try:
            os.posix_fallocate(handle, 0, math.prod(shape) * dtype.itemsize)
            flat = torch.from_file(path, shared=True, size=math.prod(shape), dtype=dtype)
        finally:
            os.close(handle)
            os.unlink(path)
        return flat.view(tuple(shape))

    return allocate
