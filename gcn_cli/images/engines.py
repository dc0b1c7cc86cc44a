"""The files of a sample: which channels of a model go into which file, and the files' names.

Linked maps are a file each. Game engines expect names of their own, and several maps in the
channels of one file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images.color import libvips, profile_name, same_colors, to_profile
from gcn_cli.images.image import UINT16_PER_GRAY_LEVEL, Image, TextureMap, first_channels
from gcn_cli.images.materials import COLOR_KINDS, MapKind, is_data

NEUTRAL_VALUES: dict[str, float] = {"ao": 255.0, "roughness": 255.0, "metalness": 0.0}
"""Of the maps that a packed file needs and a model does not have."""


@dataclass(frozen=True)
class Engine:
    """How an engine, or a file format, names the maps of a material, and which it packs."""

    names: Mapping[str, str]  # the last part of the files' names, by kind
    packed: str  # that of the packed file
    packing: Sequence[MapKind | None]  # its channels; None is 0
    y_up: bool = True  # the direction of green in normal maps
    prefix: str = ""  # the first part of the files' names
    smoothness: bool = False  # 255 - roughness in place of roughness
    alpha: bool = True  # opacity is the alpha of the base color
    deep: bool = True  # packed files may have 16 bits a channel
    beside: str = ""  # suffix of a file that describes the material


_ORM: tuple[MapKind, ...] = ("ao", "roughness", "metalness")
ENGINES: dict[str, Engine] = {
    # Base Map, Normal Map, Mask Map and Height Map are the slots of the HDRP Lit shader; channels
    # of the mask map: HDRP manual, "Mask and detail maps". URP Lit reads metalness in red and
    # smoothness in alpha of its metallic map, occlusion in green of its occlusion map: one file
    # serves as both.
    "unity": Engine(
        {"albedo": "BaseMap", "normal": "Normal", "height": "Height", "emission": "Emission",
         "opacity": "Opacity"},
        "MaskMap", ("metalness", "ao", None, "roughness"), smoothness=True,
    ),
    # T_ and a descriptor: Epic, "Recommended Asset Naming Conventions", which has normal and
    # opacity maps as textures of their own. Base Color and Emissive are inputs of its materials,
    # and normals are those of DirectX: the texture setting "Flip Green Channel" is for others.
    "unreal": Engine(
        {"albedo": "BaseColor", "normal": "N", "height": "H", "emission": "Emissive",
         "opacity": "Opacity"},
        "ORM", _ORM, y_up=False, prefix="T_", alpha=False,
    ),
    # Occlusion, roughness and metallic in red, green and blue, opacity in alpha of albedo, normals
    # of OpenGL: docs.godotengine.org, "Standard Material 3D and ORM Material 3D".
    "godot": Engine(
        {"albedo": "albedo", "normal": "normal", "height": "height", "emission": "emission",
         "opacity": "opacity"},
        "orm", _ORM,
    ),
    # registry.khronos.org/glTF/specs/2.0, 3.9 Materials. Height is no part of its material.
    "gltf": Engine(
        {"albedo": "baseColor", "normal": "normal", "height": "height", "emission": "emissive",
         "opacity": "opacity"},
        "occlusionRoughnessMetallic", _ORM, deep=False, beside=".gltf",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Channel:
    """A channel of a file: the mean of some channels of a model, or a constant."""

    sources: tuple[int, ...] = ()
    constant: float = 0.0  # its value in 0..255 without sources
    inverted: bool = False  # 255 - x, and x as a file would have it

    def of(self, sample: Tensor, bit_depth: int) -> Tensor:
        """Its values (H, W) in 0..255 from a sample (C, H, W) of the model."""
        if not self.sources:
            return sample.new_full(sample.shape[1:], self.constant)
        values = sample[self.sources[0]]
        if len(self.sources) > 1:
            values = sample[list(self.sources)].mean(dim=0)
        if not self.inverted:
            return values
        steps = UINT16_PER_GRAY_LEVEL if bit_depth == 16 else 1
        return (255 - (values.double() * steps).round() / steps).to(values)


@dataclass(frozen=True)
class MapFile:
    """A file of a sample: how it is written, and what its channels are."""

    texture_map: TextureMap  # its name is the last part of the file's name
    channels: tuple[Channel, ...]
    kinds: tuple[str, ...] = ()  # of the maps that it is made of
    converted_from: bytes | None = None  # the profile of colors that the file has in sRGB

    @classmethod
    def of(cls, texture_map: TextureMap, first: int) -> "MapFile":
        """The file of a map alone, whose channels begin at `first`. Data have no color profile."""
        if is_data(texture_map.kind):
            texture_map = replace(texture_map, icc_profile=None)
        sources = range(first, first + texture_map.channels)
        return cls(texture_map, tuple(Channel((k,)) for k in sources), (texture_map.kind,))

    def pixels(self, sample: Tensor) -> Tensor:
        """The pixels (C, H, W) of the file, of a sample of the model."""
        first = self.channels[0].sources[:1]
        depth = self.texture_map.bit_depth
        if self.channels == tuple(Channel((k + sum(first),)) for k in range(len(self.channels))):
            pixels = sample[sum(first) : sum(first) + len(self.channels)]  # no copy of a large map
        else:
            pixels = torch.stack([channel.of(sample, depth) for channel in self.channels])
        if self.converted_from is None:
            return pixels
        about = (self.texture_map.mode, depth, self.converted_from)
        return to_profile(Image(pixels, *about, color_managed=True), None).pixels


@dataclass(frozen=True)
class Layout:
    """The files of every sample of a model."""

    files: tuple[MapFile, ...]
    engine: Engine | None = None  # whose names they have
    notes: tuple[str, ...] = ()  # what a person should know of them

    @property
    def maps(self) -> list[TextureMap]:
        """How the files are written; the name of each is the last part of its file's name."""
        return [file.texture_map for file in self.files]

    @property
    def names(self) -> list[str]:
        """What the files' names end in, after that of the sample; "" of a single map."""
        return [texture_map.name for texture_map in self.maps]

    @property
    def is_material(self) -> bool:
        """Whether the files are a material: named as an engine expects, or maps of known kinds."""
        linked = len(self.files) > 1 and all(all(file.kinds) for file in self.files)
        return linked or self.engine is not None


