"""Images in memory, and how the channels of a model map to images.

An `Image` holds pixels with their color mode and file properties. A `TextureMap` describes the
channels of a model that form one image; a model of linked maps (albedo, normal, roughness) has one
`TextureMap` for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional as F

CHANNELS_OF_MODE = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
UINT16_PER_GRAY_LEVEL = 257.0  # 65535 / 255
NEUTRAL = 127.5  # of a normal map: red without a slope to the right, green without one up


@dataclass(frozen=True)
class Image:
    """Pixels (C, H, W), float32 in 0..255 whatever the bit depth, and their mode.

    mode: "L", "LA", "RGB" or "RGBA". bit_depth: 8 or 16 bits a channel; 32 for fractions. dpi:
    pixels per inch, if a PNG states them. color_managed: true of files, where no profile means
    sRGB; the values of arrays are in the color space of the model that they are given to.
    """

    pixels: Tensor
    mode: str
    bit_depth: int = 8
    icc_profile: bytes | None = None
    dpi: float | None = None
    color_managed: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def has_alpha(self) -> bool:
        return self.mode.endswith("A")

    @property
    def color_channels(self) -> int:
        return len(self.pixels) - self.has_alpha

    @property
    def transparent(self) -> Tensor | None:
        """Mask (H, W) of the pixels with alpha below 255; None if there are none."""
        mask = self.pixels[-1] < 255
        return mask if self.has_alpha and bool(mask.any()) else None

    def without_alpha(self) -> "Image":
        """The same colors without the alpha channel."""
        if not self.has_alpha:
            return self
        return replace(self, pixels=self.pixels[:-1], mode=self.mode[:-1])

    def resized(self, size: tuple[int, int]) -> "Image":
        """The image at (height, width), by antialiased bicubic interpolation.

        Colors are weighted by alpha. 8-bit images are resized by Pillow and stay whole numbers.
        """
        if size == self.size:
            return self
        dpi = None if self.dpi is None else round(self.dpi * size[1] / self.size[1], 2)
        if self.bit_depth == 8:
            resized = to_pillow(self.pixels).resize(size[::-1], PillowImage.Resampling.BICUBIC)
            return replace(self, pixels=from_pillow(resized), dpi=dpi)
        pixels = self.pixels
        if self.has_alpha:
            pixels = torch.cat([pixels[:-1] * pixels[-1:] / 255, pixels[-1:]])
        pixels = F.interpolate(
            pixels[None], size, mode="bicubic", align_corners=False, antialias=True
        )[0].clamp(0, 255)
        if self.has_alpha:
            colors = (pixels[:-1] * 255 / pixels[-1:].clamp_min(1e-3)).clamp(0, 255)
            pixels = torch.cat([colors, pixels[-1:]])
        return replace(self, pixels=pixels, dpi=dpi)

    def center_crop(self, size: tuple[int, int]) -> "Image":
        """The largest centered part with the proportions of (height, width)."""
        height, width = self.size
        crop_height = min(height, round(width * size[0] / size[1])) or 1
        crop_width = min(width, round(height * size[1] / size[0])) or 1
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        cropped = self.pixels[:, top : top + crop_height, left : left + crop_width]
        return replace(self, pixels=cropped)

    def shrunk(self, side: int | None) -> "Image":
        """The image with a shorter side of at most `side` pixels; None keeps the size."""
        shorter = min(self.size)
        if side is None or shorter <= side:
            return self
        height, width = (round(length * side / shorter) for length in self.size)
        return self.resized((height, width))

    def to_mode(self, mode: str) -> Tensor:
        """Pixels (C, H, W) in another mode.

        Without alpha in `mode`, colors are composited on white. Missing alpha is opaque.
        """
        wants_alpha = mode.endswith("A")
        colors, alpha = self.without_alpha().pixels, self.pixels.new_full((1, *self.size), 255.0)
        if self.has_alpha:
            alpha = self.pixels[-1:]
            colors = colors if wants_alpha else self._on_white()
        channels = CHANNELS_OF_MODE[mode] - wants_alpha
        if len(colors) > channels:
            colors = self._gray(colors)
        elif len(colors) < channels:
            colors = colors.expand(channels, -1, -1)
        return torch.cat([colors, alpha]) if wants_alpha else colors.contiguous()

    def _on_white(self) -> Tensor:
        if self.bit_depth != 8:
            return 255 + (self.pixels[:-1] - 255) * self.pixels[-1:] / 255
        image = to_pillow(self.pixels).convert("RGBA")
        white = PillowImage.new("RGBA", image.size, "white")
        return from_pillow(PillowImage.alpha_composite(white, image).convert(self.mode[:-1]))

    def _gray(self, colors: Tensor) -> Tensor:
        if self.bit_depth == 8:
            return from_pillow(to_pillow(colors).convert("L"))
        luma = colors.new_tensor((0.299, 0.587, 0.114))  # ITU-R BT.601, as in Pillow
        return (colors * luma[:, None, None]).sum(dim=0, keepdim=True)


@dataclass(frozen=True)
class TextureMap:
    """The image that some channels of a model form, and how it is written to a file."""

    name: str = ""  # its kind, or that of the training file without its suffix
    mode: str = "RGB"
    bit_depth: int = 8
    icc_profile: bytes | None = None
    dpi: float | None = None  # pixels per inch
    kind: str = ""  # what it is of a material, one of `materials.MAP_KINDS`; "" is not known
    y_up: bool | None = None  # whether green of a normal map points up; None is not known

    @property
    def normals(self) -> bool:
        """Whether it is a normal map, which is written with unit length."""
        return self.kind == "normal"

    @property
    def channels(self) -> int:
        return CHANNELS_OF_MODE[self.mode]

    @property
    def groups(self) -> list[int]:
        """Sizes of the channel groups that share one scale: colors, alpha."""
        return [self.channels - 1, 1] if self.mode.endswith("A") else [self.channels]


def first_channels(maps: Sequence[TextureMap]) -> list[int]:
    """The index of the first channel of each map in the channels of a model."""
    return [0, *accumulate(texture_map.channels for texture_map in maps)][:-1]


def split_maps(pixels: Tensor, maps: Sequence[TextureMap]) -> list[Tensor]:
    """The channels (C, H, W) of a model, one tensor for each map."""
    return list(torch.split(pixels, [texture_map.channels for texture_map in maps]))


def finish_maps(pixels: Tensor, maps: Sequence[TextureMap]) -> Tensor:
    """The channels (C, H, W) of a model ready to write: normals are scaled to unit length."""
    if not any(texture_map.normals for texture_map in maps):
        return pixels
    parts = split_maps(pixels, maps)
    for index, texture_map in enumerate(maps):
        if texture_map.normals:
            directions = F.normalize(parts[index][:3] / NEUTRAL - 1, dim=0)
            parts[index] = torch.cat([(directions + 1) * NEUTRAL, parts[index][3:]])
    return torch.cat(parts)


def side_by_side(pixels: Tensor, maps: Sequence[TextureMap]) -> Tensor:
    """Linked maps as one color image (3, H, maps * W); a single map is returned unchanged."""
    if len(maps) == 1:
        return pixels
    parts = zip(split_maps(pixels, maps), maps, strict=True)
    return torch.cat([Image(part, map_.mode, 32).to_mode("RGB") for part, map_ in parts], dim=2)


def tiled(pixels: Tensor, axes: tuple[bool, bool], times: int = 2) -> Tensor:
    """An image (C, H, W) repeated along the axes that tile, vertically and horizontally."""
    down, across = (times if periodic else 1 for periodic in axes)
    return pixels.repeat(1, down, across)


def shrunk_to(pixels: Tensor, side: int) -> Tensor:
    """An image (C, H, W) with sides of at most `side` pixels, by means of areas: it still tiles."""
    longest = max(pixels.shape[1:])
    if longest <= side:
        return pixels
    height, width = (max(1, round(length * side / longest)) for length in pixels.shape[1:])
    return F.interpolate(pixels[None], (height, width), mode="area")[0]


def mode_of(channels: int) -> str:
    """The mode of an image with 1 to 4 channels."""
    return next(mode for mode, count in CHANNELS_OF_MODE.items() if count == channels)


def is_normal_map(colors: Tensor, *, named: bool = False) -> bool:
    """Whether pixels (3, H, W) in 0..255 encode unit vectors that point upwards on average.

    The median length may be off by 10 %, since files round and filter normals, but by less than the
    directions vary: the colors of a blue surface vary in length as much. `named`: the image is said
    to be a normal map, so that flat ones count as well.
    """
    if len(colors) != 3:
        return False
    directions = colors / NEUTRAL - 1
    error = float((directions.norm(dim=0) - 1).abs().median())
    spread = float(directions[:2].var(dim=(1, 2), correction=0).sum().sqrt())
    return error < (0.1 if named else min(0.1, 0.3 * spread)) and float(directions[2].mean()) > 0.3


def green_direction(colors: Tensor, known: Tensor) -> float:
    """Whether green of a normal map (3, H, W) points up (1) or down (-1): 0 where nothing shows it.

    The slopes of a surface have no curl, which holds for one of the two only. known: mask (H, W) of
    the pixels to use. Of several scales the clearest counts: compression and noise hide fine ones.
    """
    directions = colors / NEUTRAL - 1
    slopes = torch.where(known, directions[:2] / directions[2].clamp_min(0.1), torch.nan)
    clearest = 0.0
    for scale in (1, 2, 4):
        if min(slopes.shape[1:]) < 3 * scale:
            break
        means = F.avg_pool2d(slopes[None], scale)[0]
        red = means[0, 2:, 1:-1] - means[0, :-2, 1:-1]  # of pixels with an unknown neighbor NaN
        green = means[1, 1:-1, 2:] - means[1, 1:-1, :-2]
        inside = (red * green).isfinite()
        red, green = red[inside].double(), green[inside].double()
        power = float((red.square().sum() * green.square().sum()).sqrt())
        correlation = -float((red * green).sum()) / power if power else 0.0
        clearest = max(clearest, correlation, key=abs)
    return clearest


def to_integers(pixels: Tensor, bit_depth: int) -> NDArray[Any]:
    """Pixels (C, H, W) in 0..255, rounded and clipped to 8 or 16 bits: (H, W, C) unsigned.

    Channels are converted one at a time to save memory.
    """
    array = np.empty((*pixels.shape[1:], len(pixels)), np.uint8 if bit_depth == 8 else np.uint16)
    for index, channel in enumerate(pixels.detach()):
        values = channel.cpu()
        if bit_depth == 16:
            values = values.double() * UINT16_PER_GRAY_LEVEL
        array[:, :, index] = values.round().clamp_(0, 2**bit_depth - 1).numpy()
    return array


def to_pillow(pixels: Tensor, icc_profile: bytes | None = None) -> PillowImage.Image:
    """Pixels (C, H, W) in 0..255 as an 8-bit Pillow image of 1 to 4 channels."""
    array = to_integers(pixels, 8)
    image = PillowImage.fromarray(array[:, :, 0] if len(pixels) == 1 else array)
    if icc_profile is not None:
        image.info["icc_profile"] = icc_profile
    return image


def from_pillow(image: PillowImage.Image) -> Tensor:
    """Pixels (C, H, W), float32 in 0..255, of an 8-bit image in a mode of CHANNELS_OF_MODE."""
    array = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return torch.from_numpy(array.astype(np.float32, order="C"))
