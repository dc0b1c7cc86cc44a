"""Color spaces of images: the profile that a file states, and colors converted between profiles.

A profile is the bytes of an ICC profile; None is sRGB.
"""

import io
import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images.image import (
    UINT16_PER_GRAY_LEVEL,
    Image,
    TextureMap,
    from_pillow,
    mode_of,
    to_integers,
    to_pillow,
)
from gcn_cli.images.materials import as_data, is_data

log = logging.getLogger(__name__)

INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
SRGB_PRIMARIES: tuple[float, ...] = (
    0.3127,
    0.3290,
    0.64,
    0.33,
    0.30,
    0.60,
    0.15,
    0.06,
)  # x, y of white, r, g, b
PRIMARIES: dict[int, tuple[float, ...]] = {  # codes of ITU-T H.273, as in cICP
    1: SRGB_PRIMARIES,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # P3, theater white
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
SRGB_CURVE: tuple[float, ...] = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
# Codes of ITU-T H.273; decoding as parameters of a "para" tag: an exponent, or one with a toe.
CURVES: dict[int, tuple[float, ...]] = {
    1: BT709_CURVE, 4: (2.2,), 5: (2.8,), 6: BT709_CURVE, 8: (1.0,), 13: SRGB_CURVE,
    14: BT709_CURVE, 15: BT709_CURVE,
}  # fmt: skip
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def stated_profile(
    info: Mapping[Any, Any], cicp: bytes | None, channels: int, source: str
) -> bytes | None:
    """The profile of a file with 1 or 3 channels of color, by the `info` of Pillow.

    That is its ICC profile, or a profile made of what a PNG says of its values: cICP (the chunk's
    content), or gAMA and cHRM. What cannot be used is logged; `source` names the file there.
    """
    profile = info.get("icc_profile") or None
    if profile is not None:
        if is_valid(profile) and fits(profile, channels):
            return bytes(profile)
        if not (is_valid(profile) and channels == 1 and same_colors(profile, None)):
            log.warning(
                "%s: its ICC profile is %s; it is ignored", source,
                "not for its channels" if is_valid(profile) else "damaged",
            )  # fmt: skip
        return None
    return _png_profile(info, cicp, channels, source)


def _png_profile(
    info: Mapping[Any, Any], cicp: bytes | None, channels: int, source: str
) -> bytes | None:
    primaries, curve = SRGB_PRIMARIES, SRGB_CURVE
    if cicp is not None:
        if cicp[0] not in PRIMARIES or cicp[1] not in CURVES:
            log.warning(
                "%s: its cICP %s is not supported (HDR); the values are learned as they are, and "
                "results do not repeat it", source, "/".join(map(str, cicp)),
            )  # fmt: skip
            return None
        primaries, curve = PRIMARIES[cicp[0]], CURVES[cicp[1]]
    elif "srgb" not in info:
        primaries = info.get("chromaticity", primaries)
        curve = (1 / info["gamma"],) if info.get("gamma") else curve
    try:
        return made_profile(primaries, curve, channels)
    except (ArithmeticError, ValueError, struct.error):
        log.warning("%s: its gAMA or cHRM has impossible values; they are ignored", source)
        return None


@lru_cache(maxsize=32)
def is_valid(profile: bytes) -> bool:
    """Whether bytes are an ICC profile."""
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    return True


def fits(profile: bytes | None, channels: int) -> bool:
    """Whether a profile is for images of 1 (gray) or 3 (RGB) channels; sRGB is for both."""
    return profile is None or profile[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def profile_name(profile: bytes | None) -> str:
    """The name of a profile, for a message."""
    if profile is None:
        return "sRGB"
    return ImageCms.getProfileDescription(_parsed(profile)).strip() or "an unnamed profile"


@lru_cache(maxsize=32)
def same_colors(profile: bytes | None, other: bytes | None) -> bool:
    """Whether colors differ by at most one of 255 levels when converted between two profiles."""
    if profile == other:
        return True
    gray = [p is not None and p[16:20] == b"GRAY" for p in (profile, other)]
    if any(gray) and not all(gray) and None not in (profile, other):
        return False
    levels = torch.linspace(0, 255, 256 if any(gray) else 9).round()
    colors = levels[None, None] if any(gray) else torch.cartesian_prod(*[levels] * 3).T[:, None]
    return float((_converted(colors, 8, profile, other) - colors).abs().max()) <= 1


def to_profile(image: Image, profile: bytes | None) -> Image:
    """An image with its colors converted to a profile, in the same mode.

    A color image becomes gray by a profile of grays. Images that are not color-managed stay.
    """
    if not image.color_managed or same_colors(image.icc_profile, profile):
        return image
    colors = image.without_alpha().pixels
    converted = _converted(colors, image.bit_depth, image.icc_profile, profile)
    mode = ("L" if len(converted) == 1 else "RGB") + ("A" if image.has_alpha else "")
    pixels = torch.cat([converted, image.pixels[len(colors) :]])
    return Image(pixels, mode, image.bit_depth, profile, image.dpi, color_managed=True)


def to_map(image: Image, texture_map: TextureMap) -> Image:
    """An image with the color profile of a map; the values of data maps are no colors."""
    if is_data(texture_map.kind):
        return as_data(
            image, texture_map.kind, f"map {texture_map.name}" if texture_map.name else "the image"
        )
    return to_profile(image, texture_map.icc_profile)


@dataclass(frozen=True)
class ColorMatch:
    """Images in the color profiles of a model's maps, and the way back to their own profiles."""

    originals: tuple[Image, ...]
    images: tuple[Image, ...]
    maps: tuple[TextureMap, ...]

    @classmethod
    def of(cls, originals: Sequence[Image], maps: tuple[TextureMap, ...]) -> "ColorMatch":
        """Modes and sizes stay. Logs which image is converted."""
        pairs = list(zip(originals, maps, strict=False))
        given = [to_map(one, map_) if is_data(map_.kind) else one for one, map_ in pairs]
        originals = [*given, *originals[len(pairs) :]]
        matched = list(originals)
        for index, (original, texture_map) in enumerate(zip(originals, maps, strict=False)):
            if original.color_channels > 1 and texture_map.mode.startswith("L"):
                continue  # no repair: the colors would be lost
            matched[index] = to_map(original, texture_map)
            if matched[index] is not original:
                log.info(
                    "color profile: the image is converted from %s to %s of the model, and back",
                    profile_name(original.icc_profile), profile_name(texture_map.icc_profile),
                )  # fmt: skip
        return cls(tuple(originals), tuple(matched), maps)

    @property
    def icc_profile(self) -> bytes | None:
        """The profile of the first image, or of the model for an image without color management."""
        first = self.originals[0]
        return first.icc_profile if first.color_managed else self.maps[0].icc_profile

    def restore(
        self,
        result: Tensor,
        *,
        sides: tuple[int, int, int, int] | None = None,
        drop_alpha: bool = False,
    ) -> Tensor:
        """A result (C, H, W), in the channels of the images, in their own color profiles.

        `sides` are the pixels by which it is larger at the left, top, right and bottom; drop_alpha:
        it has no transparency unless the model has. Pixels that equal those of `images` become
        exactly those of the originals.
        """
        pairs = list(zip(self.originals, self.images, strict=True))
        if all(original is matched for original, matched in pairs):
            return result
        parts = zip(pairs, self.split(result, drop_alpha=drop_alpha), strict=True)
        return torch.cat([_restored(*pair, part, sides or (0, 0, 0, 0)) for pair, part in parts])

    def split(self, result: Tensor, *, drop_alpha: bool = False) -> list[Tensor]:
        """The channels (C, H, W) of a result for each image; alpha follows the colors."""
        alphas = [
            texture_map.mode.endswith("A") or (image.has_alpha and not drop_alpha)
            for image, texture_map in zip(self.images, self.maps, strict=True)
        ]
        counts = [one.color_channels + a for one, a in zip(self.images, alphas, strict=True)]
        return list(torch.split(result, counts))

    def restore_resized(self, result: Tensor) -> list[Tensor]:
        """A result of another size in the color profile of each image, a tensor for each."""
        triples = zip(self.originals, self.images, self.split(result), strict=True)
        return [
            part if matched is original else _in_profile_of(original, matched, part)
            for original, matched, part in triples
        ]


def _restored(
    original: Image, matched: Image, result: Tensor, sides: tuple[int, int, int, int]
) -> Tensor:
    if matched is original:
        return result
    channels = original.color_channels
    back = _in_profile_of(original, matched, result)[:channels].clone()
    left, top, _, _ = sides
    height, width = original.size
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    kept = (result[:channels][inside] == matched.pixels[:channels]).all(dim=0)
    back[inside] = torch.where(kept, original.pixels[:channels], back[inside])
    return torch.cat([back, result[channels:]])


def _in_profile_of(original: Image, matched: Image, result: Tensor) -> Tensor:
    """Channels (C, H, W) in the profile of `matched`, colors first, in that of the original."""
    channels = original.color_channels
    colors = Image(result[:channels], mode_of(channels), original.bit_depth, matched.icc_profile)
    back = to_profile(replace(colors, color_managed=True), original.icc_profile).pixels
    return torch.cat([back, result[channels:]])


def _converted(
    colors: Tensor, bit_depth: int, source: bytes | None, target: bytes | None
) -> Tensor:
    """Colors (C, H, W) in 0..255, converted with 8 or 16 bits.

    A gray image has a profile of grays, or values that are those of all channels of an RGB profile.
    """
    channels = len(colors)
    if channels == 1 and not _is_gray(source):
        colors = colors.expand(3, -1, -1)
    if bit_depth == 8:
        modes = ("L" if _is_gray(profile) else "RGB" for profile in (source, target))
        result = ImageCms.applyTransform(to_pillow(colors), _transform(source, target, *modes))
        assert result is not None  # it is no conversion in place
        converted = from_pillow(result)
    else:
        converted = _converted_16_bits(colors, source, target)
    return converted.median(dim=0, keepdim=True).values if channels == 1 else converted


def _converted_16_bits(colors: Tensor, source: bytes | None, target: bytes | None) -> Tensor:
    vips = libvips("a color profile")
    image = vips.Image.new_from_array(to_integers(colors, 16))
    image = image.copy(interpretation="grey16" if len(colors) == 1 else "rgb16")
    blob, name = vips.GValue.blob_type, "icc-profile-data"
    image.set_type(blob, name, source or _srgb())
    options = {"intent": "relative", "black_point_compensation": True}
    try:
        connected = image.icc_import(embedded=True, pcs="xyz", **options).copy()
        connected.set_type(blob, name, target or _srgb())
        array = connected.icc_export(depth=16, pcs="xyz", **options).numpy()
    except vips.Error as error:
        raise InputError(f"a color profile cannot be applied to 16 bits: {error}") from error
    array = np.atleast_3d(array).astype(np.float32) / UINT16_PER_GRAY_LEVEL
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _is_gray(profile: bytes | None) -> bool:
    return profile is not None and profile[16:20] == b"GRAY"


@lru_cache(maxsize=16)
def _transform(
    source: bytes | None, target: bytes | None, source_mode: str, target_mode: str
) -> ImageCms.ImageCmsTransform:
    profiles = _parsed(source or _srgb()), _parsed(target or _srgb())
    return ImageCms.buildTransform(*profiles, source_mode, target_mode, INTENT, FLAGS)


def _parsed(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def libvips(target: str) -> Any:
    """The module pyvips, for 16-bit colors. Raises InputError, naming `target`, without it."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise InputError(
            f"{target}: 16-bit colors need libvips; pip install 'gcn-cli[deep]', or use 8 bits"
        ) from error
    return pyvips


def rgb_from(image: PillowImage.Image, icc_profile: bytes | None) -> PillowImage.Image:
    """A CMYK or LAB image in sRGB, by its profile if that fits, else by Pillow's formula."""
    if icc_profile and is_valid(icc_profile) and icc_profile[16:20] == b"CMYK":
        converted = ImageCms.profileToProfile(
            image, _parsed(icc_profile), _parsed(_srgb()), outputMode="RGB"
        )
        assert converted is not None  # it is no conversion in place
        return converted
    return image.convert("RGB")


def made_profile(
    primaries: tuple[float, ...], curve: tuple[float, ...], channels: int
) -> bytes | None:
    """An ICC profile of primaries (x, y of white, red, green, blue) and a decoding curve.

    For one channel the white and the curve alone count. Returns None for what is nearly sRGB.
    Raises ArithmeticError or ValueError for values that are impossible.
    """
    standard = np.allclose(primaries, SRGB_PRIMARIES, atol=0.003) or channels == 1
    if standard and (curve == SRGB_CURVE or (len(curve) == 1 and abs(curve[0] - 2.2) < 0.03)):
        return None
    # The name tells profiles of different values apart.
    title = f"PNG gamma {curve[0]:.3g}" if len(curve) == 1 else "PNG"
    title += "" if standard else ", primaries " + " ".join(f"{v:.3g}" for v in primaries[2:])
    parameters = b"para" + struct.pack(">IHH", 0, 0 if len(curve) == 1 else 3, 0)
    tone = parameters + b"".join(map(_fixed, curve))
    tags = {b"desc": _text(title), b"cprt": _text("none"), b"wtpt": _xyz(D50)}
    if channels == 1:
        tags[b"kTRC"] = tone
    else:
        matrix = _to_d50(np.reshape(primaries, (4, 2)))
        for name, column in zip("rgb", matrix.T, strict=True):
            tags[f"{name}XYZ".encode()] = _xyz(column)
            tags[f"{name}TRC".encode()] = tone
    offset = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", offset + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    space = b"GRAY" if channels == 1 else b"RGB "
    header = (
        struct.pack(">I4sI", offset + len(content), b"", 0x04200000) + b"mntr" + space + b"XYZ "
    )
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += b"".join(map(_fixed, D50)) + bytes(48)
    return header + table + content


def _to_d50(chromaticities: NDArray[Any]) -> NDArray[Any]:
    """The matrix from linear RGB to XYZ, adapted to D50, of (x, y) of white, red, green, blue."""
    x, y = chromaticities.T
    if not (y > 0).all():
        raise ValueError("chromaticities must have a y above 0")
    white, *colors = np.stack([x / y, np.ones_like(x), (1 - x - y) / y], axis=1)
    columns = np.stack(colors, axis=1)
    try:
        matrix = columns * np.linalg.solve(columns, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("primaries must not lie on a line") from error
    gains = (BRADFORD @ D50) / (BRADFORD @ white)
    adapted: NDArray[Any] = np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD @ matrix
    return adapted


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(encoded), 28) + encoded
