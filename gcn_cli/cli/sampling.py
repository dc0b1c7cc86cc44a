"""What `gcn synthesize` does once its options are read."""

from pathlib import Path

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.cli.console import Progress
from gcn_cli.cli.runs import next_free, refuse_existing
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.model.energy import energy_gradient
from gcn_cli.model.fast import fast_basis
from gcn_cli.sampling.langevin import run_chain
from gcn_cli.sampling.noise import ImageNoise


class Targets:
    """Where pictures go; refused before any work where they would replace a file."""

    def __init__(self, output: str | None, default: Path, count: int, overwrite: bool) -> None:
        if output == "-" or (output is not None and Path(output).suffix):
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


def make_samples(
    loaded: Checkpoint,
    *,
    count: int,
    size: tuple[int, int] | None,
    start: str,
    steps: int,
    step_size: float,
    noise: bool,
    seed: int,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Run `count` chains; pictures (C, H, W) in 0..255."""
    model = loaded.model
    device = model.weights[0].device
    x = _starts(loaded, count, size, start, seed).to(device)
    _check_size(loaded, (x.shape[-2], x.shape[-1]))
    source = ImageNoise(seed, "chain", range(count), device) if noise else None
    with Progress("synthesize", steps) as progress:
        x = run_chain(
            x,
            energy_gradient(model.sigma, fast_basis(model, dtype)),
            steps=steps,
            step_size=step_size,
            noise=source,
            callback=lambda number, _: progress.update(number, ""),
        )
    if not bool(torch.isfinite(x).all()):
        raise DivergedError(f"the chains left the finite numbers; lower --step-size {step_size}")
    return list(loaded.pixels.to_pixels(x.cpu()))


def _starts(
    loaded: Checkpoint, count: int, size: tuple[int, int] | None, start: str, seed: int
) -> Tensor:
    channels = loaded.config.channels
    if start == "noise":
        shape = (count, channels, *(size or loaded.image_size))
        return loaded.model.sigma * ImageNoise(seed, "start", range(count))(shape)
    if start == "chains":
        stored = loaded.learner_state.get("chains.images")
        if stored is None:
            raise InputError("--start chains: this run keeps none; use noise or a picture")
        if count > len(stored):
            raise InputError(f"--count {count}: the run keeps {len(stored)} chains")
        if size is not None and size != tuple(stored.shape[-2:]):
            raise InputError("--size: stored chains have a size of their own; leave it out")
        return stored[:count].float()
    trained = loaded.image_size if _resized(loaded) else None
    picture = images.read(start, channels, size or trained)
    return loaded.pixels.to_model(picture).expand(count, *picture.shape).clone()


def _resized(loaded: Checkpoint) -> bool:
    return loaded.config.size is not None or loaded.model.head is not None


def _check_size(loaded: Checkpoint, size: tuple[int, int]) -> None:
    if loaded.model.head is not None and size != loaded.image_size:
        height, width = loaded.image_size
        raise InputError(f"--size: this model has a head for {width}x{height} and no other size")
    try:
        loaded.model.map_sizes(*size)
    except ValueError as error:
        raise InputError(f"--size {size[1]}x{size[0]}: {error}") from error
