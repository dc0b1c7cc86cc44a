"""Features of images without a learned network: filters cut from the exemplar.

Whitened patches of the exemplar serve as filters (Coates and Ng 2011, "The importance of encoding
versus training with sparse coding and vector quantization"). Filters need not be learned to
describe textures (Ustyuzhaninov et al. 2016). There is one layer, at several scales: a second
layer separated every sample from the exemplar, good samples too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FILTER_SIDE = 7  # pixels
FILTERS = 48  # for each scale
SCALES = 4
PATCHES = 4000  # sample size of the covariance of patches
WHITENING_FLOOR = 0.05  # share of the mean eigenvalue, added to each eigenvalue
SEED = 20161
_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def downsample(x: Tensor) -> Tensor:
    """Images (N, C, H, W) at half size: a binomial filter, then every second pixel."""
    channels = x.shape[1]
    kernel = _BINOMIAL.to(x).view(1, 1, 1, 5).repeat(channels, 1, 1, 1)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="reflect"), kernel, groups=channels)
    x = F.conv2d(F.pad(x, (0, 0, 2, 2), mode="reflect"), kernel.transpose(2, 3), groups=channels)
    return x[:, :, ::2, ::2]


def pyramid(x: Tensor) -> list[Tensor]:
    """Images (N, C, H, W) at 1, 1/2, 1/4 ... of their size: up to SCALES, less for small ones."""
    scales = [x]
    while len(scales) < SCALES and min(scales[-1].shape[2:]) >= 4 * FILTER_SIDE:
        scales.append(downsample(scales[-1]))
    return scales


@dataclass(frozen=True)
class Filters:
    """Filters of one scale: r = |w * x - b|, where b is the response to the mean patch."""

    weight: Tensor  # (FILTERS, C, FILTER_SIDE, FILTER_SIDE)
    offset: Tensor  # (FILTERS,)

    @classmethod
    def from_image(cls, image: Tensor, generator: torch.Generator) -> "Filters":
        """Whitened random patches of an image (1, C, H, W), of unit length.

        With the covariance C of patches, W = (C + floor)^(-1/2) and a centered patch p, a filter
        is W W p / |W p|: its response to x is the correlation of W x with W p.
        """
        rows, columns = (
            torch.randint(length - FILTER_SIDE + 1, (PATCHES,), generator=generator)
            for length in image.shape[2:]
        )
        offsets = [(i, j) for i in range(FILTER_SIDE) for j in range(FILTER_SIDE)]
        patches = torch.stack([image[0, :, rows + i, columns + j] for i, j in offsets], dim=-1)
        patches = patches.transpose(0, 1).flatten(1).double()  # (PATCHES, C FILTER_SIDE^2)
        mean = patches.mean(dim=0)
        centered = patches - mean
        eigenvalues, axes = torch.linalg.eigh(centered.T @ centered / PATCHES)
        floored = eigenvalues.clamp_min(0) + WHITENING_FLOOR * eigenvalues.mean() + 1e-9
        whitening = (axes / floored.sqrt()) @ axes.T
        white = centered[:FILTERS] @ whitening
        filters = (white / white.norm(dim=1, keepdim=True).clamp_min(1e-9)) @ whitening
        shape = (FILTERS, image.shape[1], FILTER_SIDE, FILTER_SIDE)
        return cls(filters.float().view(shape), (filters @ mean).float())

    def __call__(self, x: Tensor) -> Tensor:
        """Absolute responses (N, FILTERS, h, w) to images (N, C, H, W)."""
        return (F.conv2d(x, self.weight) - self.offset[:, None, None]).abs_()


@dataclass(frozen=True)
class FeatureMaps:
    """Size (H, W) of an image, and its maps (1, FILTERS, h, w) by their stride: 2, 4, 8.

    Stride 1 is left out: at the finest scale samples differ more than the eye sees.
    """

    size: tuple[int, int]
    maps: dict[int, Tensor]


@dataclass(frozen=True)
class FilterPyramid:
    """Filters for every scale of an exemplar."""

    scales: list[Filters]

    @classmethod
    def from_exemplar(cls, exemplar: Tensor) -> "FilterPyramid":
        """Filters cut from an exemplar (C, H, W)."""
        generator = torch.Generator().manual_seed(SEED)
        return cls([Filters.from_image(scale, generator) for scale in pyramid(exemplar[None])])

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Responses (N, FILTERS, h, w) to images (N, C, H, W) at 1, 1/2, 1/4 ... of their size."""
        return [filters(scale) for scale, filters in zip(pyramid(x), self.scales, strict=False)]

    def maps(self, image: Tensor) -> FeatureMaps:
        """Feature maps of an image (C, H, W)."""
        scales = list(zip(pyramid(image[None]), self.scales, strict=False))
        maps = {2**index: scales[index][1](scales[index][0]) for index in range(1, len(scales))}
        return FeatureMaps((image.shape[1], image.shape[2]), maps)