def plain_layout(maps: Sequence[TextureMap], y_up: bool | None = None) -> Layout:
    """A file for each map, under its name; normals are turned to `y_up` unless it is None.

    Raises InputError if there are none, or if the direction of their green is not known.
    """
    known = [m.y_up for m in maps if m.normals]
    if y_up is not None and None in known:
        raise InputError(
            f"--normals {_in_words(y_up)}: it is not known whether green of the model's normals "
            "points up; train with --normals y-up or y-down, or leave it out"
        )
    if y_up is not None and not known:
        raise InputError(
            f"--normals {_in_words(y_up)}: the model has no normal map; leave it out, or train "
            "with --map normal=FILE"
        )
    return Layout(
        tuple(_turned(file, y_up) for file in map(MapFile.of, maps, first_channels(maps)))
    )


def engine_layout(name: str, maps: Sequence[TextureMap], y_up: bool | None = None) -> Layout:
    """The files of linked maps as an engine of ENGINES expects them; `y_up` overrides its normals.

    Maps of unknown kind, and the second of a kind, are files under their own names. Raises
    InputError if the kind of no map is known.
    """
    engine = ENGINES[name]
    if not any(m.kind for m in maps):
        raise InputError(
            f"--names {name}: it is not known what the model's maps are; train with "
            "--map KIND=FILE, as --map normal=FILE, or on a folder of maps, or leave --names out"
        )
    plain_layout(maps, y_up)  # refuses what it refuses
    by_kind: dict[str, MapFile] = {}
    files: list[MapFile] = []
    for texture_map, file in zip(maps, map(MapFile.of, maps, first_channels(maps)), strict=True):
        if texture_map.kind in COLOR_KINDS:
            file = _in_srgb(file, name)  # noqa: PLW2901
        if not texture_map.kind or texture_map.kind in by_kind:
            files.append(_turned(file, _wanted(engine, y_up)))
        by_kind.setdefault(texture_map.kind, file)
    by_kind.pop("", None)
    notes = _notes(engine, by_kind)
    if engine.alpha and "opacity" in by_kind and "albedo" in by_kind:
        opaque = by_kind["albedo"]
        if not opaque.texture_map.mode.endswith("A"):
            by_kind["albedo"] = _with_alpha(opaque, by_kind.pop("opacity"), engine)
    packed = [by_kind[kind] for kind in engine.packing if kind in by_kind]
    named = []
    for kind, file in by_kind.items():
        if kind in engine.names:
            about = replace(file.texture_map, name=engine.names[kind])
            named.append(_turned(replace(file, texture_map=about), _wanted(engine, y_up)))
        elif file is packed[0]:
            named.append(_packed(engine, by_kind))
    notes += [
        f"engines ignore color profiles: {file.texture_map.name} is converted from "
        f"{profile_name(file.converted_from)} to sRGB"
        for file in (*named, *files)
        if file.converted_from is not None
    ]
    layout = Layout((*named, *files), engine, tuple(notes))
    lower = [title.lower() for title in layout.names]
    for title in layout.names:
        if lower.count(title.lower()) > 1:
            raise InputError(f"--names {name}: two maps are named {title}; leave --names out")
    return layout


