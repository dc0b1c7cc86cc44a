"""Images as callers give them, and the training images made of them.

Callers give files, Pillow images, numpy arrays or torch tensors. A model sees pixels (C, H, W)
whose channels are those of its maps.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli import images
from gcn_cli.config import MAX_CROP_SHARE, Config, option_text
from gcn_cli.errors import InputError
from gcn_cli.images import CHANNELS_OF_MODE, Image, SourceFile, TextureMap
from gcn_cli.images.color import fits, profile_name, to_map, to_profile
from gcn_cli.images.image import UINT16_PER_GRAY_LEVEL, green_direction, is_normal_map, mode_of
from gcn_cli.images.reading import image_from_pillow
from gcn_cli.options import Alpha, TrainOptions
from gcn_cli.training.data import crop_positions

log = logging.getLogger(__name__)

GRAY_SPREAD = 16.0  # largest difference of the channels of a gray mask: compression makes some
CLEAR_DIRECTION = 0.1  # of `green_direction`; less is chance
DARK, BRIGHT, MAX_BETWEEN = 32.0, 223.0, 0.5  # grays of a mask, and the share of those between

Array = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.floating]
ImageLike = str | Path | PillowImage.Image | Array | Tensor | Image
"""A path ("-" is standard input), a Pillow image, an array (H, W) or (H, W, C), or a tensor
(C, H, W). Values are uint8, uint16 in 0..65535, or floating point in 0..255; 1 to 4 channels."""

LinkedImages = ImageLike | Sequence[ImageLike]
"""An image, or one for each linked map of a model; a tensor may hold the channels of all maps."""

OutputKind = Literal["pillow", "numpy", "torch"]
"""The type of images returned: 8-bit Pillow images, arrays (H, W, C) of uint8, or tensors
(C, H, W) of float32, neither rounded nor clipped to 0..255."""


def open_image(image: ImageLike) -> Image:
    """An image of any type, in memory. Raises InputError if it cannot be read."""
    if isinstance(image, Image):
        return image
    if isinstance(image, str | Path):
        return images.read_image(str(image))
    if isinstance(image, PillowImage.Image):
        return image_from_pillow(image)
    pixels, bit_depth = _array_pixels(image)
    if len(pixels) not in CHANNELS_OF_MODE.values():
        raise _shape_error(image)
    return Image(pixels, mode_of(len(pixels)), bit_depth)


def _array_pixels(values: Array | Tensor) -> tuple[Tensor, int]:
    """Pixels (C, H, W), float32 in 0..255, and bits per channel (32 for fractions)."""
    if isinstance(values, Tensor):
        is_uint8, is_uint16 = values.dtype == torch.uint8, values.dtype == torch.uint16
        pixels = values.detach().float().cpu()
    else:
        is_uint8, is_uint16 = values.dtype == np.uint8, values.dtype == np.uint16
        pixels = torch.from_numpy(np.asarray(values, dtype=np.float32))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise _shape_error(values)
    if not bool(torch.isfinite(pixels).all()):
        raise InputError("an image with values that are not finite")
    is_integer = is_uint8 or is_uint16 or not _is_floating(values)
    if not is_integer and 0 < float(pixels.abs().max()) <= 1:
        raise InputError(
            f"an image with values from {pixels.min():.3g} to {pixels.max():.3g}: floating point "
            "is in 0..255; multiply values in 0..1 by 255"
        )
    if is_uint16:
        return (pixels / UINT16_PER_GRAY_LEVEL).contiguous(), 16
    is_whole = is_uint8 or bool((pixels == pixels.round().clamp(0, 255)).all())
    return pixels.contiguous(), 8 if is_whole else 32


def _is_floating(values: Array | Tensor) -> bool:
    if isinstance(values, Tensor):
        return values.is_floating_point()
    return bool(np.issubdtype(values.dtype, np.floating))


def _shape_error(values: Array | Tensor) -> InputError:
    return InputError(
        f"an image of shape {tuple(values.shape)}: arrays are (H, W) or (H, W, C), tensors "
        "(C, H, W), with 1 to 4 channels"
    )


def to_pixels(
    image: LinkedImages,
    maps: Sequence[TextureMap],
    size: tuple[int, int] | None = None,
    shrink: int | None = None,
) -> Tensor:
    """An image, or linked images, as pixels (C, H, W) with the channels of `maps`.

    size: (height, width) to resize to; without it, `shrink` limits the shorter side. Raises
    InputError if an image of a map is missing or the sizes differ.
    """
    channels = sum(texture_map.channels for texture_map in maps)
    if isinstance(image, Tensor) and len(image) == channels and size is None and shrink is None:
        return _array_pixels(image)[0]
    parts = linked_list(image)
    if len(parts) != len(maps):
        names = ", ".join(texture_map.name or "an image" for texture_map in maps)
        raise InputError(f"{len(parts)} image(s) for a model of {names}; give each (--map)")
    matched = [to_map(open_image(part), map_) for part, map_ in zip(parts, maps, strict=True)]
    opened = [_fit(part, size, shrink) for part in matched]
    _check_same_size(opened, [texture_map.name for texture_map in maps])
    pixels = [part.to_mode(map_.mode) for part, map_ in zip(opened, maps, strict=True)]
    return torch.cat(pixels) if len(pixels) > 1 else pixels[0]


def linked_list(image: LinkedImages) -> list[ImageLike]:
    """A list of the images of linked maps, or of the single image."""
    if isinstance(image, Sequence) and not isinstance(image, str):
        return list(image)
    return [image]


def _fit(image: Image, size: tuple[int, int] | None, shrink: int | None) -> Image:
    return image.resized(size) if size is not None else image.shrunk(shrink)


def _check_same_size(opened: Sequence[Image], names: Sequence[str]) -> None:
    for image, name in zip(opened, names, strict=True):
        if image.size != opened[0].size:
            size, first = (f"{width}x{height}" for height, width in (image.size, opened[0].size))
            raise InputError(f"{name}: is {size}, {names[0]} {first}; linked maps need one size")


def split_batch(images: LinkedImages) -> list[ImageLike] | None:
    """The images of a batch, a tensor (N, C, H, W) or an array (N, H, W, C); None for others."""
    if not isinstance(images, Tensor | np.ndarray) or images.ndim != 4:
        return None
    if not len(images):
        raise InputError("a batch without images")
    return list(images)


def differentiable_images(image: LinkedImages, maps: Sequence[TextureMap]) -> LinkedImages:
    """A tensor (C, H, W) that requires a gradient as images that keep it, one for each map.

    Others are returned as they are. They are resized and converted without rounding.
    """
    if not isinstance(image, Tensor) or not image.requires_grad:
        return image
    pixels, channels = image, sum(texture_map.channels for texture_map in maps)
    _array_pixels(image)  # checks the values
    if len(pixels) != channels:
        return Image(pixels, open_image(image).mode, 32)
    parts = zip(images.split_maps(pixels.float(), maps), maps, strict=True)
    return [Image(part, texture_map.mode, 32) for part, texture_map in parts]


def convert_output(
    pixels: Tensor, kind: OutputKind, icc_profile: bytes | None = None
) -> PillowImage.Image | NDArray[np.uint8] | Tensor:
    """Pixels (C, H, W) in 0..255 as an image of this type, a Pillow image with the profile.

    Raises InputError for an unknown kind, and for more channels than an image has.
    """
    if kind == "torch":
        return pixels
    if kind not in ("pillow", "numpy"):
        raise InputError(f"kind {kind}: must be pillow, numpy or torch")
    if len(pixels) > max(CHANNELS_OF_MODE.values()):
        raise InputError(f"kind {kind}: linked maps come as one tensor; use torch and Model.split")
    image = images.to_pillow(pixels, icc_profile)
    return image if kind == "pillow" else np.atleast_3d(np.asarray(image))


def open_mask(mask: ImageLike, size: tuple[int, int] | None = None, *, soft: bool = False) -> Image:
    """The image of a mask: gray, white where something is hidden, made anew or blended in.

    size: (height, width) that it must have. soft: grays are weights, else either black or white.
    Raises InputError, with what was seen, for another size, for colors, for transparency, and for a
    mask that marks nothing or everything.
    """
    if isinstance(mask, np.ndarray | Tensor) and mask.dtype in (np.bool_, torch.bool):
        mask = 255.0 * mask
    image = open_image(mask)
    title = f"--mask {mask}" if isinstance(mask, str | Path) else "--mask"
    if size not in (None, image.size):
        given, expected = (f"{width}x{height}" for height, width in (image.size, size))
        raise InputError(f"{title}: is {given}, the image {expected}; make both one size")
    remedy = "paint what to hide, repair or blend in white, and the rest black"
    if image.transparent is not None:
        share = float(image.transparent.float().mean())
        raise InputError(f"{title}: {share:.1%} is transparent; flatten it: {remedy}")
    colors = image.without_alpha().pixels
    spread = colors.amax(dim=0) - colors.amin(dim=0)
    if float(spread.max()) > GRAY_SPREAD:
        share = float((spread > GRAY_SPREAD).float().mean())
        row, column = divmod(int(spread.argmax()), spread.shape[1])
        color = ",".join(f"{value:.0f}" for value in colors[:, row, column].tolist())
        raise InputError(
            f"{title}: {share:.1%} is colored, as R,G,B {color} at {column},{row}; a mask is gray: "
            f"{remedy}"
        )
    gray = image.to_mode("L")
    marked, kept = (gray > 0, gray < 255) if soft else (gray >= 128, gray < 128)
    if not bool(marked.any()):
        raise InputError(
            f"{title}: is white nowhere, its brightest value is {gray.max():.0f} of 255, so it "
            f"marks nothing; {remedy}, or leave it out"
        )
    if not bool(kept.any()):
        raise InputError(f"{title}: is white everywhere, so it hides everything; {remedy}")
    between = float(((gray > DARK) & (gray < BRIGHT)).float().mean())
    if not soft and between > MAX_BETWEEN:
        raise InputError(
            f"{title}: {between:.0%} is neither black nor white, as in a photo; {remedy}"
        )
    return image


def read_mask(mask: ImageLike, size: tuple[int, int]) -> Tensor:
    """Mask (H, W), bool: where the mask image is more white than black.

    Raises InputError as `open_mask` does; `size` is (height, width).
    """
    return open_mask(mask, size).to_mode("L")[0] >= 128


def read_repair_mask(image: Image, mask: ImageLike) -> Tensor:
    """Mask (H, W), bool, of the pixels to repair: from a mask image, or "alpha" of the image.

    Raises InputError for a mask of another size, or an image without alpha, or with the same alpha
    everywhere.
    """
    if not (isinstance(mask, str) and mask == "alpha"):
        return read_mask(mask, image.size)
    if not image.has_alpha:
        raise InputError("--mask alpha: the image has no transparency; name a mask image")
    missing = image.pixels[-1] < 128
    if bool(missing.all()) or not bool(missing.any()):
        seen = "everything is transparent" if bool(missing.all()) else "nothing is transparent"
        raise InputError(f"--mask alpha: {seen} (alpha below 128); name a mask image")
    return missing


@dataclass(frozen=True)
class TrainingImages:
    """Images (C, H, W) in 0..255, masks (H, W) of known pixels, and the maps of the channels.

    sources: the files that the images are from. titles: how messages name the images, or the
    linked maps.
    """

    images: list[Tensor]
    known: list[Tensor]
    maps: tuple[TextureMap, ...]
    sources: tuple[SourceFile, ...] = ()
    titles: tuple[str, ...] = ("an image",)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of sizes and pixels, unknown ones included: names the images in a model file."""
        digest = hashlib.sha256()
        for image, known in zip(self.images, self.known, strict=True):
            digest.update(str(tuple(image.shape)).encode())
            marked = image.masked_fill(~known, torch.nan)
            values = marked.cpu().permute(1, 2, 0).contiguous().numpy()
            rounded = values.round().clip(0, 255)
            whole = bool((rounded == values).all())  # never if pixels are unknown
            digest.update(rounded.astype("uint8").tobytes() if whole else values.tobytes())
        return digest.hexdigest()

    def normal_maps(self, config: Config) -> list[tuple[int, bool]]:
        """The channel of red of each normal map, and whether its green points up.

        Empty where images are neither flipped nor rotated, so that no vector turns. Logs what is
        found. Raises InputError for `config.normals` without a normal map, and for images of which
        some are y-up, some y-down.
        """
        if not (config.flips or config.rotations):
            return []
        found, first = [], 0
        for texture_map in self.maps:
            if texture_map.normals:
                found.append((first, self._green_is_up(texture_map, first, config)))
            first += texture_map.channels
        if config.normals != "auto" and not found:
            raise InputError(
                f"{option_text('normals', config.normals)}: no image is a normal map, whose colors "
                "are vectors of length 1 (blue is up); leave it out"
            )
        return found

    def _green_is_up(self, texture_map: TextureMap, first: int, config: Config) -> bool:
        """Whether green of a normal map points up, as `config.normals` or its slopes say."""
        title = f"map {texture_map.name}" if texture_map.name else "normal map"
        if config.normals == "auto" and not config.rotations:
            log.info("%s: vectors are mirrored with the pixels", title)
            return True  # or down: only x is mirrored
        directions = [
            green_direction(image[first : first + 3], known)
            for image, known in zip(self.images, self.known, strict=True)
        ]
        clear = [value for value in directions if abs(value) > CLEAR_DIRECTION]
        y_up = sum(directions) >= 0 if config.normals == "auto" else config.normals == "y-up"
        sense, other = ("y-up", "y-down") if y_up else ("y-down", "y-up")
        others = sum((value > 0) != y_up for value in clear)
        if config.normals != "auto":
            log.info("%s: vectors turn with the pixels", title)
            if others:
                log.warning("--normals %s: the slopes of %s look %s", sense, title, other)
        elif not clear:
            log.warning(
                "%s: vectors turn with the pixels, as y-up, which its slopes leave open; "
                "--normals y-up or y-down tells",
                title,
            )
        elif others:
            raise InputError(
                f"--rotations: {others} of {len(directions)} normal maps look {other}, the rest "
                f"{sense}; invert green of some, or name what all are (--normals)"
            )
        else:
            log.info(
                "%s: vectors turn with the pixels, %s as found (else --normals %s)",
                title, sense, other,
            )  # fmt: skip
        return y_up


