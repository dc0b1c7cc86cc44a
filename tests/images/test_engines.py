"""Which channels of a model go into which file, under the names that engines expect."""

from dataclasses import replace

import pytest
import torch

from gcn_cli.errors import InputError
from gcn_cli.images import Image, TextureMap
from gcn_cli.images.color import PRIMARIES, SRGB_CURVE, made_profile, profile_name, to_profile
from gcn_cli.images.engines import ENGINES, Layout, engine_layout, plain_layout
from gcn_cli.images.image import to_integers

ALBEDO = TextureMap("albedo", "RGB", 8, kind="albedo")
NORMAL = TextureMap("normal", "RGB", 8, kind="normal", y_up=True)
ROUGH = TextureMap("roughness", "L", 8, icc_profile=b"gray", dpi=72, kind="roughness")
METAL = TextureMap("metalness", "RGB", 8, kind="metalness")
HEIGHT = TextureMap("height", "L", 16, kind="height")
OCCLUSION = TextureMap("ao", "L", 16, kind="ao")
EMISSION = TextureMap("emission", "RGB", 8, kind="emission")
OPACITY = TextureMap("opacity", "L", 8, kind="opacity")
MOSS = TextureMap("moss", "L", 8)
EVERY = [ALBEDO, NORMAL, ROUGH, METAL, HEIGHT, OCCLUSION, EMISSION, OPACITY, MOSS]


def sample_of(maps: list[TextureMap]) -> torch.Tensor:
    """Channel k of a model is 10 (k + 1) everywhere."""
    count = sum(texture_map.channels for texture_map in maps)
    return (10.0 * (torch.arange(count) + 1))[:, None, None].expand(count, 2, 3)


def values(layout: Layout, maps: list[TextureMap]) -> dict[str, list[float]]:
    """The value of every channel of every file."""
    sample = sample_of(maps)
    return {f.texture_map.name: f.pixels(sample)[:, 0, 0].tolist() for f in layout.files}


def test_a_map_is_a_file_of_its_channels_without_a_copy() -> None:
    layout = plain_layout(EVERY)
    assert layout.names == [texture_map.name for texture_map in EVERY]
    sample = sample_of(EVERY).contiguous()
    parts = [file.pixels(sample) for file in layout.files]
    assert torch.equal(torch.cat(parts), sample)
    assert parts[0].data_ptr() == sample.data_ptr()
    wide = replace(ALBEDO, icc_profile=b"profile")
    layout = plain_layout([wide, ROUGH])
    assert [m.icc_profile for m in layout.maps] == [b"profile", None]  # none of data
    assert plain_layout([replace(ROUGH, kind="")]).maps[0].icc_profile == b"gray"


def test_linked_maps_of_known_kinds_are_a_material() -> None:
    assert plain_layout([ALBEDO, NORMAL]).is_material
    assert not plain_layout([ALBEDO, MOSS]).is_material
    assert not plain_layout([replace(ALBEDO, name="")]).is_material
    assert engine_layout("godot", [ALBEDO, MOSS]).is_material


def test_files_and_channels_of_unity() -> None:
    layout = engine_layout("unity", EVERY)
    assert values(layout, EVERY) == {
        "BaseMap": [10, 20, 30, 160],
        "Normal": [40, 50, 60],
        "MaskMap": [90, 120, 0, 255 - 70],  # metalness, a mean; occlusion; none; smoothness
        "Height": [110],
        "Emission": [130, 140, 150],
        "moss": [170],
    }
    depths = {m.name: (m.mode, m.bit_depth, m.icc_profile) for m in layout.maps}
    assert depths["BaseMap"] == ("RGBA", 8, None)
    assert depths["MaskMap"] == ("RGBA", 16, None)
    assert depths["Height"] == ("L", 16, None)
    assert layout.notes == ()


def test_files_and_channels_of_unreal() -> None:
    layout = engine_layout("unreal", EVERY)
    assert values(layout, EVERY) == {
        "BaseColor": [10, 20, 30],
        "N": [40, 255 - 50, 60],  # DirectX
        "ORM": [120, 70, 90],
        "H": [110],
        "Emissive": [130, 140, 150],
        "Opacity": [160],
        "moss": [170],
    }
    assert layout.engine is ENGINES["unreal"]


@pytest.mark.parametrize(
    ("engine", "color", "packed", "depth"),
    [("godot", "albedo", "orm", 16), ("gltf", "baseColor", "occlusionRoughnessMetallic", 8)],
)
def test_files_and_channels_of_godot_and_gltf(
    engine: str, color: str, packed: str, depth: int
) -> None:
    layout = engine_layout(engine, EVERY)
    written = values(layout, EVERY)
    assert written[color] == [10, 20, 30, 160]
    assert written[packed] == [120, 70, 90]
    assert written["normal"] == [40, 50, 60]
    assert written["height"] == [110]
    depths = {m.name: m.bit_depth for m in layout.maps}
    assert (depths[packed], depths["height"]) == (depth, 16)


def test_missing_maps_are_neutral_in_packed_files_and_are_told() -> None:
    layout = engine_layout("unity", [ALBEDO, OCCLUSION])
    assert values(layout, [ALBEDO, OCCLUSION])["MaskMap"] == [0, 40, 0, 0]  # rough, no metal
    (note,) = layout.notes
    assert note == "no map of metalness and roughness; MaskMap has metalness 0 and roughness 1"
    orm = engine_layout("godot", [METAL])
    assert values(orm, [METAL]) == {"orm": [255, 255, 20]}
    assert engine_layout("gltf", [ALBEDO, NORMAL]).names == ["baseColor", "normal"]


