"""The affine scale between pixels (0..255) and the values that a model sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.errors import InputError

MIN_DEVIATION = 1e-3  # gray levels; an image that varies less counts as one color


@dataclass(frozen=True)
class Normalization:
    """Model value = (pixel - mean) / scale, with a mean (0..255) and a scale for each channel."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        images: Sequence[Tensor],
        mean: tuple[float, ...] | None,
        *,
        unit_deviation: bool,
        groups: Sequence[tuple[str, int, float]],
        known: Sequence[Tensor],
    ) -> "Normalization":
        """The normalization of images (C, H, W).

        mean: of each channel; None takes the mean color of the images. unit_deviation: whether
        the scale is the standard deviation about the mean, over the group's own in model units,
        else 1. groups: title, size, and deviation in model units, of the channel groups that share
        one scale. known: masks (H, W) of the pixels to use. Raises
        InputError if a group has one color only, or if `mean` has the wrong length.
        """
        channels = len(images[0])
        if mean is not None and len(mean) != channels:
            raise InputError(
                f"--set mean_color: {len(mean)} values for {channels} channels; use own"
            )
        count = sum(int(mask.sum()) for mask in known)
        center = mean or tuple((_sum_over_images(images, known) / count).tolist())
        centered = cls(center, (1.0,) * channels)
        squares = [centered.to_model(image).double().square() for image in images]
        totals, scale = _sum_over_images(squares, known), list[float]()
        parts = torch.split(totals, [size for _, size, _ in groups])
        for (title, _, wanted), total in zip(groups, parts, strict=True):
            deviation = math.sqrt(float(total.sum() / (count * len(total))))
            if not deviation >= MIN_DEVIATION:
                raise InputError(f"{title}: has one color only, nothing to learn; leave it out")
            scale += [deviation / wanted if unit_deviation else 1.0] * len(total)
        return cls(center, tuple(scale))

    def to_model(self, pixels: Tensor) -> Tensor:
        """Pixels (..., C, H, W) in model units."""
        return (pixels - _column(self.mean, pixels)) / _column(self.scale, pixels)

    def to_pixels(self, values: Tensor) -> Tensor:
        """The inverse of `to_model`; values are not clipped."""
        return values * _column(self.scale, values) + _column(self.mean, values)


def _sum_over_images(images: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
    """Sums (C,) in double precision over the known pixels of all images (C, H, W)."""
    pairs = zip(images, known, strict=True)
    return torch.stack(
        [torch.where(mask, image.double(), 0.0).sum(dim=(1, 2)) for image, mask in pairs]
    ).sum(dim=0)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