def load_training_images(
    sources: LinkedImages, options: TrainOptions, config: Config
) -> TrainingImages:
    """The training images: of one texture, or one image and the maps linked to it.

    sources: images; a folder stands for the images in it. options: `linked`, `mask` and `alpha`.
    config: `channels`, `size`, `shrink` and `crop`; without crops all images get one size, a
    multiple of `size_multiple`. Raises InputError if the images do not fit together.
    """
    alpha, linked = options.alpha, list(options.linked)
    if alpha not in get_args(Alpha):
        raise InputError(f"--alpha {alpha}: must be one of {', '.join(get_args(Alpha))}")
    if config.channels not in (None, 1, 3):
        raise InputError(
            f"{option_text('channels', config.channels)}: must be 1, 3, or 0 as the images have"
        )
    expanded = _expand(sources)
    for is_given, flag in ((bool(linked), "--map"), (options.mask is not None, "--mask")):
        if is_given and len(expanded) > 1:
            raise InputError(f"{flag}: goes with one image, not with {len(expanded)}")
    expanded += linked
    titles = [str(s) if isinstance(s, str | Path) else "an image" for s in expanded]
    opened = [open_image(source) for source in expanded]
    opened = (
        [_match_colors([one], config.channels)[0] for one in opened]
        if linked
        else (_match_colors(opened, config.channels))
    )
    hidden = None if options.mask is None else read_mask(options.mask, opened[0].size)
    size = (config.size, config.size) if config.size else None
    opened = [_fit(image, size, config.shrink) for image in opened]
    if config.crop is None and not linked and hidden is None:
        opened = _resize_to_common_size(opened, config.size_multiple)
    for image, title in zip(opened, titles, strict=True):
        if alpha != "drop" and image.has_alpha and not bool(image.pixels[-1].any()):
            raise InputError(
                f"{title}: is wholly transparent, nothing to learn; leave it out, or place it on "
                "white with --alpha drop"
            )
    alpha = _resolve_alpha(alpha, opened, config.crop)
    pixels, known = [], []
    if linked:
        maps = _describe_linked(expanded, opened, alpha, config.channels)
    else:
        maps = [_describe(opened, "", alpha, config.channels)]
    for image, texture_map in zip(opened, maps if linked else maps * len(opened), strict=True):
        pixels.append(_channels(image, texture_map, alpha))
        transparent = image.transparent if alpha == "mask" else None
        opaque = torch.ones(image.size, dtype=torch.bool)
        known.append(opaque if transparent is None else ~transparent)
    if linked:
        pixels, known = [torch.cat(pixels)], [torch.stack(known).all(dim=0)]
    if hidden is not None:
        # Resized by antialiasing: a pixel that is partly hidden is unknown.
        covered = Image(255.0 * hidden[None], "L").resized(opened[0].size).pixels[0] > 0
        known[0] = known[0] & ~covered
    _refuse_unknown(known, titles, alpha, masked=hidden is not None)
    files = [s for s in expanded if isinstance(s, str | Path) and str(s) != "-"]
    origins = tuple(map(SourceFile.of, files))
    return TrainingImages(pixels, known, tuple(maps), origins, tuple(titles))


