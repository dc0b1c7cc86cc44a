"""gcn synthesize of a material: names, engines, directions of normals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gcn_cli import checkpoint, images
from gcn_cli.images import read_image, read_record
from tests.cli.running import Done, gcn
from tests.small import relief

SMALL = [
    "--set", "layers=4@5,4@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "2",
    "--preview-every", "0", "--device", "cpu",
]  # fmt: skip
KINDS = ("albedo", "normal", "roughness", "height")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models runs/bark of a material and runs/plain of its albedo; read only."""
    folder = tmp_path_factory.mktemp("material")
    height, *normal = relief()
    images.write(images.Image(relief()[1:], "RGB").pixels, str(folder / "normal.png"))
    assert len(normal) == 3
    images.write((height[None] + 3) * 40, str(folder / "height.png"), 16)
    for name, mode in (("albedo", "RGB"), ("roughness", "L")):
        Image.effect_noise((48, 48), 60).convert(mode).save(folder / f"{name}.png")
    maps = [word for name in KINDS[1:] for word in ("--map", f"{name}.png")]
    for words in (["-o", "runs/bark", *maps], ["-o", "runs/plain"]):
        done = gcn("train", "albedo.png", *words, *SMALL, cwd=folder)
        assert done.returncode == 0, done.stderr.decode()
    path = folder / "runs" / "bark" / "model.safetensors"
    model = checkpoint.load(path)
    known = [
        replace(m, name=kind, kind=kind, y_up=True if kind == "normal" else None)
        for m, kind in zip(model.maps, KINDS, strict=True)
    ]
    checkpoint.save(path, replace(model, maps=tuple(known)))
    return folder


def synthesize(folder: Path, *words: str, model: str = "bark") -> Done:
    return gcn("synthesize", model, "--steps", "2", "--size", "24x16", *words, cwd=folder)


def names(done: Done) -> list[str]:
    assert done.returncode == 0, done.stderr.decode()
    return [Path(line).name for line in done.stdout.decode().split()]


def error(done: Done) -> str:
    lines = [line for line in done.stderr.decode().splitlines() if "error" in line]
    assert done.returncode == 2
    assert len(lines) == 1
    return lines[0]


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_gets_the_material_by_its_name(trained: Path, tmp_path: Path) -> None:
    target = ["-o", str(tmp_path)]
    expected = [f"bark_{kind}.png" for kind in KINDS]
    planned = synthesize(trained, *target, "--dry-run", "--json")
    assert [Path(path).name for path in json.loads(planned.stdout)["paths"]] == expected
    assert names(synthesize(trained, *target)) == expected
    assert "bark_albedo.png: exists; add --overwrite" in error(synthesize(trained, *target))
    assert names(synthesize(trained, *target, "--skip-existing")) == []
    (tmp_path / expected[1]).unlink()
    assert names(synthesize(trained, *target, "--skip-existing")) == [expected[1]]
    # The seed after that of the files, whose names do not tell it.
    assert names(synthesize(trained, *target, "--overwrite")) == expected
    assert (read_record(tmp_path / expected[0]) or {})["seed"] == 1
    assert "was made with seed 1, not 0" in error(synthesize(trained, *target, "--skip-existing"))
    several = names(synthesize(trained, *target, "--seed", "3,5"))
    assert several[:2] == ["bark-3-0_albedo.png", "bark-3-0_normal.png"]
    assert len(several) == 8
    assert names(synthesize(trained, *target, "--count", "2"))[0] == "bark-6-0_albedo.png"


def test_the_files_of_an_engine(trained: Path, tmp_path: Path) -> None:
    plain, unity = tmp_path / "plain", tmp_path / "unity"
    assert len(names(synthesize(trained, "-o", str(plain)))) == 4
    done = synthesize(trained, "--names", "unity", "-o", str(unity))
    assert names(done) == [f"bark_{n}.png" for n in ("BaseMap", "Normal", "MaskMap", "Height")]
    assert b"--names unity: no map of metalness and ao; MaskMap has" in done.stderr
    for name, kind in (("BaseMap", "albedo"), ("Normal", "normal"), ("Height", "height")):
        assert (pixels(unity / f"bark_{name}.png") == pixels(plain / f"bark_{kind}.png")).all()
    assert pixels(unity / "bark_Height.png").dtype == np.uint16
    mask = pixels(unity / "bark_MaskMap.png")
    assert (mask[..., 3] == 255 - pixels(plain / "bark_roughness.png")).all()
    assert mask[0, 0, :3].tolist() == [0, 255, 0]
    options = (read_record(unity / "bark_MaskMap.png") or {})["options"]
    assert options["names"] == "unity"
    again = synthesize(trained, "--names", "unity", "-o", str(unity), "--skip-existing")
    assert names(again) == []
    unreal = synthesize(trained, "--names", "unreal", "-o", str(tmp_path / "u"), "--count", "2")
    assert names(unreal)[:3] == [f"T_bark-0-0_{name}.png" for name in ("BaseColor", "N", "ORM")]
    following = synthesize(trained, "--names", "unreal", "-o", str(tmp_path / "u"), "--count", "2")
    assert names(following)[0] == "T_bark-1-0_BaseColor.png"


