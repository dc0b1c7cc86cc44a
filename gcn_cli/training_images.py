"""The training images of one texture, or an image and the maps that are linked to it.

A model sees pixels (C, H, W) whose channels are those of its maps.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.config import MAX_CROP_SHARE, Config, option_text
from gcn_cli.errors import InputError
from gcn_cli.images import Image, SourceFile, TextureMap
from gcn_cli.images.color import fits, profile_name, to_profile
from gcn_cli.images.image import first_channels, green_direction, is_normal_map
from gcn_cli.images.materials import (
    COLOR_KINDS,
    MapKind,
    as_data,
    is_data,
    kind_of_map,
    kind_of_name,
    material_of,
    split_kind,
    y_up_of_name,
)
from gcn_cli.inputs import (
    ImageLike,
    LinkedImages,
    check_same_size,
    fit_size,
    linked_list,
    open_image,
    read_mask,
)
from gcn_cli.options import Alpha, TrainOptions
from gcn_cli.training.data import crop_positions

log = logging.getLogger(__name__)

CLEAR_DIRECTION = 0.1  # of `green_direction`; less is chance


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
        found. Raises InputError for images of which some are y-up, some y-down.
        """
        if not (config.flips or config.rotations):
            return []
        return [
            (first, self._green_is_up(index, first, config))
            for index, first in enumerate(first_channels(self.maps))
            if self.maps[index].normals
        ]

    def _green_is_up(self, index: int, first: int, config: Config) -> bool:
        """Whether green of a normal map points up, as `config.normals`, names or slopes say."""
        texture_map = self.maps[index]
        title = f"map {texture_map.name}" if texture_map.name else "normal map"
        if config.normals == "auto" and not config.rotations:
            log.info("%s: vectors are mirrored with the pixels", title)
            return True  # or down: only x is mirrored
        named, shown = self._directions(index, first)
        found = [s if n is None else n for n, s in zip(named, shown, strict=True)]
        clear = [y_up for y_up in found if y_up is not None]
        y_up = (
            2 * sum(clear) >= len(clear) if config.normals == "auto" else config.normals == "y-up"
        )
        sense, other = ("y-up", "y-down") if y_up else ("y-down", "y-up")
        others = clear.count(not y_up)
        if config.normals != "auto":
            log.info("%s: vectors turn with the pixels", title)
        elif not clear:
            log.warning(
                "%s: vectors turn with the pixels, as y-up, which its slopes leave open; "
                "--normals y-up or y-down tells",
                title,
            )
        elif others:
            raise InputError(
                f"--rotations: {others} of {len(found)} normal maps look {other}, the rest "
                f"{sense}; invert green of some, or name what all are (--normals)"
            )
        else:
            log.info(
                "%s: vectors turn with the pixels, %s as %s (else --normals %s)",
                title, sense, "its name says" if y_up in named else "found", other,
            )  # fmt: skip
        return y_up

    def _directions(self, index: int, first: int) -> tuple[list[bool | None], list[bool | None]]:
        """Whether green of a normal map points up, of each image: by its name, by its slopes."""
        files = self.titles[index : index + 1] if len(self.maps) > 1 else self.titles
        slopes = [
            green_direction(image[first : first + 3], known)
            for image, known in zip(self.images, self.known, strict=True)
        ]
        shown = [value > 0 if abs(value) > CLEAR_DIRECTION else None for value in slopes]
        return [y_up_of_name(file) for file in files], shown

    def with_directions(self, config: Config) -> "TrainingImages":
        """The same with `y_up` of the normal maps, None if it is open.

        Logs a name or --normals that the slopes contradict. Raises InputError for `config.normals`
        without a normal map.
        """
        if config.normals != "auto" and not any(one.normals for one in self.maps):
            raise InputError(
                f"{option_text('normals', config.normals)}: no image is a normal map, whose colors "
                "are vectors of length 1 (blue is up); leave it out"
            )
        maps = list(self.maps)
        for index, first in enumerate(first_channels(maps)):
            texture_map = maps[index]
            if texture_map.normals:
                named, shown = self._directions(index, first)
                for file, name, slopes in zip(self.titles[index:], named, shown, strict=False):
                    if config.normals == "auto" and None not in (name, slopes) and name != slopes:
                        senses = ("up", "down") if name else ("down", "up")
                        log.warning(
                            "%s: its name says y-%s, its slopes look y-%s; the name counts, rename "
                            "the file if it is wrong", file, *senses,
                        )  # fmt: skip
                found = {s if n is None else n for n, s in zip(named, shown, strict=True)} - {None}
                y_up = found.pop() if len(found) == 1 else None
                if config.normals != "auto":
                    y_up = config.normals == "y-up"
                    if (not y_up) in (*named, *shown):
                        log.warning(
                            "--normals %s: the %s of %s look y-%s", config.normals,
                            "slopes" if (not y_up) in shown else "name",
                            f"map {texture_map.name}" if texture_map.name else "normal map",
                            "down" if y_up else "up",
                        )  # fmt: skip
                maps[index] = replace(texture_map, y_up=y_up)
        return replace(self, maps=tuple(maps))


