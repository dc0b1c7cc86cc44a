"""Kinds of maps in the names of files, as sites of materials and engines write them."""

import pytest

from gcn_cli.images.materials import find_maps, kind_of_name, y_up_of_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("albedo.png", "albedo"),
        ("Bark014_1K-PNG_Color.png", "albedo"),
        ("wood_rough_diff_2k.jpg", "albedo"),
        ("T_Rock_BC.tga", "albedo"),
        ("Rock_BaseColor.png", "albedo"),
        ("rock base colour.png", "albedo"),
        ("stone_floor_nor_gl_1k.exr", "normal"),
        ("Bark014_1K-PNG_NormalDX.png", "normal"),
        ("T_Rock_N.png", "normal"),
        ("Bark_Roughness.png", "roughness"),
        ("rock_metallic.png", "metalness"),
        ("bark_disp_4k.png", "height"),
        ("Bark014_AmbientOcclusion.jpg", "ao"),
        ("ambient-occlusion.png", "ao"),
        ("lamp_emissive.png", "emission"),
        ("texture.png", None),
        ("colorful_houses.png", None),
        ("n.png", None),
    ],
)
def test_kind_of_name(name: str, kind: str | None) -> None:
    assert kind_of_name(name) == kind


@pytest.mark.parametrize(
    ("name", "y_up"),
    [
        ("stone_nor_gl_1k.png", True),
        ("Bark_NormalDX.png", False),
        ("bark_normal_dx.png", False),
        ("normal_opengl.png", True),
        ("normal.png", None),
    ],
)
def test_direction_of_green_in_a_name(name: str, y_up: bool | None) -> None:
    assert y_up_of_name(name) == y_up


@pytest.mark.parametrize(
    ("others", "left_out"),
    [
        (["Rock035.png"], ["Rock035.png"]),  # a preview: the name of all maps begins as it does
        (["Rock035_1K-JPG_sphere.png"], ["Rock035_1K-JPG_sphere.png"]),
        (["Rock035_1K-JPG_NormalDX.png"], ["Rock035_1K-JPG_NormalDX.png"]),
        (["house.png"], None),
        (["樹皮.png"], None),  # has no words
    ],
)
@pytest.mark.parametrize("normal", ["Normal", "NormalGL"])
def test_maps_are_found_beside_previews_and_the_other_normals(
    others: list[str], left_out: list[str] | None, normal: str
) -> None:
    names = [f"Rock035_1K-JPG_{word}.png" for word in ("Color", normal, "Roughness")]
    maps, reason = find_maps([*others, *names])
    assert maps == ([] if left_out is None else names)
    assert (reason is None) == (left_out is not None)


def test_normals_that_say_no_direction_are_both_maps() -> None:
    same = ["a_normal.png", "b_normal.png"]
    assert find_maps(["color.png", *same])[1] == "a_normal.png and b_normal.png are both of normal"
    assert find_maps(["color.png", "normal.png", "normal_gl.png"])[0] == [
        "color.png",
        "normal_gl.png",
    ]
