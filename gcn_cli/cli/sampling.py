"""What `gcn synthesize` does once its options are read."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.cli.console import Progress, say
from gcn_cli.cli.runs import next_free, refuse_existing
from gcn_cli.config import LadderConfig, PaperConfig
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.model.capture import Captured
from gcn_cli.model.energy import energy_gradient
from gcn_cli.model.fast import fast_basis, fast_denoiser
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.level import LadderLevel
from gcn_cli.model.network import GenerativeConvNet
from gcn_cli.model.spec import Lattice
from gcn_cli.sampling.annealed import anneal, noise_levels
from gcn_cli.sampling.langevin import run_chain
from gcn_cli.sampling.noise import ImageNoise

PUBLISHED_STEPS = 100
LADDER_STEPS = 25  # where quality hardly rises with evaluations any more
DEFAULT_LEVEL = 1.0  # of noise on a picture to start from, in deviations of the data


class Targets:
    """Where pictures go; refused before any work where they would replace a file."""

    def __init__(self, output: str | None, default: Path, count: int, overwrite: bool) -> None:
        if output == "-" or (output is not None and images.names_file(output)):
            if count > 1:
                raise InputError(f"--output {output}: one file for {count} pictures; name a folder")
            self.paths = [output]
        else:
            folder = default if output is None else Path(output)
            first = next_free(folder, "sample") if output is None else 1
            numbers = range(first, first + count)
            self.paths = [str(folder / f"sample-{number:04d}.png") for number in numbers]
        for path in self.paths:
            if path != "-":
                refuse_existing(Path(path), overwrite)


@dataclass(frozen=True)
class Wish:
    """What `gcn synthesize` was asked for; None is what was left open."""

    count: int
    size: tuple[int, int] | None
    start: str
    steps: int | None
    step_size: float | None
    noise: bool
    seed: int
    lattice: Lattice | None
    level: float | None


def make_samples(loaded: Checkpoint, wish: Wish, dtype: torch.dtype) -> list[Tensor]:
    """The pictures of a wish, (C, H, W) in 0..255.

    On a GPU all chains run together, in smaller batches where memory does not allow it.
    """
    device = next(loaded.model.parameters()).device
    batch = wish.count if device.type != "cpu" else 1
    make = _ladder_batch if isinstance(loaded.config, LadderConfig) else _published_batch
    pictures: list[Tensor] = []
    while len(pictures) < wish.count:
        numbers = range(len(pictures), min(len(pictures) + batch, wish.count))
        try:
            made = make(loaded, wish, numbers, device, dtype)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            say(f"out of memory on {device}: going on with {batch} pictures at a time")
            continue
        if not bool(torch.isfinite(made).all()):
            raise DivergedError("a chain left the finite numbers; lower --step-size, or retrain")
        pictures += list(loaded.pixels.to_pixels(made.cpu().float()))
    return pictures


def _published_batch(
    loaded: Checkpoint, wish: Wish, numbers: range, device: torch.device, dtype: torch.dtype
) -> Tensor:
    model, config = loaded.model, loaded.config
    assert isinstance(model, GenerativeConvNet)
    assert isinstance(config, PaperConfig)
    if wish.level is not None:
        raise InputError("--level: this model has one level of noise; leave it out")
    model.lattice = wish.lattice or config.lattice
    x = _starts(loaded, wish, numbers).to(device)
    _check_size(loaded, (x.shape[-2], x.shape[-1]))
    steps = PUBLISHED_STEPS if wish.steps is None else wish.steps
    with Progress("synthesize", steps) as progress:
        return run_chain(
            x,
            energy_gradient(model.sigma, Captured(fast_basis(model, dtype))),
            steps=steps,
            step_size=wish.step_size or config.step_size,
            noise=ImageNoise(wish.seed, "chain", numbers, device) if wish.noise else None,
            callback=lambda number, _: progress.update(number, ""),
        )


def _ladder_batch(
    loaded: Checkpoint, wish: Wish, numbers: range, device: torch.device, dtype: torch.dtype
) -> Tensor:
    net, config = loaded.model, loaded.config
    assert isinstance(net, LadderNet)
    assert isinstance(config, LadderConfig)
    _refuse_published_options(wish)
    steps = LADDER_STEPS if wish.steps is None else wish.steps
    if steps < 1:
        raise InputError("--steps 0: a ladder needs one evaluation at least")
    net.lattice = wish.lattice or (config.lattice if config.head else Lattice.CIRCULAR)
    height, width = wish.size or loaded.image_size
    if config.head and (height, width) != loaded.image_size:
        _refuse_head_size(loaded)
    # Sides that do not divide are made a little larger and cut: whole, but not seamless.
    rounded = [-(-side // net.total_stride) * net.total_stride for side in (height, width)]
    if numbers.start == 0 and rounded != [height, width]:
        say(f"seamless only for sides that are multiples of {net.total_stride}")
    shape = (len(numbers), config.channels, *rounded)
    noise = ImageNoise(wish.seed, "chain", numbers, device)
    drawn = ImageNoise(wish.seed, "start", numbers, device)(shape)
    if wish.start == "noise":
        levels = noise_levels(steps, config.noise_max, config.noise_min)
        start = LadderLevel(net, levels[0]).sigma * drawn
    else:
        picture = _start_picture(wish.start, config.channels, (rounded[0], rounded[1]))
        level = DEFAULT_LEVEL if wish.level is None else wish.level
        levels = noise_levels(steps, max(level, config.noise_min), config.noise_min)
        start = loaded.pixels.to_model(picture).to(device) + levels[0] * drawn
    with Progress("synthesize", steps) as progress:
        x = anneal(
            start,
            fast_denoiser(net, dtype),
            levels,
            noise,
            lambda number, _: progress.update(number, ""),
        )
    return x[:, :, :height, :width]


def _refuse_published_options(wish: Wish) -> None:
    """Options that only mean something to chains of the published models."""
    for given, option in (
        (wish.start == "chains", "--start chains"),
        (wish.step_size is not None, "--step-size"),
        (not wish.noise, "--no-noise"),
        (wish.level is not None and wish.start == "noise", "--level without --start PICTURE"),
    ):
        if given:
            raise InputError(f"{option}: means nothing to a ladder model; leave it out")


def _starts(loaded: Checkpoint, wish: Wish, numbers: range) -> Tensor:
    channels, size = loaded.config.channels, wish.size
    assert isinstance(loaded.model, GenerativeConvNet)
    if wish.start == "noise":
        shape = (len(numbers), channels, *(size or loaded.image_size))
        return loaded.model.sigma * ImageNoise(wish.seed, "start", numbers)(shape)
    if wish.start == "chains":
        stored = loaded.learner_state.get("chains.images")
        if stored is None:
            raise InputError("--start chains: this run keeps none; use noise or a picture")
        if wish.count > len(stored):
            raise InputError(f"--count {wish.count}: the run keeps {len(stored)} chains")
        if size is not None and size != tuple(stored.shape[-2:]):
            raise InputError("--size: stored chains have a size of their own; leave it out")
        return stored[numbers.start : numbers.stop].float()
    trained = loaded.image_size if loaded.config.size or loaded.config.head else None
    picture = _start_picture(wish.start, channels, size or trained)
    values = loaded.pixels.to_model(picture)
    return values.expand(len(numbers), *values.shape).clone()


@lru_cache(maxsize=1)
def _start_picture(source: str, channels: int, size: tuple[int, int] | None) -> Tensor:
    """Read once for all batches: stdin cannot be read twice."""
    return images.read(source, channels, size)


def _check_size(loaded: Checkpoint, size: tuple[int, int]) -> None:
    if loaded.config.head and size != loaded.image_size:
        _refuse_head_size(loaded)
    try:
        loaded.model.map_sizes(*size)
    except ValueError as error:
        raise InputError(f"--size {size[1]}x{size[0]}: {error}") from error


def _refuse_head_size(loaded: Checkpoint) -> None:
    height, width = loaded.image_size
    raise InputError(f"--size: this model has a head for {width}x{height} and no other size")