def load_training_images(
    sources: LinkedImages, options: TrainOptions, config: Config
) -> TrainingImages:
    """The training images: of one texture, or one image and the maps linked to it.

    sources: images; a folder stands for the images in it, or is a material: an image and its maps.
    options: `linked`, `mask` and `alpha`. config: `channels`, `size`, `shrink` and `crop`; without
    crops all images get one size, a multiple of `size_multiple`. Raises InputError if the images do
    not fit together.
    """
    alpha = options.alpha
    if alpha not in get_args(Alpha):
        raise InputError(f"--alpha {alpha}: must be one of {', '.join(get_args(Alpha))}")
    if config.channels not in (None, 1, 3):
        raise InputError(
            f"{option_text('channels', config.channels)}: must be 1, 3, or 0 as the images have"
        )
    expanded, kinds = _gather(sources, options, config)
    linked = len(kinds) > 1
    titles = [str(s) if isinstance(s, str | Path) else "an image" for s in expanded]
    opened = [open_image(source) for source in expanded]
    if linked:
        opened, found = _link(opened, titles, kinds, config.channels)
    else:
        normals = _normals_among(opened, config.channels)
        found = [("normal" if all(normals) else "", "")]
        if config.is_texture and any(normals) and not all(normals):
            log.warning(
                "%s is a normal map, %s is not: both are learned as images of one texture; if they "
                "are maps of a material, train on the albedo with --map KIND=FILE for each other",
                titles[normals.index(True)], titles[normals.index(False)],
            )  # fmt: skip
        opened = _match_colors(opened, titles, found[0][0], config.channels)
    hidden = None if options.mask is None else read_mask(options.mask, opened[0].size)
    size = (config.size, config.size) if config.size else None
    opened = [fit_size(image, size, config.shrink) for image in opened]
    if config.crop is None and not linked and hidden is None:
        opened = _resize_to_common_size(opened, config.size_multiple)
    if alpha != "drop":
        _refuse_invisible(opened, titles)
    alpha = _resolve_alpha(alpha, opened, config.crop)
    if linked:
        maps = _describe_linked(expanded, opened, found, alpha, config.channels)
        pairs = zip(opened, maps, strict=True)
    else:
        maps = [_describe(opened, "", found[0][0], alpha, config.channels)]
        pairs = zip(opened, maps * len(opened), strict=True)
    pixels = [_channels(image, texture_map, alpha) for image, texture_map in pairs]
    known = [_known(image, alpha) for image in opened]
    if linked:
        pixels, known = [torch.cat(pixels)], [torch.stack(known).all(dim=0)]
    if hidden is not None:
        # Resized by antialiasing: a pixel that is partly hidden is unknown.
        covered = Image(255.0 * hidden[None], "L").resized(opened[0].size).pixels[0] > 0
        known[0] = known[0] & ~covered
    _refuse_unknown(known, titles, alpha, masked=hidden is not None)
    files = [s for s in expanded if isinstance(s, str | Path) and Path(s).is_file()]  # no pipes
    origins = tuple(map(SourceFile.of, files))
    result = TrainingImages(pixels, known, tuple(maps), origins, tuple(titles))
    result = result.with_directions(config)
    if linked:
        _tell_maps(result, [reason for _, reason in found], kinds, config)
    return result


def _gather(
    sources: LinkedImages, options: TrainOptions, config: Config
) -> tuple[list[ImageLike], list[MapKind | None]]:
    """All images, and the kinds that KIND=FILE states, of the first and each map linked to it.

    Raises InputError for none, for one given twice, and for options of a single image.
    """
    given, expanded = linked_list(sources), list[ImageLike]()
    for source in given:
        is_path = isinstance(source, str | Path)
        expanded += images.expand_sources([str(source)]) if is_path else [source]
    if not expanded:
        raise InputError("no images: give one or more to learn from")
    for path, count in Counter(source for source in expanded if isinstance(source, str)).items():
        if count > 1:
            raise InputError(f"{path}: given twice; name each image once")
    if config.is_texture and not options.linked and len(given) == 1 and len(expanded) > 1:
        material = material_of([str(path) for path in expanded], str(given[0]))
        if material:
            return list(material), [None] * len(material)
    for is_given, flag in ((bool(options.linked), "--map"), (options.mask is not None, "--mask")):
        if is_given and len(expanded) > 1:
            raise InputError(f"{flag}: goes with one image, not with {len(expanded)}")
    kinds: list[MapKind | None] = [None]
    for source in options.linked:
        kind, path = split_kind(source) if isinstance(source, str) else (None, source)
        kinds.append(kind)
        expanded.append(path)
    return expanded, kinds


