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
class FeatureMaps:
    """Size (H, W) of an image, and its maps (1, FILTERS, h, w) by their stride: 2, 4, 8.

    Stride 1 is left out: at the finest scale samples differ more than the eye sees.
    """

    size: tuple[int, int]
    maps: dict[int, Tensor]


class FilterPyramid:
    """Filters for every scale of an exemplar (C, H, W); responses are |w * x - b|."""

    def __init__(self, exemplar: Tensor) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self.filters = [whitened_patches(x, generator) for x in pyramid(exemplar[None])]

    def __call__(self, x: Tensor, first: int = 0) -> list[Tensor]:
        """Maps (N, FILTERS, h, w) of images (N, C, H, W) at 2^-first and smaller scales."""
        scales = list(zip(pyramid(x), self.filters, strict=False))[first:]
        return [(F.conv2d(x, w) - b[:, None, None]).abs_() for x, (w, b) in scales]

    def maps(self, image: Tensor) -> FeatureMaps:
        """Feature maps of an image (C, H, W)."""
        maps = {2**scale: maps for scale, maps in enumerate(self(image[None], first=1), start=1)}
        return FeatureMaps((image.shape[1], image.shape[2]), maps)


def whitened_patches(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Filters w (FILTERS, C, FILTER_SIDE, FILTER_SIDE) and offsets b from an image (1, C, H, W).

    With the covariance of patches, W = (covariance + floor)^(-1/2). A filter is W W p / |W p| for
    a random centered patch p: it correlates W x with W p. The offset is its response to the mean.
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
    return filters.float().view(shape), (filters @ mean).float()
