"""What linked maps are: by KIND=FILE, by the names of files and by values; folders of maps."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images import TextureMap, to_pillow
from gcn_cli.images.color import PRIMARIES, made_profile
from tests.small import relief
from tests.test_inputs import load

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
    assert [one.normals for one in maps] == [False, True, False, False, False]
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
    assert (maps[1].kind, maps[1].normals) == (kind, kind == "normal")
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
    assert caplog.messages[-2] == "map metalness: b_rough.png, L, 8 bits, metalness as you say"
    (_, blue) = load_maps([b, f"albedo={n}"])  # a blue surface is no normal map
    assert (blue.kind, blue.normals) == ("albedo", False)
    literal = saved(folder, {"normal=x.png": "gray"})[0]
    assert load_maps([a, literal])[1].mode == "L"


@pytest.mark.parametrize(
    ("kind", "what", "words"),
    [
        ("normal", "color", r"^--map normal=.*x\.png: its values are no vectors of length 1"),
        ("roughness", "color", r"^--map roughness=.*x\.png: its channels differ; leave roughness="),
        ("height", "normal", r"^--map height=.*x\.png: its values are vectors of length 1"),
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