def test_normals_are_turned_and_have_unit_length(trained: Path, tmp_path: Path) -> None:
    written = {}
    for name, words in (("up", []), ("down", ["--normals", "y-down"])):
        assert len(names(synthesize(trained, *words, "-o", str(tmp_path / name)))) == 4
        written[name] = pixels(tmp_path / name / "bark_normal.png").astype(int)
        lengths = np.linalg.norm(written[name] / 127.5 - 1, axis=-1)
        assert abs(lengths - 1).max() < 0.01  # half a gray level in each channel
    assert (written["down"][..., 1] == 255 - written["up"][..., 1]).all()
    assert (written["down"][..., ::2] == written["up"][..., ::2]).all()
    other = synthesize(trained, "-o", str(tmp_path / "down"), "--skip-existing")
    assert "was made with other normals" in error(other)
    unreal = synthesize(trained, "--names", "unreal", "-o", str(tmp_path / "unreal"))
    assert names(unreal)[1] == "T_bark_N.png"
    assert (pixels(tmp_path / "unreal" / "T_bark_N.png") == written["down"]).all()


def test_a_gltf_material_lies_beside_its_images(trained: Path, tmp_path: Path) -> None:
    words = ["--names", "gltf", "-o", str(tmp_path)]
    written = names(synthesize(trained, *words))
    assert written[-1] == "bark.gltf"
    content = json.loads((tmp_path / "bark.gltf").read_text())
    uris = [image["uri"] for image in content["images"]]
    assert set(uris) <= set(written)
    assert uris == [f"bark_{n}.png" for n in ("baseColor", "normal", "occlusionRoughnessMetallic")]
    assert content["asset"]["generator"].startswith("gcn ")
    assert "occlusionTexture" not in content["materials"][0]
    assert content["accessors"][0]["max"][:2] == [0.5, pytest.approx(1 / 3)]
    assert names(synthesize(trained, *words, "--skip-existing")) == []
    for path in tmp_path.glob("*.png"):
        path.unlink()
    (tmp_path / "bark.gltf").write_text("mine")
    assert "bark.gltf: exists; add --overwrite" in error(synthesize(trained, *words))
    assert (tmp_path / "bark.gltf").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["bark.gltf"]
    assert names(synthesize(trained, *words, "--overwrite")) == written
    facts = synthesize(trained, *words[:2], "--seed", "7", "--json")
    records = json.loads(facts.stdout)["files"]
    assert [Path(record["path"]).name for record in records][-1] == "bark-7-0.gltf"
    assert [record.get("map") for record in records[-2:]] == ["height", None]
    for path in (trained / "runs" / "bark" / "samples").iterdir():
        path.unlink()


def test_names_that_cannot_be_given_are_refused(trained: Path, tmp_path: Path) -> None:
    for output in ("x.png", "-", "{model}.png"):
        message = error(synthesize(trained, "--names", "godot", "-o", output))
        assert f"--output {output}: --names godot names the files; give a folder" in message
    single = synthesize(trained, "--names", "godot", "-o", str(tmp_path), model="plain")
    assert "--names godot: it is not known what the model's maps are; train with" in error(single)
    flat = synthesize(trained, "--normals", "y-up", "-o", str(tmp_path), model="plain")
    assert "--normals y-up: the model has no normal map" in error(flat)
    template = synthesize(trained, "-o", "{map}.png", model="plain")
    assert "{map} is for linked maps" in error(template)
    assert list(tmp_path.iterdir()) == []


def test_data_have_no_color_profile_and_a_template_names_maps(
    trained: Path, tmp_path: Path
) -> None:
    template = str(tmp_path / "{map}" / "{model}-{seed}.tif")
    assert len(names(synthesize(trained, "-o", template, "--seed", "4"))) == 4
    for kind in KINDS:
        image = read_image(str(tmp_path / kind / "bark-4.tif"))
        assert (image.size, image.icc_profile) == ((16, 24), None)


def test_a_folder_or_a_guide_of_the_first_map_steers_a_material(
    trained: Path, tmp_path: Path
) -> None:
    folder, image = tmp_path / "bark", str(trained / "albedo.png")
    folder.mkdir()
    for kind in KINDS:
        (folder / f"{kind}.png").write_bytes((trained / f"{kind}.png").read_bytes())
    made = {}
    for name, words in {
        "plain": [], "start": ["--start", str(folder)], "guide": ["--guide", image],
        "all": ["--guide", str(folder)],
    }.items():  # fmt: skip
        files = names(synthesize(trained, *words, "--seed", "0", "-o", str(tmp_path / name)))
        assert files == [f"bark_{kind}.png" for kind in KINDS]
        made[name] = [read_image(str(tmp_path / name / file)).pixels for file in files]
    for name in ("start", "guide", "all"):
        assert not made[name][0].equal(made["plain"][0])
    assert not made["all"][3].equal(made["guide"][3])  # the height follows its own guide
    record = read_record(tmp_path / "start" / "bark_normal.png")
    assert record is not None
    assert [one["name"] for one in record["inputs"]] == [f"{kind}.png" for kind in KINDS]
    done = gcn("inspect", "image", str(folder), "--model", "bark", cwd=trained)
    assert done.returncode == 0, done.stderr.decode()
    page = ["inspect", "report", str(tmp_path / "page"), "--model", "bark", "--image"]
    assert "1 image(s) for a model of albedo, normal" in error(gcn(*page, image, cwd=trained))
    for command in (["levels", "-m", "bark"], ["compare", image, "bark", "bark"]):
        assert f"{command[0]}: not for linked maps" in error(gcn("inspect", *command, cwd=trained))
