"""What linked maps are: by KIND=FILE, by the names of files and by values; folders of maps."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.cli.output import write_map
from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap, read_image, read_record, to_pillow
from gcn_cli.images.color import PRIMARIES, ColorMatch, made_profile
from gcn_cli.inputs import linked_images, open_image, to_pixels
from gcn_cli.presets import build_config
from tests.cli.running import gcn as run
from tests.commands import SMALL_TEXTURE as SMALL
from tests.small import SMALL_TEXTURE, relief
from tests.test_inputs import TURNS, WHOLE, load

SIDE = 48
WIDE = made_profile(PRIMARIES[9], (1.8,), 3)


def values(what: str) -> Tensor:
    """Pixels (C, H, W) as of a kind of map."""
    if what.startswith("normal"):
        return relief(SIDE, y_up=not what.endswith("down"))[1:]
    generator = torch.Generator().manual_seed(len(what))
    gray = 255 * torch.rand(1, SIDE, SIDE, generator=generator)
    if what == "equal":
        return gray.expand(3, -1, -1)
    return gray if what == "gray" else 255 * torch.rand(3, SIDE, SIDE, generator=generator)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def saved(folder: Path, files: Mapping[str, str], profile: bytes | None = None) -> list[str]:
    """Files of values; `files` names what each one holds."""
    folder.mkdir(exist_ok=True)
    for name, what in files.items():
        to_pillow(values(what).round()).save(folder / name, icc_profile=profile)
    return [str(folder / name) for name in files]


def load_maps(files: list[str], **options: Any) -> tuple[TextureMap, ...]:
    return load(files[:1], linked=tuple(files[1:]), **options).maps


def told(maps: tuple[TextureMap, ...]) -> list[tuple[str, str, str]]:
    return [(one.name, one.kind, one.mode) for one in maps]


def test_names_tell_the_kinds_and_name_the_maps(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    files = saved(
        folder,
        {"oak_diff.png": "color", "oak_nor.png": "normal, down", "oak_rgh.png": "equal",
         "oak_disp.png": "gray", "oak_arm.png": "color"},
    )  # fmt: skip
    maps = load_maps(files)
    assert told(maps) == [
        ("albedo", "albedo", "RGB"), ("normal", "normal", "RGB"), ("roughness", "roughness", "L"),
        ("height", "height", "L"), ("oak_arm", "", "RGB"),
    ]  # fmt: skip
    assert [one.y_up for one in maps] == [None, False, None, None, None]
    assert caplog.messages == [
        f"{files[2]}: its channels are equal: read as one",
        "map albedo: oak_diff.png, RGB, 8 bits, albedo by its name",
        "map normal: oak_nor.png, RGB, 8 bits, normal by its name, y-down by its slopes "
        "(else --map KIND=FILE)",
        "map roughness: oak_rgh.png, L, 8 bits, roughness by its name (else --map KIND=FILE)",
        "map height: oak_disp.png, L, 8 bits, height by its name (else --map KIND=FILE)",
        "map oak_arm: oak_arm.png, RGB, 8 bits, of a kind that nothing tells "
        "(else --map KIND=FILE)",
    ]


@pytest.mark.parametrize(
    ("name", "what", "kind", "reason"),
    [
        ("x.png", "normal", "normal", "normal by its values"),
        ("x_rough.png", "normal", "normal", "normal by its values, not roughness as its name says"),
        ("x_normal.png", "color", "", "not normal as its name says: its values are no vectors"),
        ("x_normal.png", "gray", "", "not normal as its name says"),
        ("x_rough.png", "color", "", "not roughness as its name says: its channels differ"),
        ("x.png", "color", "albedo", "albedo as the first in color"),
        ("x.png", "gray", "", "of a kind that nothing tells"),
        ("x.png", "equal", "", "of a kind that nothing tells"),
    ],
)
def test_values_count_more_than_a_name(
    name: str, what: str, kind: str, reason: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    maps = load_maps(saved(folder, {"height.png": "gray", name: what}))
    assert maps[1].kind == kind
    assert maps[1].name == (kind or Path(name).stem)
    assert reason in caplog.messages[-1]


def test_a_flat_normal_map_is_one_if_it_is_named_so(folder: Path) -> None:
    flat = torch.tensor([128.0, 128.0, 255.0])[:, None, None].expand(3, SIDE, SIDE)
    to_pillow(flat).save(folder / "flat_normal.png")
    files = [*saved(folder, {"albedo.png": "color"}), str(folder / "flat_normal.png")]
    assert told(load_maps(files))[1] == ("normal", "normal", "RGB")


def test_kind_and_file_say_what_a_map_is(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    a, b, n = saved(folder, {"a.png": "color", "b_rough.png": "gray", "n.png": "normal"})
    assert told(load_maps([a, f"metalness={b}", f"normal={n}"])) == [
        ("albedo", "albedo", "RGB"), ("metalness", "metalness", "L"), ("normal", "normal", "RGB"),
    ]  # fmt: skip
    assert caplog.messages[-2] == "map metalness: b_rough.png, L, 8 bits, metalness as given"
    (_, blue) = load_maps([b, f"albedo={n}"])  # a blue surface is no normal map
    assert blue.kind == "albedo"
    literal = saved(folder, {"normal=x.png": "gray"})[0]
    assert load_maps([a, literal])[1].mode == "L"


@pytest.mark.parametrize(
    ("kind", "what", "words"),
    [
        ("normal", "color", r"^--map normal=.*x\.png: its values are no vectors of length 1"),
        ("roughness", "color", r"^--map roughness=.*x\.png: its channels differ; leave roughness="),
        ("height", "normal", r"^--map height=.*x\.png: its channels differ; leave height="),
        ("normals", "normal", "--map normals=.*: the kind must be one of albedo, normal, rough"),
    ],
)
def test_an_impossible_kind_is_refused(kind: str, what: str, words: str, folder: Path) -> None:
    a, x = saved(folder, {"a.png": "color", "x.png": what})
    with pytest.raises(InputError, match=words):
        load_maps([a, f"{kind}={x}"])


def test_two_maps_of_one_kind_keep_the_names_of_their_files(folder: Path) -> None:
    files = saved(folder, {"a.png": "color", "wet_rough.png": "gray", "dry_rough.png": "gray"})
    assert [one.name for one in load_maps(files)] == ["albedo", "wet_rough", "dry_rough"]


def test_a_single_image_keeps_no_name_and_normals_are_known(folder: Path) -> None:
    (alone,) = saved(folder, {"bark_normal_dx.png": "normal, down"}, WIDE)
    (one,) = load([alone]).maps
    assert (one.name, one.kind, one.y_up, one.icc_profile) == ("", "normal", False, None)
    (one,) = load(saved(folder, {"bark_rough.png": "gray"})).maps
    assert (one.name, one.kind) == ("", "")


def test_a_name_tells_up_before_the_slopes_do(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = saved(folder, {"a.png": "color", "n_gl.png": "normal, down"})
    images = load(files[:1], linked=(files[1],))
    assert images.maps[1].y_up is True
    wrong = "n_gl.png: its name says y-up, its slopes look y-down; the name counts, rename the file"
    assert wrong in caplog.text
    caplog.set_level(logging.INFO, "gcn_cli")
    assert images.normal_maps(build_config(TURNS)) == [(3, True)]
    assert "turn with the pixels, y-up as its name says (else --normals y-down)" in caplog.text
    images = load(files[:1], linked=(files[1],), rotations=True, normals="y-down")
    assert images.maps[1].y_up is False
    assert "normal by its values, y-down by --normals" in caplog.messages[-1]
    flat = relief(SIDE)[1:]
    flat[1] = 127.5
    to_pillow(flat.round()).save(folder / "ridges.png")
    assert load([folder / "ridges.png"]).maps[0].y_up is None


def test_data_maps_have_no_color_profile(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when they are learned nor where they start a sample: their values stay."""
    caplog.set_level(logging.INFO, "gcn_cli")
    files = saved(
        folder, {"albedo.png": "color", "normal.png": "normal", "metal.png": "equal"}, WIDE
    )
    images = load(files[:1], linked=tuple(files[1:]))
    assert [one.icc_profile for one in images.maps] == [WIDE, None, None]
    assert torch.equal(images.images[0][6:], values("equal")[:1].round())
    assert torch.equal(images.images[0][3:6], values("normal").round())
    left_out = "its color profile is left out, since its values are no colors"
    assert [line for line in caplog.messages if "profile" in line] == [
        f"{file}: {left_out}" for file in files[1:]
    ]
    caplog.clear()
    for start in (files, [open_image(file) for file in files]):
        assert torch.equal(to_pixels(start, images.maps), images.images[0])
    colors = ColorMatch.of([open_image(file) for file in files], images.maps)
    assert [one.icc_profile for one in colors.images] == [WIDE, None, None]
    assert torch.equal(colors.restore(images.images[0]), images.images[0])
    assert f"map normal: {left_out}" in caplog.messages


