"""Images and masks as callers give them: files, Pillow images, numpy arrays or torch tensors.

A model sees pixels (C, H, W) whose channels are those of its maps.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.images import CHANNELS_OF_MODE, Image, TextureMap
from gcn_cli.images.color import to_map
from gcn_cli.images.image import UINT16_PER_GRAY_LEVEL, mode_of
from gcn_cli.images.materials import (
    MapKind,
    contradiction,
    find_maps,
    is_data,
    kind_of_map,
    kind_of_name,
    split_kind,
)
from gcn_cli.images.reading import image_from_pillow

log = logging.getLogger(__name__)

GRAY_SPREAD = 16.0  # largest difference of the channels of a gray mask: compression makes some
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
        raise InputError(
            f"{len(parts)} image(s) for a model of {_names(maps)}; give each (--map), or a folder "
            "of them"
        )
    matched = [to_map(open_image(part), map_) for part, map_ in zip(parts, maps, strict=True)]
    for image_, map_ in zip(matched, maps, strict=True):
        if image_.transparent is not None and not map_.mode.endswith("A"):
            log.info("%s: transparent pixels are taken as white", map_.name or "the image")
    opened = [fit_size(part, size, shrink) for part in matched]
    check_same_size(opened, [texture_map.name for texture_map in maps])
    pixels = [part.to_mode(map_.mode) for part, map_ in zip(opened, maps, strict=True)]
    return torch.cat(pixels) if len(pixels) > 1 else pixels[0]


def linked_files(files: Sequence[str], maps: Sequence[TextureMap]) -> list[str]:
    """The files of a model's maps: a single folder stands for those of the kinds of the maps in it.

    Kinds are known by names and by values. Other files, and those for a single map, are returned as
    they are. Raises InputError for a folder that lacks a map, and for one beside files.
    """
    folders = [file for file in files if os.path.isdir(file)]
    if len(maps) < 2 or not folders:
        return list(files)
    folder = folders[0]
    if len(files) > 1:
        raise InputError(f"{folder}: a folder has all maps of an image; leave --map out")
    found, reason = find_maps(images.expand_sources(folders))
    kinds = {kind_of_map(images.read_image(path), path)[0]: path for path in found}
    if all(texture_map.kind and texture_map.kind in kinds for texture_map in maps):
        return [kinds[cast(MapKind, texture_map.kind)] for texture_map in maps]
    named = ", ".join(Path(path).name for path in found) or "the maps of no material"
    raise InputError(
        f"{folder}: has {named}{f', since {reason}' if reason else ''}; the maps of the model are "
        f"{_names(maps)}: give each, the others as --map KIND=FILE"
    )


def linked_images(files: Sequence[str], maps: Sequence[TextureMap]) -> list[Image]:
    """The images of a model's maps, read from files, in the order of the maps.

    That is the order of the files, unless KIND=FILE or the names of all files tell the kinds of the
    maps; a folder is a material. Raises InputError for an image that is not of the kind of its map.
    """
    named = [split_kind(file) for file in linked_files(files, maps)]
    stated, paths = [kind for kind, _ in named], [path for _, path in named]
    opened = [images.read_image(path) for path in paths]
    if len(maps) > 1 and len(opened) == len(maps):  # `to_pixels` refuses another number
        order = _places(stated, paths, maps)
        opened, paths = [opened[k] for k in order], [paths[k] for k in order]
        for image, path, texture_map in zip(opened, paths, maps, strict=True):
            wrong = contradiction(image, texture_map.kind)
            if wrong is None and kind_of_name(path) not in (None, texture_map.kind, *stated):
                log.info(
                    "%s: taken for %s, by the order of the maps (else --map KIND=FILE)",
                    path, texture_map.name,
                )  # fmt: skip
            if wrong is not None:
                raise InputError(
                    f"{path}: taken for {texture_map.kind}, but {wrong}; give {_names(maps)} in "
                    "this order, or as --map KIND=FILE"
                )
    matched = [  # colors keep their profile, to which a repair goes back
        to_map(image, map_) if is_data(map_.kind) else image
        for image, map_ in zip(opened, maps, strict=False)
    ]
    return matched + opened[len(maps) :]


def _places(
    stated: Sequence[str | None], paths: Sequence[str], maps: Sequence[TextureMap]
) -> list[int]:
    """The index of the file of each map, by kinds that are stated, or named by all files."""
    kinds = [texture_map.kind for texture_map in maps]
    wanted = [kind or kind_of_name(path) for kind, path in zip(stated, paths, strict=True)]
    if sorted(kind or "" for kind in wanted) != sorted(kinds):
        wanted = list(stated)
    for kind, path in zip(stated, paths, strict=True):
        if kind is not None and not kinds.count(kind) == wanted.count(kind) == 1:
            raise InputError(
                f"--map {kind}={path}: the maps of the model are {_names(maps)}; give each once"
            )
    single = {kind: k for k, kind in enumerate(wanted) if kind and kinds.count(kind) == 1}
    rest = iter([k for k in range(len(wanted)) if k not in single.values()])
    return [single[kind] if kind in single else next(rest) for kind in kinds]


def _names(maps: Sequence[TextureMap]) -> str:
    return ", ".join(texture_map.name or "an image" for texture_map in maps)


def linked_list(image: LinkedImages) -> list[ImageLike]:
    """A list of the images of linked maps, or of the single image."""
    if isinstance(image, Sequence) and not isinstance(image, str):
        return list(image)
    return [image]


def fit_size(image: Image, size: tuple[int, int] | None, shrink: int | None) -> Image:
    """An image resized to (height, width), or else with a shorter side of at most `shrink`."""
    return image.resized(size) if size is not None else image.shrunk(shrink)


def check_same_size(opened: Sequence[Image], names: Sequence[str], remedy: str = "") -> None:
    """Raise InputError, with the names of linked maps, if they differ in size."""
    for image, name in zip(opened, names, strict=True):
        if image.size != opened[0].size:
            size, first = (f"{width}x{height}" for height, width in (image.size, opened[0].size))
            raise InputError(
                f"{name}: is {size}, {names[0]} {first}; linked maps need one size{remedy}"
            )


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
    if isinstance(mask, Tensor) and mask.ndim == 2:
        mask = mask[None]
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
    marked, kept = (gray > DARK, gray < 255) if soft else (gray >= 128, gray < 128)
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