def _normals_among(opened: Sequence[Image], channels: int | None) -> list[bool]:
    """Which images of one texture are normal maps."""
    in_color = _in_color(opened, channels)
    return [in_color and is_normal_map(image.to_mode("RGB")) for image in opened]


def _link(
    opened: Sequence[Image],
    titles: Sequence[str],
    stated: Sequence[MapKind | None],
    channels: int | None,
) -> tuple[list[Image], list[tuple[str, str]]]:
    """Images of linked maps with the values that are learned; the kind of each, and why."""
    images, found = list[Image](), list[tuple[str, str]]()
    no_albedo = "albedo" not in (*stated, *map(kind_of_name, titles))
    for image, title, kind in zip(opened, titles, stated, strict=True):
        guess = no_albedo and all(other != "albedo" for other, _ in found)
        found.append(kind_of_map(image, title, kind, albedo=guess))
        if found[-1][0] == "normal" and channels == 1:
            found[-1] = "", "gray as --set channels=1 says"
        images += _match_colors([image], [title], found[-1][0], channels)
    return images, found


def _match_colors(
    opened: list[Image], titles: Sequence[str], kind: str, channels: int | None
) -> list[Image]:
    """Images of one color profile, the most common one of those that fit what is learned.

    The values of data maps stay as they are. Logs how many images are converted.
    """
    if is_data(kind):
        return [as_data(image, kind, title) for image, title in zip(opened, titles, strict=True)]
    in_color = _in_color(opened, channels)
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
    sources: Sequence[ImageLike],
    opened: Sequence[Image],
    found: Sequence[tuple[str, str]],
    alpha: Alpha,
    channels: int | None,
) -> list[TextureMap]:
    """The map that each image is, named by its kind, or after its file."""
    stems = [
        Path(source).stem
        if isinstance(source, str | Path) and str(source) != "-"
        else f"map{index + 1}"
        for index, source in enumerate(sources)
    ]
    kinds = [kind for kind, _ in found]
    taken = [stem for stem, kind in zip(stems, kinds, strict=True) if kinds.count(kind or "") != 1]
    names = [
        kind if kind and kinds.count(kind) == 1 and kind not in taken else stem
        for stem, kind in zip(stems, kinds, strict=True)
    ]
    if len(set(names)) < len(names):
        raise InputError(f"--map: two maps of one name among {', '.join(names)}; rename one")
    check_same_size(opened, names, "; --resize N gives it")
    return [
        _describe([image], name, kind, alpha, channels)
        for image, name, kind in zip(opened, names, kinds, strict=True)
    ]


def _tell_maps(
    images: TrainingImages, reasons: Sequence[str], stated: Sequence[MapKind | None], config: Config
) -> None:
    """Log what each linked map was taken for, and how to say otherwise."""
    for index, (one, title) in enumerate(zip(images.maps, images.titles, strict=True)):
        text = f"{Path(title).name}, {one.mode}, {one.bit_depth} bits, {reasons[index]}"
        if one.normals and one.y_up is None:
            text += ", y-up or y-down"
        elif one.normals:
            evidence = "slopes" if y_up_of_name(title) is None else "name"
            text += ", y-up" if one.y_up else ", y-down"
            text += f" by its {evidence}" if config.normals == "auto" else " by --normals"
        is_open = index > 0 and stated[index] is None
        log.info("map %s: %s%s", one.name, text, " (else --map KIND=FILE)" if is_open else "")


def _describe(
    opened: Sequence[Image], name: str, kind: str, alpha: Alpha, channels: int | None
) -> TextureMap:
    """The map that these images are, after `_match_colors`."""
    in_color = _in_color(opened, channels if kind in ("", "normal", *COLOR_KINDS) else None)
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
        icc_profile=profiles.pop() if len(profiles) == 1 else None,
        dpi=resolutions.pop() if len(resolutions) == 1 else None,
        kind=kind,
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


def _known(image: Image, alpha: Alpha) -> Tensor:
    """Mask (H, W) of the pixels that are learned."""
    transparent = image.transparent if alpha == "mask" else None
    return torch.ones(image.size, dtype=torch.bool) if transparent is None else ~transparent


def _refuse_invisible(opened: Sequence[Image], titles: Sequence[str]) -> None:
    """Raise InputError for an image that is wholly transparent."""
    for image, title in zip(opened, titles, strict=True):
        if image.has_alpha and not bool(image.pixels[-1].any()):
            raise InputError(
                f"{title}: is wholly transparent, nothing to learn; leave it out, or place it on "
                "white with --alpha drop"
            )


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
