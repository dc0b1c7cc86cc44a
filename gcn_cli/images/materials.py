"""What the maps of a material are, as the names of their files say."""

import re
from pathlib import Path
from typing import Literal, get_args

MapKind = Literal[
    "albedo", "normal", "roughness", "metalness", "height", "ao", "emission", "opacity"
]
MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)
COLOR_KINDS = ("albedo", "emission")
"""Maps whose values are colors; those of other kinds are data, which have no color profile."""

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
