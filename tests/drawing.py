"""Drawn regular patterns and irregular noise, (C, H, W) of variance 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gcn_cli.pattern import PhaseField


def coordinates(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of all pixels, (H, W) each."""
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    return rows, columns


def standardized(image: Tensor) -> Tensor:
    return (image - image.mean()) / image.std()


def colored_noise(seed: int, height: int, width: int, power: float, channels: int = 1) -> Tensor:
    """Gaussian noise whose amplitude is the frequency to minus a power: an irregular texture."""
    size = (2 * height, 2 * width)  # of which a part does not tile
    white = torch.randn(channels, *size, generator=torch.Generator().manual_seed(seed))
    frequencies = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1]))
    frequencies[0, 0] = 1 / max(size)
    spectrum = torch.fft.rfft2(white) * frequencies**-power
    return standardized(torch.fft.irfft2(spectrum, s=size)[:, :height, :width])


def textured(image: Tensor, seed: int = 0, amount: float = 0.3) -> Tensor:
    """An image with noise on it."""
    height, width = image.shape[1:]
    return standardized(standardized(image) + amount * colored_noise(seed, height, width, 0.7))


def grid(height: int, width: int, down: float, across: float) -> Tensor:
    """Dark joints, a fifth of every period wide."""
    rows, columns = coordinates(height, width)
    return -(((rows / down) % 1 < 0.2) | ((columns / across) % 1 < 0.2)).float()[None]


def running_bond(height: int, width: int, course: float, brick: float) -> Tensor:
    """Bricks with joints; every other course is moved by half a brick."""
    rows, columns = coordinates(height, width)
    moved = columns / brick + 0.5 * ((rows / course).floor() % 2)
    return -(((rows / course) % 1 < 0.2) | (moved % 1 < 0.15)).float()[None]


def hexagons(height: int, width: int, spacing: float) -> Tensor:
    """Spots at equal distances from six neighbors, of which two are above and below."""
    rows, columns = coordinates(height, width)
    waves = [(0.0, 1.0), (math.sqrt(3) / 2, 0.5), (math.sqrt(3) / 2, -0.5)]
    period = spacing * math.sqrt(3) / 2
    return sum(
        (torch.cos(2 * math.pi * (a * rows + b * columns) / period) for a, b in waves),
        torch.zeros(height, width),
    )[None]


def weave(height: int, width: int, strand: float) -> Tensor:
    """Plain weave: strands go over and under each other in turn."""
    rows, columns = coordinates(height, width)
    over = ((rows / strand).floor() + (columns / strand).floor()) % 2 == 0
    down, across = (rows / strand) % 1 - 0.5, (columns / strand) % 1 - 0.5
    return torch.where(over, 1 - 4 * down**2, 0.3 - 4 * across**2)[None]


def stripes(height: int, width: int, period: float, degrees: float) -> Tensor:
    """Waves along one axis, which points down by an angle from the right."""
    rows, columns = coordinates(height, width)
    angle = math.radians(degrees)
    along = rows * math.sin(angle) + columns * math.cos(angle)
    return torch.cos(2 * math.pi * along / period)[None]


def tiles(phases: Tensor, channels: int = 3) -> Tensor:
    """A smooth tile without any symmetry at phases (A, H, W): (C, H, W)."""
    first, second = phases[0], phases[-1]
    values = [
        torch.cos(2 * math.pi * first) + 0.7 * torch.sin(2 * math.pi * (second + 0.1)),
        torch.cos(2 * math.pi * (2 * first + 0.2)) + torch.cos(2 * math.pi * second),
        torch.sin(2 * math.pi * (first + second)) + 0.5 * torch.cos(4 * math.pi * second),
    ]
    return torch.stack(values[:channels])


def draw_tiles(
    phases: Callable[[Tensor, Tensor], Tensor] | PhaseField,
    height: int,
    width: int,
    channels: int = 3,
    noise: float = 0.2,
    seed: int = 0,
) -> Tensor:
    """The tile at the phases of an image, with noise."""
    image = tiles(phases(torch.arange(height), torch.arange(width))[0], channels)
    return image + noise * colored_noise(seed, height, width, 0.0, channels)
