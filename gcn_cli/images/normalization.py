"""Models see pixels minus a mean color, divided by a scale: there and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcn_cli.errors import InputError

FLAT = 1e-3  # gray levels of deviation below which a picture has one color


@dataclass(frozen=True)
class Normalization:
    """Model value = (pixel - mean) / scale: a mean (0..255) and a scale for each channel."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        pictures: Sequence[Tensor],
        mean: tuple[float, ...] | None,
        *,
        unit_deviation: bool,
        groups: Sequence[int] | None = None,
    ) -> "Normalization":
        """The scale for pictures (C, H, W): mean None takes their own mean color.

        `unit_deviation` scales to a deviation of 1 about that mean over the known pixels and the
        channels of a group, else the scale is 1. `groups` are the channels in each, by default one
        of all. Raises InputError where a group has one color only, or the mean too few values.
        """
        channels = len(pictures[0])
        if mean is not None and len(mean) != channels:
            raise InputError(f"--mean-color: {len(mean)} values for {channels} channels; use own")
        parts = list(groups or [channels])
        known = [picture.isfinite() for picture in pictures]
        counts = torch.stack([k.sum(dim=(1, 2)) for k in known]).sum(dim=0).double()
        total = torch.stack([p.double().nansum(dim=(1, 2)) for p in pictures]).sum(dim=0)
        center = mean or tuple((total / counts).tolist())
        centered = cls(center, (1.0,) * len(center))
        squares = torch.stack(
            [centered.to_model(p).double().square().nansum(dim=(1, 2)) for p in pictures]
        ).sum(dim=0)
        scales: list[float] = []
        for own, count in zip(torch.split(squares, parts), torch.split(counts, parts), strict=True):
            deviation = math.sqrt(float(own.sum() / count.sum()))
            if not deviation >= FLAT:
                raise InputError("the pictures have one color only; there is nothing to learn")
            scales += [deviation if unit_deviation else 1.0] * len(own)
        return cls(center, tuple(scales))

    def to_model(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) pixels -> the same in model units."""
        return (pixels - _column(self.mean, pixels)) / _column(self.scale, pixels)

    def to_pixels(self, values: Tensor) -> Tensor:
        """The inverse of `to_model`; not clipped."""
        return values * _column(self.scale, values) + _column(self.mean, values)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