def test_maps_find_their_place_by_kind(folder: Path) -> None:
    albedo, normal, rough = saved(
        folder, {"albedo.png": "color", "normal.png": "normal", "rough.png": "gray"}
    )
    maps = load_maps([albedo, normal, rough])
    expected = to_pixels([albedo, normal, rough], maps)
    plain = saved(folder, {"a.png": "color", "n.png": "normal", "r.png": "gray"})
    for files in (
        [albedo, normal, rough],
        [rough, albedo, normal],
        plain,
        [plain[0], f"roughness={plain[2]}", f"normal={plain[1]}"],
        [plain[0], f"roughness={plain[2]}", plain[1]],
    ):
        assert torch.equal(to_pixels(linked_images(files, maps), maps), expected)
    for files, words in (
        ([plain[0], plain[2], plain[1]], r"r\.png: taken for normal, but its values are no vect"),
        ([plain[0], plain[1], plain[1]], r"n\.png: taken for roughness, but its channels differ; "),
        ([plain[0], f"ao={rough}", normal], "--map ao=.*: the maps of the model are albedo, norm"),
        ([plain[0], f"normal={normal}", f"normal={rough}"], "--map normal=.*give each once"),
    ):
        with pytest.raises(InputError, match=words):
            linked_images(files, maps)
    wide = replace(maps[0], icc_profile=made_profile(PRIMARIES[9], (1.8,), 3))
    assert linked_images([albedo], [wide])[0].icc_profile is None  # a repair returns to it
    other = replace(maps[2], name="orm", kind="")
    files = [albedo, normal, plain[2]]
    assert len(linked_images(files, [*maps[:2], other])) == 3


