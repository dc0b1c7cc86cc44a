"""What the bands of a picture are, and what its channels are called in a model.

A `Image` is one picture as it was found. A `TextureMap` says how some channels of a model are a picture:
a model of linked maps (albedo, normal, roughness) has several.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional as F

BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
LUMA = (0.299, 0.587, 0.114)
UNIT_LENGTH = 0.1  # share by which the length of most normals may be off


@dataclass(frozen=True)
class Image:
    """A picture: values (bands, H, W) float32 in 0..255, of 8 or 16 bits or with fractions (32).

    bands: L, LA, RGB or RGBA; an ICC profile where it has one.
    """

    values: Tensor
    bands: str
    depth: int = 8
    profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def clear(self) -> Tensor | None:
        """Where it is not wholly opaque, (H, W) bool; None where it is everywhere."""
        if not self.bands.endswith("A"):
            return None
        clear = self.values[-1] < 255
        return clear if bool(clear.any()) else None

    def resized(self, size: tuple[int, int]) -> "Image":
        """At (H, W), by antialiased bicubic; colors count by how opaque they are."""
        if size == self.size:
            return self
        if self.depth == 8:
            picture = as_pillow(self.values).resize(
                (size[1], size[0]), PillowImage.Resampling.BICUBIC
            )
            return replace(self, values=from_pillow(picture))
        values = self.values
        if self.bands.endswith("A"):
            values = torch.cat([values[:-1] * values[-1:] / 255, values[-1:]])
        made = _bicubic(values, size).clamp(0, 255)
        if self.bands.endswith("A"):
            colors = (made[:-1] * 255 / made[-1:].clamp_min(1e-3)).clamp(0, 255)
            made = torch.cat([colors, made[-1:]])
        return replace(self, values=made)

    def middle(self, size: tuple[int, int]) -> "Image":
        """The largest part about the center that has the proportions of (H, W)."""
        height, width = self.size
        high = min(height, round(width * size[0] / size[1])) or 1
        wide = min(width, round(height * size[1] / size[0])) or 1
        top, left = (height - high) // 2, (width - wide) // 2
        return replace(self, values=self.values[:, top : top + high, left : left + wide])

    def shrunk(self, shorter: int | None) -> "Image":
        """With a shorter side of at most so many pixels, proportions kept; None leaves it."""
        height, width = self.size
        longest = min(height, width)
        if shorter is None or longest <= shorter:
            return self
        return self.resized((round(height * shorter / longest), round(width * shorter / longest)))

    def to_bands(self, bands: str) -> Tensor:
        """(C, H, W) as other bands: color to gray and back; what is clear is laid on white where
        no transparency is asked for, and without any all is opaque."""
        values, opaque = self.values, self.values.new_full((1, *self.size), 255.0)
        own_alpha, wants_alpha = self.bands.endswith("A"), bands.endswith("A")
        colors = values[:-1] if own_alpha else values
        alpha = values[-1:] if own_alpha else opaque
        if own_alpha and not wants_alpha:
            colors = self._on_white(colors, alpha)
        wanted = BANDS[bands] - wants_alpha
        if len(colors) > wanted:
            colors = self._gray(colors)
        elif len(colors) < wanted:
            colors = colors.expand(wanted, -1, -1)
        return torch.cat([colors, alpha]) if wants_alpha else colors.contiguous()

    def _on_white(self, colors: Tensor, alpha: Tensor) -> Tensor:
        if self.depth != 8:
            return 255 + (colors - 255) * alpha / 255
        picture = as_pillow(torch.cat([colors, alpha])).convert("RGBA")
        laid = PillowImage.alpha_composite(PillowImage.new("RGBA", picture.size, "white"), picture)
        return from_pillow(laid.convert("RGB" if len(colors) == 3 else "L"))

    def _gray(self, colors: Tensor) -> Tensor:
        if self.depth == 8:
            return from_pillow(as_pillow(colors).convert("L"))
        return (colors * colors.new_tensor(LUMA)[:, None, None]).sum(dim=0, keepdim=True)


@dataclass(frozen=True)
class TextureMap:
    """How some channels of a model are a picture."""

    name: str = ""  # of the file it was learned from, without its ending
    bands: str = "RGB"
    depth: int = 8
    normals: bool = False  # directions, of length 1 once written
    profile: bytes | None = None

    @property
    def channels(self) -> int:
        """How many it has."""
        return BANDS[self.bands]

    @property
    def groups(self) -> list[int]:
        """Channels that have one scale: colors, and transparency apart."""
        return [self.channels - 1, 1] if self.bands.endswith("A") else [self.channels]

    def finished(self, pixels: Tensor) -> Tensor:
        """Samples (C, H, W) as they are to be written: normals of length 1."""
        if not self.normals:
            return pixels
        directions = F.normalize(pixels[:3] / 127.5 - 1, dim=0)
        return torch.cat([(directions + 1) * 127.5, pixels[3:]])


def split_maps(pixels: Tensor, maps: Sequence[TextureMap]) -> list[Tensor]:
    """Channels (C, H, W) of a model, map by map."""
    return list(torch.split(pixels, [one.channels for one in maps]))


def finish_maps(pixels: Tensor, maps: Sequence[TextureMap]) -> Tensor:
    """Channels (C, H, W) of a model as they are to be written."""
    if not any(one.normals for one in maps):
        return pixels
    parts = zip(maps, split_maps(pixels, maps), strict=True)
    return torch.cat([one.finished(part) for one, part in parts])


def side_by_side(pixels: Tensor, maps: Sequence[TextureMap]) -> Tensor:
    """Linked maps as one picture to look at, (3, H, maps W); of one map, as it is."""
    if len(maps) == 1:
        return pixels
    parts = zip(split_maps(pixels, maps), maps, strict=True)
    return torch.cat([Image(part, one.bands, 32).to_bands("RGB") for part, one in parts], dim=2)


def holds_normals(colors: Tensor) -> bool:
    """Whether a picture (3, H, W) in 0..255 is one of directions, most of length 1 and upwards."""
    if len(colors) != 3:
        return False
    directions = colors / 127.5 - 1
    off = (directions.norm(dim=0) - 1).abs().median()
    return float(off) < UNIT_LENGTH and float(directions[2].mean()) > 0.3


def as_pillow(values: Tensor) -> PillowImage.Image:
    """(C, H, W) in 0..255, rounded and clipped, as an 8-bit picture."""
    channels, height, width = values.shape
    rounded = values.detach().round().clamp(0, 255).to("cpu", torch.uint8)
    data = rounded.permute(1, 2, 0).contiguous()
    raw = ctypes.string_at(data.data_ptr(), data.numel())
    mode = next(bands for bands, count in BANDS.items() if count == channels)
    return PillowImage.frombytes(mode, (width, height), raw)


def from_pillow(picture: PillowImage.Image) -> Tensor:
    """An 8-bit picture of known bands as (C, H, W) float32."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float()
    shape = (picture.height, picture.width, BANDS[picture.mode])
    return flat.reshape(shape).permute(2, 0, 1).contiguous()


def _bicubic(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's antialiased bicubic in floating point, band by band: (C, H, W) -> (C, *size)."""
    made = []
    for band in values.contiguous():
        height, width = band.shape
        raw = ctypes.string_at(band.contiguous().data_ptr(), 4 * band.numel())
        picture = PillowImage.frombytes("F", (width, height), raw)
        resized = picture.resize((size[1], size[0]), PillowImage.Resampling.BICUBIC)
        made.append(torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.float32))
    return torch.stack(made).reshape(len(values), *size)
