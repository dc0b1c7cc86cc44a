"""A glTF 2.0 file of a material: a plane that shows its images, for viewers and engines.

https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import base64
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gcn_cli import strict_json

_FLOAT, _UNSIGNED_SHORT = 5126, 5123
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_REPEAT, _LINEAR, _LINEAR_MIPMAP_LINEAR = 10497, 9729, 9987
_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def document(
    name: str,
    images: Mapping[str, Collection[str]],
    size: tuple[int, int],
    generator: str,
    *,
    transparent: bool = False,
) -> bytes:
    """The text of a glTF file whose images lie beside it.

    name: of the material. images: the kinds of maps (`materials.MAP_KINDS`) in each file;
    occlusion, roughness and metalness are its red, green and blue, opacity is alpha; others are not
    of the material. size: (height, width) of the images, whose proportions the plane has.
    transparent: the base color has alpha.
    """
    shown = ("albedo", "normal", "ao", "roughness", "metalness", "emission")
    files = [file for file, kinds in images.items() if any(kind in shown for kind in kinds)]
    places = {kind: {"index": place} for place, file in enumerate(files) for kind in images[file]}
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": generator},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "materials": [_material(name, places, transparent=transparent)],
        **_plane(name, size, tangents="normal" in places),
    }
    if files:
        content |= {
            "textures": [{"sampler": 0, "source": place} for place in range(len(files))],
            "images": [{"uri": quote(file)} for file in files],
            "samplers": [
                {
                    "magFilter": _LINEAR,
                    "minFilter": _LINEAR_MIPMAP_LINEAR,
                    "wrapS": _REPEAT,
                    "wrapT": _REPEAT,
                }
            ],
        }
    return f"{strict_json.dumps(content, indent=2)}\n".encode()


def _material(name: str, places: Mapping[str, Any], *, transparent: bool) -> dict[str, Any]:
    """The material of the textures that there are, by kind."""
    reflection: dict[str, Any] = {}
    if "albedo" in places:
        reflection["baseColorTexture"] = places["albedo"]
    if "roughness" in places or "metalness" in places:
        reflection["metallicRoughnessTexture"] = places.get("roughness", places.get("metalness"))
    else:
        reflection["metallicFactor"] = 0
    material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": reflection}
    if "normal" in places:
        material["normalTexture"] = places["normal"]
    if "ao" in places:
        material["occlusionTexture"] = places["ao"]
    if "emission" in places:
        material |= {"emissiveTexture": places["emission"], "emissiveFactor": [1, 1, 1]}
    if transparent:
        material["alphaMode"] = "BLEND"
    return {**material, "doubleSided": True}


def _plane(name: str, size: tuple[int, int], *, tangents: bool) -> dict[str, Any]:
    """A plane that faces +z, of length 1 along the longer side, and the buffer of its corners.

    The first row of an image is at the top. The tangents that normal maps need point right, so that
    green points up (cross product of normal and tangent).
    """
    height, width = (side / max(size) / 2 for side in size)
    corners = [(-width, height, 0), (width, height, 0), (-width, -height, 0), (width, -height, 0)]
    attributes: dict[str, tuple[str, Sequence[tuple[float, ...]]]] = {
        "POSITION": ("VEC3", corners),
        "NORMAL": ("VEC3", [(0, 0, 1)] * 4),
        "TEXCOORD_0": ("VEC2", [(0, 0), (1, 0), (0, 1), (1, 1)]),
    }
    if tangents:
        attributes["TANGENT"] = ("VEC4", [(1, 0, 0, 1)] * 4)
    indices = (0, 2, 1, 1, 2, 3)  # counterclockwise, seen from the front
    data, views, accessors = b"", [], []
    for kind, values in attributes.values():
        packed = b"".join(struct.pack(f"<{_SIZES[kind]}f", *value) for value in values)
        views.append(_view(len(data), len(packed), _ARRAY_BUFFER))
        accessors.append(_accessor(len(views) - 1, _FLOAT, len(values), kind))
        data += packed
    # The limits as they are in the buffer, in float32.
    rounded = [struct.unpack("<3f", struct.pack("<3f", *corner)) for corner in corners]
    accessors[0] |= {
        bound: [choose(axis) for axis in zip(*rounded, strict=True)]
        for bound, choose in (("min", min), ("max", max))
    }
    packed = struct.pack(f"<{len(indices)}H", *indices)
    views.append(_view(len(data), len(packed), _ELEMENT_ARRAY_BUFFER))
    accessors.append(_accessor(len(views) - 1, _UNSIGNED_SHORT, len(indices), "SCALAR"))
    data += packed
    primitive = {
        "attributes": {attribute: place for place, attribute in enumerate(attributes)},
        "indices": len(attributes),
        "material": 0,
    }
    text = base64.b64encode(data).decode()
    return {
        "meshes": [{"name": name, "primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [
            {"byteLength": len(data), "uri": f"data:application/octet-stream;base64,{text}"}
        ],
    }


def _view(offset: int, length: int, target: int) -> dict[str, int]:
    return {"buffer": 0, "byteOffset": offset, "byteLength": length, "target": target}


def _accessor(view: int, component: int, count: int, kind: str) -> dict[str, Any]:
    return {"bufferView": view, "componentType": component, "count": count, "type": kind}