MATERIAL = {
    "Bark014_1K-PNG.png": "color", "Bark014_1K-PNG_AmbientOcclusion.png": "gray",
    "Bark014_1K-PNG_Color.png": "color", "Bark014_1K-PNG_Displacement.png": "gray",
    "Bark014_1K-PNG_NormalDX.png": "normal, down", "Bark014_1K-PNG_NormalGL.png": "normal",
    "Bark014_1K-PNG_Roughness.png": "equal",
}  # fmt: skip


def test_a_folder_of_maps_is_one_material(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    saved(tmp_path / "bark", MATERIAL)
    images = load([tmp_path / "bark"])
    assert [one.name for one in images.maps] == ["albedo", "normal", "roughness", "height", "ao"]
    assert images.maps[1].y_up is True
    assert len(images.sources) == 5
    assert caplog.messages[0] == (
        f"{tmp_path / 'bark'}: one material: Bark014_1K-PNG_Color.png, "
        "Bark014_1K-PNG_NormalGL.png, Bark014_1K-PNG_Roughness.png, "
        "Bark014_1K-PNG_Displacement.png, Bark014_1K-PNG_AmbientOcclusion.png; left out: "
        "Bark014_1K-PNG.png, Bark014_1K-PNG_NormalDX.png (to learn them as images of one texture, "
        "name them one by one)"
    )
    one_by_one = [str(tmp_path / "bark" / name) for name in MATERIAL]
    assert len(load(one_by_one).images) == 7
    assert len(load([tmp_path / "bark"], **WHOLE).images) == 7  # objects: whole images


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["a.png", "b.png"], None),
        (["rock_color.png", "sand_color.png"], None),
        (["albedo.png", "normal.png", "house.png"], "the name of house.png tells no kind of map"),
        (
            ["a_color.png", "a_normal.png", "b_color.png"],
            "a_color.png and b_color.png are both of albedo",
        ),
    ],
)
def test_other_folders_are_images_of_one_texture(
    files: list[str], reason: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    saved(tmp_path / "x", dict.fromkeys(files, "color"))
    assert len(load([tmp_path / "x"]).images) == len(files)
    said = [line for line in caplog.messages if "not the maps of a material" in line]
    assert len(said) == (reason is not None)
    assert all(line.endswith(f"since {reason}") for line in said)


def test_maps_of_a_material_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x", {"albedo.png": "color", "ao.png": "gray"})
    PillowImage.new("L", (20, 20)).save(tmp_path / "x" / "ao.png")
    with pytest.raises(
        InputError, match="ao: is 20x20, albedo 48x48; linked maps need one size; --re"
    ):
        load([tmp_path / "x"])
    assert len(load([tmp_path / "x"], size=24).maps) == 2


def test_a_material_is_resumed_and_its_heights_keep_16_bits(tmp_path: Path) -> None:
    folder = tmp_path / "bark"
    saved(folder, {"bark_albedo.png": "color", "bark_normal.png": "normal"})
    heights = (20000 + 600 * torch.rand(SIDE, SIDE)).round().numpy().astype(np.uint16)
    PillowImage.fromarray(heights).save(folder / "bark_height.png")
    options: dict[str, Any] = {**SMALL_TEXTURE, "output": tmp_path / "run"}
    gcn.train(str(folder), **options, iterations=2, should_stop=lambda: True)
    model = gcn.train(str(folder), **options, iterations=2)
    assert model.complete
    assert model.describe()["maps"] == [
        "albedo RGB 8 bits", "normal RGB 8 bits y-up", "height L 16 bits",
    ]  # fmt: skip
    sample = next(model.samples(steps=2, kind="torch"))
    height = model.split(sample)["height"]
    path = str(tmp_path / "height.png")
    record = {"software": "gcn"}
    write_map(height, path, model.maps[2], record, new=True, quality=None)
    written = read_image(path)
    assert (written.bit_depth, written.mode) == (16, "L")
    low, high = heights.min() / 257, heights.max() / 257
    assert low - 5 < float(written.pixels.min()) < float(written.pixels.max()) < high + 5
    assert len(set(written.pixels.flatten().tolist())) > 10  # 600 of 65535 are three of 255


def test_a_kind_on_the_command_line(tmp_path: Path) -> None:
    saved(tmp_path, {"a.png": "color", "n.png": "normal", "r.png": "gray"})
    train = ["train", "a.png", "--map", "normal=n.png", "--map", "roughness=r.png", *SMALL]
    done = run(*train, "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    asked = gcn.load(tmp_path / "run").checkpoint.asked
    assert asked["maps"] == ["normal=n.png", "roughness=r.png"]
    start = ["synthesize", "run", "--start", "a.png", "--map", "roughness=r.png", "--map", "n.png"]
    done = run(*start, "--steps", "2", "-o", "s.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "s_roughness.png").exists()
    names = [one["name"] for one in (read_record(tmp_path / "s_normal.png") or {})["inputs"]]
    assert names == ["a.png", "r.png", "n.png"]
    done = run("train", "a.png", "--map", "normals=n.png", cwd=tmp_path)
    assert done.returncode == 2
    assert b"--map normals=n.png: the kind must be one of albedo, normal" in done.stderr


@pytest.mark.parametrize(
    ("files", "deviations"),
    [
        ({"a_albedo.png": "albedo", "a_normal.png": "normal"}, [1.0, 0.5]),
        ({"a_height.png": "gray", "a_normal.png": "normal"}, [1.0, 1.0]),
    ],
)
def test_data_maps_count_less_beside_colors_only(
    files: dict[str, str], deviations: list[float], folder: Path
) -> None:
    first, second = saved(folder, files)
    model = gcn.train(first, linked=(second,), iterations=1, **SMALL_TEXTURE)
    maps = [read_image(name).pixels for name in (first, second)]
    learned = model.checkpoint.normalization.to_model(torch.cat(maps))
    parts = torch.split(learned, [len(one) for one in maps])
    found = [float(part.var(dim=(1, 2), unbiased=False).mean()) ** 0.5 for part in parts]
    assert found == pytest.approx(deviations, rel=0.01)