def _wanted(engine: Engine, y_up: bool | None) -> bool:
    return engine.y_up if y_up is None else y_up


def _in_words(y_up: bool) -> str:
    return "y-up" if y_up else "y-down"


def _turned(file: MapFile, y_up: bool | None) -> MapFile:
    """The file with green of its normals in a direction; an unknown one is taken for up."""
    texture_map = file.texture_map
    if y_up is None or not texture_map.normals:
        return file
    channels = list(file.channels)
    if y_up != (texture_map.y_up is not False):
        channels[1] = replace(channels[1], inverted=True)
    return replace(file, texture_map=replace(texture_map, y_up=y_up), channels=tuple(channels))


def _in_srgb(file: MapFile, engine: str) -> MapFile:
    """The file of colors without a profile: they are converted if that changes them."""
    texture_map = file.texture_map
    if same_colors(texture_map.icc_profile, None):
        return file
    if texture_map.bit_depth == 16:
        libvips(f"--names {engine}")
    about = replace(texture_map, icc_profile=None)
    return replace(file, texture_map=about, converted_from=texture_map.icc_profile)


def _gray(file: MapFile) -> Channel:
    """The mean of the colors of a file."""
    colors = len(file.channels) - file.texture_map.mode.endswith("A")
    return Channel(sum((channel.sources for channel in file.channels[:colors]), ()))


def _with_alpha(colors: MapFile, opacity: MapFile, engine: Engine) -> MapFile:
    about, parts = colors.texture_map, (colors, opacity)
    depth = max(part.texture_map.bit_depth for part in parts) if engine.deep else 8
    return replace(
        colors,
        texture_map=replace(about, mode=f"{about.mode}A", bit_depth=depth),
        channels=(*colors.channels, _gray(opacity)),
        kinds=("albedo", "opacity"),
    )


def _packed(engine: Engine, by_kind: Mapping[str, MapFile]) -> MapFile:
    """The packed file of the maps that there are; neutral values stand for the others."""
    parts = {kind: by_kind[kind] for kind in engine.packing if kind is not None and kind in by_kind}
    channels = []
    for kind in engine.packing:
        channel = Channel(constant=0.0 if kind is None else NEUTRAL_VALUES[kind])
        if kind is not None and kind in parts:
            channel = _gray(parts[kind])
        if kind == "roughness" and engine.smoothness:
            channel = replace(channel, constant=255 - channel.constant, inverted=True)
        channels.append(channel)
    first = next(iter(parts.values())).texture_map
    depth = max(part.texture_map.bit_depth for part in parts.values()) if engine.deep else 8
    mode = "RGB" if len(channels) == 3 else "RGBA"
    return MapFile(
        TextureMap(engine.packed, mode, depth, dpi=first.dpi), tuple(channels), (*parts,)
    )


def _notes(engine: Engine, by_kind: Mapping[str, MapFile]) -> list[str]:
    """What is put in place of maps that are missing, and of a direction that is not known."""
    notes = []
    if any(kind in by_kind for kind in engine.packing):
        missing = [kind for kind in engine.packing if kind is not None and kind not in by_kind]
        values = [f"{kind} {NEUTRAL_VALUES[kind] / 255:.0f}" for kind in missing]
        if missing:
            names = " and ".join(missing)
            notes.append(f"no map of {names}; {engine.packed} has {' and '.join(values)}")
    if "normal" in by_kind and by_kind["normal"].texture_map.y_up is None:
        notes.append(
            "it is not known whether green of the normals points up, it is taken for up; if bumps "
            "look like dents, train with --normals y-down"
        )
    return notes
