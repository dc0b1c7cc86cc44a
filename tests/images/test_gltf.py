"""glTF materials: what they hold, that they are valid, and that a viewer shows them."""

import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gcn_cli.images import gltf
from tests.npm import node_modules

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ORM = ("ao", "roughness", "metalness")
VALIDATE = """
const [file, validator] = process.argv.slice(1), fs = require("fs"), path = require("path");
const read = name => new Uint8Array(fs.readFileSync(path.join(path.dirname(file), name)));
require(validator).validateBytes(read(path.basename(file)), {
  uri: path.basename(file),
  externalResourceFunction: uri => Promise.resolve(read(decodeURIComponent(uri))),
}).then(report => console.log(JSON.stringify(report)));
"""
PAGE = """<!doctype html><body style="margin: 0">
<script type="module" src="node_modules/@google/model-viewer/dist/model-viewer-umd.min.js"></script>
<model-viewer src="plane.gltf" camera-orbit="0deg 90deg auto" interaction-prompt="none"
 style="width: 300px; height: 300px; background: white"></model-viewer>"""


def parsed(images: dict[str, tuple[str, ...]], **more: Any) -> dict[str, Any]:
    content = json.loads(gltf.document("bark", images, (32, 64), "gcn 1", **more))
    assert isinstance(content, dict)
    return content


def numbers(content: dict[str, Any], accessor: int) -> np.ndarray[Any, Any]:
    """The values of an accessor, (count, components)."""
    about = content["accessors"][accessor]
    view = content["bufferViews"][about["bufferView"]]
    data = base64.b64decode(content["buffers"][0]["uri"].partition(",")[2])
    assert len(data) == content["buffers"][0]["byteLength"]
    kind = {5126: "<f4", 5123: "<u2"}[about["componentType"]]
    part = data[view["byteOffset"] :][: view["byteLength"]]
    return np.frombuffer(part, kind).reshape(about["count"], -1)


def test_a_plane_has_the_proportions_of_its_images() -> None:
    content = parsed({"bark_baseColor.png": ("albedo",), "bark_normal.png": ("normal",)})
    (primitive,) = content["meshes"][0]["primitives"]
    places = primitive["attributes"]
    positions = numbers(content, places["POSITION"])
    assert (positions.max(axis=0) - positions.min(axis=0)).tolist() == [1, 0.5, 0]
    about = content["accessors"][places["POSITION"]]
    assert about["min"] == positions.min(axis=0).tolist()
    assert about["max"] == positions.max(axis=0).tolist()
    coordinates = numbers(content, places["TEXCOORD_0"])
    # The first row of an image is at the top.
    assert coordinates[:, 0].tolist() == (positions[:, 0] > 0).tolist()
    assert coordinates[:, 1].tolist() == (positions[:, 1] < 0).tolist()
    normals, tangents = (numbers(content, places[name]) for name in ("NORMAL", "TANGENT"))
    up = np.cross(normals, tangents[:, :3]) * tangents[:, 3:]
    assert up.tolist() == 4 * [[0, 1, 0]]  # where green of normal maps points
    triangles = positions[numbers(content, primitive["indices"])[:, 0]].reshape(2, 3, 3)
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    assert (np.cross(first, second)[:, 2] > 0).all()  # they face the viewer


def test_a_material_refers_to_its_images() -> None:
    images = {
        "a b_baseColor.png": ("albedo", "opacity"),
        "n.png": ("normal",),
        "h.png": ("height",),
        "orm.png": ORM,
        "e.png": ("emission",),
        "moss.png": ("",),
    }
    content = parsed(images, transparent=True)
    uris = [image["uri"] for image in content["images"]]
    assert uris == ["a%20b_baseColor.png", "n.png", "orm.png", "e.png"]
    assert content["asset"] == {"version": "2.0", "generator": "gcn 1"}
    assert content["materials"] == [
        {
            "name": "bark",
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": 0},
                "metallicRoughnessTexture": {"index": 2},
            },
            "normalTexture": {"index": 1},
            "occlusionTexture": {"index": 2},
            "emissiveTexture": {"index": 3},
            "emissiveFactor": [1, 1, 1],
            "alphaMode": "BLEND",
            "doubleSided": True,
        }
    ]
    assert content["textures"] == [{"sampler": 0, "source": k} for k in range(4)]


def test_missing_maps_are_rough_and_no_metal() -> None:
    (material,) = parsed({"n.png": ("normal",), "orm.png": ("ao",)})["materials"]
    assert material["pbrMetallicRoughness"] == {"metallicFactor": 0}
    assert material["occlusionTexture"] == {"index": 1}
    only_height = parsed({"h.png": ("height",)})
    assert "images" not in only_height
    assert "textures" not in only_height


def written(folder: Path) -> Path:
    """A material of 64x32 pixels: red, green, blue and black in the four corners."""
    colors = np.zeros((32, 64, 3), np.uint8)
    colors[:16, :32, 0] = colors[:16, 32:, 1] = colors[16:, :32, 2] = 255
    files = {"c 1.png": ("albedo",), "n.png": ("normal",), "o.png": ORM, "e.png": ("emission",)}
    flat = {"n.png": (128, 128, 255), "o.png": (255, 255, 0), "e.png": (0, 0, 0)}
    for name in files:
        image = np.full_like(colors, flat[name]) if name in flat else colors
        Image.fromarray(image).save(folder / name)
    path = folder / "plane.gltf"
    path.write_bytes(gltf.document("plane", files, (32, 64), "gcn 1"))
    return path


def test_the_validator_of_khronos_finds_nothing(tmp_path: Path) -> None:
    validator = node_modules() / "gltf-validator"
    only_height = tmp_path / "height.gltf"
    only_height.write_bytes(gltf.document("h", {"h.png": ("height",)}, (100, 333), "gcn 1"))
    for path in (written(tmp_path), only_height):
        command = ["node", "-e", VALIDATE, "--", str(path), str(validator)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        report = json.loads(done.stdout)
        problems = report["issues"]["messages"]
        if path == only_height:  # of a material without images
            problems = [problem for problem in problems if problem["code"] != "UNUSED_OBJECT"]
        assert problems == []
        assert report["info"]["totalTriangleCount"] == 2


@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_a_viewer_shows_the_images_of_the_material(tmp_path: Path) -> None:
    modules = node_modules()
    written(tmp_path)
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "node_modules").symlink_to(modules)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            str(BROWSER), "--headless", "--no-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--hide-scrollbars", "--window-size=300,300",
            f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=20000",
            f"--screenshot={tmp_path}/shot.png", f"http://127.0.0.1:{server.server_port}/",
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, timeout=180, check=True, env=os.environ)
        server.shutdown()
    with Image.open(tmp_path / "shot.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)[20:]  # without the bar of progress
    rows, columns = np.nonzero(pixels.min(axis=2) < 200)  # all but the white page
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert width > 100
    assert 1.8 < width / height < 2.2
    top, left = rows.min(), columns.min()
    corners = [
        pixels[top + (2 * y + 1) * height // 4, left + (2 * x + 1) * width // 4]
        for y in (0, 1)
        for x in (0, 1)
    ]
    assert [int(color.argmax()) for color in corners[:3]] == [0, 1, 2]
    assert all(color.max() > 2 * np.median(color) for color in corners[:3])
    assert corners[3].max() < 100