def _expand(sources: LinkedImages) -> list[ImageLike]:
    """The images of `sources`, with folders replaced by the images in them."""
    expanded: list[ImageLike] = []
    for source in linked_list(sources):
        is_path = isinstance(source, str | Path)
        expanded += images.expand_sources([str(source)]) if is_path else [source]
    if not expanded:
        raise InputError("no images: give one or more to learn from")
    for path, count in Counter(source for source in expanded if isinstance(source, str)).items():
        if count > 1:
            raise InputError(f"{path}: given twice; name each image once")
    return expanded


def _match_colors(opened: list[Image], channels: int | None) -> list[Image]:
    """Images of one color profile, the most common one of those that fit what is learned.

    Normal maps stay as they are. Logs how many images are converted.
    """
    in_color = _in_color(opened, channels)
    if in_color and all(is_normal_map(image.to_mode("RGB")) for image in opened):
        return opened
    managed = [image.icc_profile for image in opened if image.color_managed]
    candidates = [profile for profile in managed if fits(profile, 3 if in_color else 1)]
    profile = Counter(candidates).most_common(1)[0][0] if candidates else None
    matched = [to_profile(image, profile) for image in opened]
    count = sum(one is not image for one, image in zip(matched, opened, strict=True))
    if count:
        log.info(
            "%d of %d image(s) have another color profile: converted to %s",
            count, len(opened), profile_name(profile),
        )  # fmt: skip
    return [replace(one, icc_profile=profile) if one.color_managed else one for one in matched]


