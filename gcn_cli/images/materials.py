"""What the maps of a material are, as the names of their files and their values say."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Literal, get_args

import torch

from gcn_cli.errors import InputError
from gcn_cli.images.image import Image, is_normal_map

log = logging.getLogger(__name__)

MapKind = Literal[
    "albedo", "normal", "roughness", "metalness", "height", "ao", "emission", "opacity"
]
MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)
COLOR_KINDS = ("albedo", "emission")
"""Maps whose values are colors; those of other kinds are data, which have no color profile."""
EQUAL_CHANNELS = 2.0  # largest difference of the channels of a gray image: compression makes some

_WORDS_OF_KINDS: dict[MapKind, str] = {
    "albedo": "albedo alb basecolor color colour col diffuse diff dif",
    "normal": "normal normals nor norm nrm nml normalgl normaldx",
    "roughness": "roughness rough rgh",
    "metalness": "metalness metallic metal metallness mtl",
    "height": "height displacement displace disp bump depth",
    "ao": "ao occlusion ambientocclusion occ",
    "emission": "emission emissive emit",
    "opacity": "opacity alpha transparency",
}
_WORDS = {word: kind for kind, words in _WORDS_OF_KINDS.items() for word in words.split()}
_LETTERS: dict[str, MapKind] = {
    "bc": "albedo", "d": "albedo", "n": "normal", "r": "roughness", "m": "metalness", "h": "height",
}  # fmt: skip
"""Endings such as that of T_bark_N.png, which count as the last word of several."""
_PREVIEWS = {"preview", "thumb", "thumbnail", "render", "sphere"}
_OTHER_MAPS = {"orm", "arm", "rma", "mra", "ord", "spec", "specular", "gloss", "glossiness"}
_Y_UP = {"gl": True, "opengl": True, "normalgl": True, "dx": False, "directx": False,
         "normaldx": False}  # fmt: skip


def kind_of_name(name: str) -> MapKind | None:
    """The kind of map that a file's name states, such as bark_nor_gl_1k.png; None if none.

    Of several words the last one counts: wood_rough_diff.png is an albedo.
    """
    words = _words(name)
    if len(words) > 1 and words[-1] in _LETTERS:
        return _LETTERS[words[-1]]
    kinds = [_WORDS[word] for word in words if word in _WORDS]
    return kinds[-1] if kinds else None


def y_up_of_name(name: str) -> bool | None:
    """Whether a name states that green of normals points up (gl) or down (dx); None if neither."""
    directions = [_Y_UP[word] for word in _words(name) if word in _Y_UP]
    return directions[-1] if directions else None


def _words(name: str) -> list[str]:
    """The words of a file's name in small letters; "base color" is one, as NormalGL."""
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", Path(name).stem)
    text = "_".join(re.findall(r"[a-z]+", stem.lower()))
    for pair in ("base_color", "base_colour", "ambient_occlusion", "normal_gl", "normal_dx"):
        text = text.replace(pair, pair.replace("_", "").replace("colour", "color"))
    return text.split("_")


def is_data(kind: str) -> bool:
    """Whether the values of maps of a kind are no colors; "", an unknown kind, counts as colors."""
    return kind not in ("", *COLOR_KINDS)


def split_kind(source: str) -> tuple[MapKind | None, str]:
    """The kind and the path of KIND=FILE; no kind for other texts, and for a file of that name.

    Raises InputError for an unknown kind of a file that exists.
    """
    kind, sign, path = source.partition("=")
    if not sign or os.path.exists(source):
        return None, source
    if kind in MAP_KINDS:
        return kind, path
    if os.path.exists(path):
        raise InputError(f"--map {source}: the kind must be one of {', '.join(MAP_KINDS)}")
    return None, source


def kind_of_map(
    image: Image, name: str, stated: MapKind | None = None, *, albedo: bool = False
) -> tuple[MapKind | Literal[""], str]:
    """The kind of an image of linked maps, "" if nothing tells it, and why, in words.

    name: its file, or "". stated: the kind that the user says. albedo: whether an image in color
    that no name explains is taken for the albedo. Values count more than a name. Raises InputError
    if the values cannot be what the user says.
    """
    named = kind_of_name(name) if name else None
    kind = stated or named
    wrong = contradiction(image, kind or "")
    if stated is not None:
        if wrong is not None:
            raise InputError(
                f"--map {stated}={name}: {wrong}; leave {stated}= out, or name another file"
            )
        return stated, f"{stated} as given"
    if named != "normal" and image.color_channels == 3 and is_normal_map(image.to_mode("RGB")):
        return "normal", "normal by its values" + (
            f", not {named} as its name says" if named else ""
        )
    if wrong is not None:
        return "", f"not {named} as its name says: {wrong}"
    if named is not None:
        return named, f"{named} by its name"
    if albedo and not is_gray(image):
        return "albedo", "albedo as the first in color"
    return "", "of a kind that nothing tells"


