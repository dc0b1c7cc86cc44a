"""Given pictures on their way into a repair and back, as they were."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.errors import InputError
from gcn_cli.images import Map, Raster, split
from gcn_cli.runs.pictures import to_pixels


@dataclass(frozen=True)
class Shown:
    """A picture, or linked maps, as a model sees them, and the way back to what they were."""

    pixels: Tensor  # (C, H, W)
    given: tuple[Raster, ...]
    maps: tuple[Map, ...]
    cleared: bool  # what was clear is made anew: the result has no transparency

    @classmethod
    def of(cls, given: Sequence[Raster], maps: tuple[Map, ...], *, cleared: bool) -> "Shown":
        """Nothing is laid on white and nothing resized. Raises InputError for what is not alike."""
        bare: list[Raster] = []
        for one, known in zip(given, maps, strict=False):  # too few are refused below
            if known.bands.startswith("L") and not one.bands.startswith("L"):
                raise InputError("a picture in colour, a model of greys: its colours would be lost")
            own = one.bands.endswith("A") and not known.bands.endswith("A")
            bare.append(replace(one, values=one.values[:-1], bands=one.bands[:-1]) if own else one)
        return cls(to_pixels(bare, maps), tuple(given), maps, cleared)

    def as_given(self, made: Tensor, sides: tuple[int, int, int, int] | None) -> Tensor:
        """Channels (C, H, W) of a model in the bands that were given, `sides` wider."""
        parts = zip(self.given, split(made, self.maps), self.maps, strict=True)
        whole = [self._one_as_given(*part, sides or (0, 0, 0, 0)) for part in parts]
        return torch.cat(whole) if len(whole) > 1 else whole[0]

    def _one_as_given(
        self, given: Raster, made: Tensor, known: Map, sides: tuple[int, int, int, int]
    ) -> Tensor:
        if given.bands.startswith("L") and known.bands.startswith("RGB"):
            # Kept greys are equal in all three, so that the middle one is exact.
            made = torch.cat([made[:3].median(dim=0, keepdim=True).values, made[3:]])
        if given.bands.endswith("A") and not known.bands.endswith("A") and not self.cleared:
            left, top, right, bottom = sides
            alpha = F.pad(given.values[-1:], (left, right, top, bottom), value=255.0)
            made = torch.cat([made, alpha])
        return made