def _in_color(opened: Sequence[Image], channels: int | None) -> bool:
    """Whether colors are learned: if one image is in color, unless `channels` says."""
    if channels is not None:
        return channels == 3
    return any(image.mode.startswith("RGB") for image in opened)


def _resize_to_common_size(opened: list[Image], multiple: int) -> list[Image]:
    """Images of one size: that of more than half of them, or else the largest common square.

    Sides are multiples of `multiple`. Other proportions are cropped about the center.
    """
    sizes = Counter(image.size for image in opened)
    (height, width), count = sizes.most_common(1)[0]
    if 2 * count <= len(opened):
        height = width = min(min(size) for size in sizes)
        height = width = max(multiple, height // multiple * multiple)
    size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if set(sizes) == {size}:
        return opened
    log.info(
        "%d of %d images are of other sizes: their center is resized to %dx%d (--resize)",
        len(opened) - sizes[size], len(opened), size[1], size[0],
    )  # fmt: skip
    return [image.center_crop(size).resized(size) for image in opened]


def _resolve_alpha(alpha: Alpha, opened: Sequence[Image], crop: int | None) -> Alpha:
    """The meaning of transparency: "auto" is resolved by the share of fully opaque crops.

    If 5 % or more of the crop positions are free of transparent pixels, these are holes (mask);
    fewer, and transparency is part of the texture (channel).
    """
    if alpha != "auto":
        return alpha
    if all(image.transparent is None for image in opened):
        return "drop"
    free = positions = 0
    for image in opened:
        height, width = image.size
        side = min(height, width)
        if crop is not None:
            side = min(crop, int(MAX_CROP_SHARE * side))
        opaque = image.pixels[-1] >= 255 if image.has_alpha else torch.ones(image.size).bool()
        free += len(crop_positions(opaque, side))
        positions += (height - side + 1) * (width - side + 1)
    if free >= 0.05 * positions:
        log.info("transparency: unknown pixels, nothing is learned there (--alpha mask)")
        return "mask"
    log.info("transparency: one more channel (--alpha channel)")
    return "channel"


def _describe_linked(
    sources: Sequence[ImageLike], opened: Sequence[Image], alpha: Alpha, channels: int | None
) -> list[TextureMap]:
    """The map that each image is, named after its file; logs them."""
    maps = []
    for index, (source, image) in enumerate(zip(sources, opened, strict=True)):
        name = f"map{index + 1}"
        if isinstance(source, str | Path) and str(source) != "-":
            name = Path(source).stem
        maps.append(_describe([image], name, alpha, channels))
    names = [texture_map.name for texture_map in maps]
    if len(set(names)) < len(names):
        raise InputError(f"--map: two maps of one name among {', '.join(names)}; rename one")
    _check_same_size(opened, names)
    for one in maps:
        suffix = ", normals" if one.normals else ""
        log.info("map %s: %s, %d bits%s", one.name, one.mode, one.bit_depth, suffix)
    return maps


def _describe(opened: Sequence[Image], name: str, alpha: Alpha, channels: int | None) -> TextureMap:
    """The map that these images are, after `_match_colors`."""
    in_color = _in_color(opened, channels)
    mode = "RGB" if in_color else "L"
    files = [image for image in opened if image.color_managed]
    profiles = {image.icc_profile for image in files} - {None}
    resolutions = {image.dpi for image in files}
    if len(resolutions) > 1:
        log.info("the images differ in physical size (pHYs): samples have none")
    has_alpha = alpha == "channel" and any(image.transparent is not None for image in opened)
    return TextureMap(
        name,
        mode + "A" if has_alpha else mode,
        bit_depth=16 if any(image.bit_depth == 16 for image in opened) else 8,
        normals=in_color and all(is_normal_map(image.to_mode("RGB")) for image in opened),
        icc_profile=profiles.pop() if len(profiles) == 1 else None,
        dpi=resolutions.pop() if len(resolutions) == 1 else None,
    )


def _channels(image: Image, texture_map: TextureMap, alpha: Alpha) -> Tensor:
    """The channels (C, H, W) that a model learns of an image."""
    if image.transparent is None or alpha == "drop":
        return image.to_mode(texture_map.mode)
    if alpha == "mask":
        return image.without_alpha().to_mode(texture_map.mode)
    # The color of an invisible pixel is arbitrary: it becomes the mean of the visible colors.
    pixels = image.to_mode(texture_map.mode)
    colors, opacity = pixels[:-1], pixels[-1:]
    mean = (colors * (opacity / opacity.sum())).sum(dim=(1, 2))[:, None, None]
    return torch.cat([torch.where(opacity > 0, colors, mean), opacity])


def _refuse_unknown(
    known: Sequence[Tensor], titles: Sequence[str], alpha: Alpha, *, masked: bool
) -> None:
    """Raise InputError for a mask (H, W) without a known pixel."""
    for mask, title in zip(known, titles, strict=False):  # linked maps have one mask
        if bool(mask.any()):
            continue
        if not masked:
            raise InputError(
                f"{title}: --alpha mask leaves no pixel that is wholly opaque, nothing to learn; "
                "use --alpha channel or --alpha drop"
            )
        remedy = "; --alpha drop keeps transparent pixels" if alpha == "mask" else ""
        raise InputError(f"--mask: covers all of {title}; paint the parts to learn black{remedy}")