def contradiction(image: Image, kind: str) -> str | None:
    """What shows that an image is not a data map of a kind, in words; None if nothing does."""
    if kind == "normal":
        is_one = image.color_channels == 3 and is_normal_map(image.to_mode("RGB"), named=True)
        return None if is_one else "its values are no vectors of length 1 that point up (blue)"
    return "its channels differ" if is_data(kind) and not is_gray(image) else None


def is_gray(image: Image) -> bool:
    """Whether an image has one channel of color, or equal ones."""
    colors = image.without_alpha().pixels
    return len(colors) == 1 or float((colors.amax(0) - colors.amin(0)).max()) <= EQUAL_CHANNELS


def as_data(image: Image, kind: str, title: str) -> Image:
    """An image as a data map: without a color profile, and with one channel unless of normals.

    Logs what is left out. An image whose channels differ keeps them.
    """
    if image.icc_profile is not None:
        log.info("%s: its color profile is left out, since its values are no colors", title)
        image = replace(image, icc_profile=None)
    if kind == "normal" or image.color_channels == 1 or not is_gray(image):
        return image
    log.info("%s: its channels are equal: read as one", title)
    gray = image.without_alpha().pixels.median(dim=0, keepdim=True).values
    pixels = torch.cat([gray, image.pixels[3:]])
    return replace(image, pixels=pixels, mode="LA" if image.has_alpha else "L")


def material_of(paths: Sequence[str], folder: str) -> list[str]:
    """The maps of one material among the images of a folder, as `find_maps` does; [] if it is none.

    Logs what is found, and why a folder that names several kinds is none.
    """
    maps, reason = find_maps(paths)
    if reason is not None:
        log.info("%s: images of one texture, not the maps of a material, since %s", folder, reason)
    if not maps:
        return []
    left_out = [Path(path).name for path in paths if path not in maps]
    log.info(
        "%s: one material: %s%s (to learn them as images of one texture, name them one by one)",
        folder, ", ".join(Path(path).name for path in maps),
        f"; left out: {', '.join(left_out)}" if left_out else "",
    )  # fmt: skip
    return maps


def find_maps(paths: Sequence[str]) -> tuple[list[str], str | None]:
    """The maps of one material among images, the albedo first, and why they are none, in words.

    They are a material if names tell two kinds or more, each once, and all others are previews: a
    word says so, or one name begins as the names of all maps, or they as it. Of two normal maps
    with different directions the one that is y-up counts, or else the one that is not y-down.
    """
    kinds = {path: kind_of_name(path) for path in paths}
    maps = [path for path in paths if kinds[path] is not None]
    if len({kinds[path] for path in maps}) < 2:
        return [], None
    normals = {path: y_up_of_name(path) for path in maps if kinds[path] == "normal"}
    if len(normals) == len(set(normals.values())) == 2:
        maps.remove(min(normals, key=lambda path: {True: 2, None: 1, False: 0}[normals[path]]))
    pairs = takewhile(lambda words: len(set(words)) == 1, zip(*map(_words, maps), strict=False))
    stem = [words[0] for words in pairs]
    for path in paths:
        words = _words(path)
        same = min(len(words), len(stem))
        belongs = any(stem) and any(words) and words[:same] == stem[:same]
        if kinds[path] is None and not belongs and not (_PREVIEWS | _OTHER_MAPS) & set(words):
            return [], f"the name of {Path(path).name} tells no kind of map"
    found = [kinds[path] for path in maps]
    for kind in MAP_KINDS:
        if found.count(kind) > 1:
            same_kind = [Path(path).name for path in maps if kinds[path] == kind]
            return [], f"{' and '.join(same_kind[:2])} are both of {kind}"
    return sorted(maps, key=lambda path: MAP_KINDS.index(kinds[path] or "albedo")), None