def test_opacity_is_a_file_where_no_base_color_takes_it() -> None:
    assert engine_layout("unity", [OPACITY, NORMAL]).names == ["Opacity", "Normal"]
    soft = replace(ALBEDO, mode="RGBA")
    written = values(engine_layout("gltf", [soft, OPACITY]), [soft, OPACITY])
    assert written == {"baseColor": [10, 20, 30, 40], "opacity": [50]}
    gray = replace(ALBEDO, mode="L")
    assert engine_layout("godot", [gray, OPACITY]).maps[0].mode == "LA"


def test_the_second_map_of_a_kind_keeps_its_name() -> None:
    second = replace(ALBEDO, name="wet")
    assert engine_layout("unreal", [ALBEDO, second]).names == ["BaseColor", "wet"]
    taken = replace(MOSS, name="HEIGHT")  # one file where letters have no case
    with pytest.raises(InputError, match=r"^--names godot: two maps are named height; leave"):
        engine_layout("godot", [HEIGHT, taken])


@pytest.mark.parametrize("engine", list(ENGINES))
def test_colors_are_converted_to_srgb_which_engines_assume(engine: str) -> None:
    p3 = made_profile(PRIMARIES[12], SRGB_CURVE, 3)
    wide = replace(ALBEDO, icc_profile=p3)
    maps = [wide, NORMAL, OPACITY, replace(wide, name="wet")]
    layout = engine_layout(engine, maps)
    assert {m.icc_profile for m in layout.maps} == {None}
    colors = torch.tensor([200.0, 60, 30])[:, None, None].expand(3, 2, 3)
    sample = torch.cat([colors, sample_of([NORMAL, OPACITY]), colors])
    written = {f.texture_map.name: f.pixels(sample)[:, 0, 0] for f in layout.files}
    srgb = to_profile(Image(colors, "RGB", 8, p3, color_managed=True), None).pixels[:, 0, 0]
    assert srgb[0] > 210  # a red that is more saturated in sRGB
    base = ENGINES[engine].names["albedo"]
    assert torch.equal(written[base][:3], srgb)
    assert torch.equal(written["wet"], srgb)
    assert written[base][3:].tolist() == ([40] if ENGINES[engine].alpha else [])
    told = [f"engines ignore color profiles: {one} is converted from {profile_name(p3)} to sRGB"
            for one in (base, "wet")]  # fmt: skip
    assert list(layout.notes) == told
    gray = replace(ALBEDO, mode="L", icc_profile=made_profile(PRIMARIES[1], (1.8,), 1))
    (file,) = engine_layout(engine, [gray]).files
    assert file.texture_map.icc_profile is None
    assert float(file.pixels(torch.full((1, 2, 2), 128.0))[0, 0, 0]) > 132  # 128^1.8 is lighter
    (same,) = engine_layout(engine, [ALBEDO]).files
    assert same.converted_from is None


@pytest.mark.parametrize("depth", [8, 16])
def test_green_of_normals_is_flipped_exactly(depth: int) -> None:
    """It is 255 - x, or 65535 - x, of the file that is written without."""
    normal = replace(NORMAL, bit_depth=depth)
    pixels = 255 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels[:, :8] = 127.5  # halves, of surfaces without a slope
    (up,), (down,) = plain_layout([normal], True).files, plain_layout([normal], False).files
    kept, flipped = (to_integers(file.pixels(pixels), depth) for file in (up, down))
    assert (kept[..., ::2] == flipped[..., ::2]).all()
    assert (flipped[..., 1] == 2**depth - 1 - kept[..., 1]).all()
    assert (kept == to_integers(pixels, depth)).all()
    assert [file.texture_map.y_up for file in (up, down)] == [True, False]


def test_normals_of_unknown_direction_are_taken_for_up_and_this_is_told() -> None:
    unknown = replace(NORMAL, y_up=None)
    layout = engine_layout("unreal", [ALBEDO, unknown])
    assert values(layout, [ALBEDO, unknown])["N"] == [40, 255 - 50, 60]
    assert "taken for up; if bumps look like dents, train with --normals y-down" in layout.notes[0]
    down = replace(NORMAL, y_up=False)
    assert values(engine_layout("unreal", [down]), [down])["N"] == [10, 20, 30]
    assert values(engine_layout("unity", [down]), [down])["Normal"] == [10, 255 - 20, 30]
    assert values(engine_layout("unity", [down], False), [down])["Normal"] == [10, 20, 30]


def test_what_cannot_be_named_or_turned_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--names unity: .* train with --map KIND=FILE"):
        engine_layout("unity", [TextureMap()])
    for maps in ([ALBEDO], [TextureMap()]):
        with pytest.raises(InputError, match=r"^--normals y-up: the model has no normal map"):
            plain_layout(maps, True)
    unknown = replace(NORMAL, y_up=None)
    with pytest.raises(InputError, match=r"^--normals y-down: it is not known whether green"):
        plain_layout([ALBEDO, unknown], False)
    with pytest.raises(InputError, match=r"^--normals y-down: it is not known whether green"):
        engine_layout("godot", [ALBEDO, unknown], False)
