"""Features of pictures that need no learned network: filters cut from the exemplar itself.

Whitened patches of the exemplar are filters tuned to what it shows (Coates and Ng 2011; that
filters need not be learned to describe textures, Ustyuzhaninov and others 2016). One layer of them
at several scales: a second one, cut from the moduli of the first, knew the exemplar so well that it
told every sample from it, good or bad.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 7  # pixels of a filter
FILTERS = 48  # at every scale
SCALES = 4
SAMPLED = 4000  # patches that whitening is measured on
FLATTENED = 0.05  # of the mean variance of patches, added to each in whitening
SEED = 20161
_KERNEL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def halved(x: Tensor) -> Tensor:
    """Images (N, C, H, W) smoothed and taken at every second pixel."""
    count = x.shape[1]
    across = _KERNEL.to(x).view(1, 1, 1, 5).repeat(count, 1, 1, 1)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="reflect"), across, groups=count)
    x = F.conv2d(F.pad(x, (0, 0, 2, 2), mode="reflect"), across.transpose(2, 3), groups=count)
    return x[:, :, ::2, ::2]


def pyramid(x: Tensor) -> list[Tensor]:
    """Images (N, C, H, W) at full, half, a quarter ... of their size, SCALES at most."""
    found = [x]
    while len(found) < SCALES and min(found[-1].shape[2:]) >= 4 * SIDE:
        found.append(halved(found[-1]))
    return found


@dataclass(frozen=True)
class Filters:
    """At one scale: whitened patches, and the response to the mean patch."""

    weight: Tensor  # (FILTERS, C, SIDE, SIDE)
    offset: Tensor  # (FILTERS,)

    @classmethod
    def of(cls, picture: Tensor, generator: torch.Generator) -> "Filters":
        """Cut from a picture (1, C, H, W)."""
        places = [length - SIDE + 1 for length in picture.shape[2:]]
        down, over = (torch.randint(n, (SAMPLED,), generator=generator) for n in places)
        patches = torch.stack(
            [picture[0, :, down + i, over + j] for i in range(SIDE) for j in range(SIDE)], dim=-1
        )
        some = patches.transpose(0, 1).flatten(1).double()  # (SAMPLED, C SIDE SIDE)
        mean = some.mean(dim=0)
        centered = some - mean
        spread, axes = torch.linalg.eigh(centered.T @ centered / SAMPLED)
        flattened = spread.clamp_min(0) + FLATTENED * spread.mean() + 1e-9
        whiten = (axes / flattened.sqrt()) @ axes.T
        white = centered[:FILTERS] @ whiten
        made = (white / white.norm(dim=1, keepdim=True).clamp_min(1e-9)) @ whiten
        shape = (FILTERS, picture.shape[1], SIDE, SIDE)
        return cls(made.float().view(shape), (made @ mean).float())

    def __call__(self, x: Tensor) -> Tensor:
        """Moduli of the responses on maps (N, C, H, W)."""
        return (F.conv2d(x, self.weight) - self.offset[:, None, None]).abs_()


@dataclass(frozen=True)
class Features:
    """Filters for every scale."""

    scales: list[Filters]

    @classmethod
    def of(cls, exemplar: Tensor) -> "Features":
        """Cut from an exemplar (C, H, W)."""
        generator = torch.Generator().manual_seed(SEED)
        return cls([Filters.of(scale, generator) for scale in pyramid(exemplar[None])])

    def __call__(self, x: Tensor, first: int = 0) -> list[Tensor]:
        """Maps (N, FILTERS, h, w) of images (N, C, H, W): of the whole size, half, a quarter ...

        `first` is the scale to begin with.
        """
        scales = list(zip(pyramid(x), self.scales, strict=False))
        return [own(scale) for scale, own in scales[first:]]

    def seen(self, picture: Tensor) -> "FeatureMaps":
        """What windows of a picture (C, H, W) are described by."""
        height, width = picture.shape[1:]
        return FeatureMaps((height, width), self(picture[None], first=1))


@dataclass(frozen=True)
class FeatureMaps:
    """A picture's size (H, W), and its maps (1, FILTERS, h, w) at strides 2, 4, 8.

    The finest grain, stride 1, is left out: of samples it tells more than the eye sees.
    """

    size: tuple[int, int]
    maps: list[Tensor]

    def by_stride(self) -> list[tuple[int, Tensor]]:
        """Pixels from one place of a map to the next, and the map."""
        return [(2 ** (number + 1), maps) for number, maps in enumerate(self.maps)]
