"""The shading of materials: closed forms, energy, and which way relief stands out."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import shading
from gcn_cli.images import TextureMap
from gcn_cli.shading import Surface
from tests.small import relief

UP = torch.tensor([0.0, 0.0, 1.0])


def level(
    count: int = 1, color: float = 0.5, roughness: float = 1.0, metalness: float = 0.0
) -> Surface:
    """A level surface of `count` pixels in a row."""

    def one(value: float, channels: int = 1) -> Tensor:
        return torch.full((channels, 1, count), value)

    return Surface(
        base_color=one(color, 3),
        normal=UP[:, None, None].expand(-1, 1, count),
        roughness=one(roughness),
        metalness=one(metalness),
        occlusion=one(1.0),
        emission=one(0.0, 3),
        opacity=one(1.0),
    )


def directions(steps: int) -> tuple[Tensor, Tensor]:
    """Directions (N, 3) over the hemisphere above a surface, and the solid angle (N,) of each."""
    z = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    turn = (torch.arange(4 * steps, dtype=torch.float64) + 0.5) * math.pi / (2 * steps)
    rise, azimuth = torch.meshgrid(z, turn, indexing="ij")
    across = (1 - rise**2).sqrt()
    vectors = torch.stack([across * azimuth.cos(), across * azimuth.sin(), rise], dim=-1)
    areas = torch.full((rise.numel(),), 2 * math.pi / rise.numel())
    return vectors.reshape(-1, 3).float(), areas


def bowl(side: int = 33, *, y_up: bool = True, sign: float = 1.0) -> Tensor:
    """The normal map (3, side, side) in 0..255 of a dome, or with `sign` -1 of a bowl."""
    line = torch.linspace(-0.7, 0.7, side)
    right, up = line.expand(side, side), -line[:, None].expand(side, side)
    z = (1 - right**2 - up**2).clamp_min(0.01).sqrt()
    vectors = torch.stack([sign * right, sign * (up if y_up else -up), z])
    return 127.5 * (F.normalize(vectors, dim=0) + 1)


@pytest.mark.parametrize("color", [0.0, 0.2, 0.5])
def test_a_level_surface_under_the_zenith_has_the_radiance_of_the_closed_form(color: float) -> None:
    """At n = l = v all cosines are 1: D = 1 / (pi a^2), V = 1 / 4, F = F0."""
    for roughness in (0.3, 1.0):
        alpha, specular = roughness**2, 0.04
        reflected = (1 - specular) * color + specular / (4 * alpha**2)
        sky = (1 - specular) * color + specular
        expected = (1 - shading.AMBIENT) * reflected + shading.AMBIENT * sky
        surface = level(color=color, roughness=roughness)
        radiance = shading.radiance(surface, UP)
        torch.testing.assert_close(radiance, torch.full((3, 1, 1), expected))


def test_the_light_is_as_strong_from_every_elevation() -> None:
    """A level diffuse surface keeps its color."""
    for elevation in (90.0, 45.0, 20.0):
        image = shading.lit(level(color=0.25, roughness=0.9), elevation=elevation)
        assert float(shading.to_linear(image).mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_facets_cover_the_projected_hemisphere(alpha: float) -> None:
    """The integral of D (n.h) over the hemisphere is 1."""
    cosine = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    density = shading.normal_distribution(cosine, torch.tensor(alpha, dtype=torch.float64))
    assert float(2 * math.pi * (density * cosine).mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_visibility_is_that_of_the_shadowing_of_smith(alpha: float) -> None:
    """G = 1 / (1 + L(l) + L(v)), L = (sqrt(1 + a^2 tan^2) - 1) / 2: Heitz 2014, equation 72."""
    cosines = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    light, view = torch.cartesian_prod(cosines, cosines).T

    def lambda_(cosine: Tensor) -> Tensor:
        return ((1 + alpha**2 * (1 / cosine**2 - 1)).sqrt() - 1) / 2

    expected = 1 / (1 + lambda_(light) + lambda_(view)) / (4 * light * view)
    squared = torch.full_like(light, alpha)
    torch.testing.assert_close(shading.visibility(light, view, squared), expected)


def test_light_and_camera_may_be_exchanged() -> None:
    """Helmholtz reciprocity: f(l, v) = f(v, l)."""
    towards, _ = directions(4)
    for surface in (level(roughness=0.4), level(roughness=0.7, metalness=1.0, color=0.8)):
        for light, view in zip(towards, towards.flip(0).roll(5, 0), strict=True):
            there, back = (shading.brdf(surface, *pair) for pair in ((light, view), (view, light)))
            torch.testing.assert_close(there, back)


def test_rough_white_surfaces_give_back_no_more_light_than_they_get() -> None:
    """The integral of f (n.l) is at most 1, and nearly 1 of what is no metal."""
    towards, areas = directions(10)
    surface = level(6, color=1.0)
    roughness = torch.tensor([0.6, 0.8, 1.0]).repeat(2).view(1, 1, 6)
    metalness = torch.tensor([0.0, 1.0]).repeat_interleave(3).view(1, 1, 6)
    surface = replace(surface, roughness=roughness, metalness=metalness)
    for degrees in (0, 30, 60):  # of the camera to the normal
        view = shading.direction(0.0, 90.0 - degrees)
        given = torch.stack([shading.brdf(surface, light, view)[0, 0] for light in towards])
        shares = (given * (towards[:, 2] * areas)[:, None]).sum(dim=0)
        assert float(shares.max()) < 1.005
        assert float(shares[:3].min()) > 0.9


def test_slopes_towards_the_light_are_bright_in_both_conventions() -> None:
    """A dome is bright at the left if the light is there; a bowl at the right."""
    images = []
    for y_up in (True, False):
        maps = [TextureMap("normal", kind="normal", y_up=y_up)]
        dome = bowl(y_up=y_up)
        image = shading.lit(shading.material(dome, maps), azimuth=180.0)
        assert float(image[:, 16, 4].mean()) > float(image[:, 16, 28].mean()) + 50
        image = shading.lit(shading.material(dome, maps), azimuth=90.0)
        assert float(image[:, 4, 16].mean()) > float(image[:, 28, 16].mean()) + 50
        hollow = shading.lit(shading.material(bowl(y_up=y_up, sign=-1), maps), azimuth=90.0)
        assert float(hollow[:, 4, 16].mean()) < float(hollow[:, 28, 16].mean()) - 50
        images.append(image)
    torch.testing.assert_close(*images)
    unknown = shading.material(bowl(), [TextureMap("normal", kind="normal")])
    torch.testing.assert_close(shading.lit(unknown, azimuth=90.0), images[0])


def test_heights_give_the_normals_of_their_slopes() -> None:
    """The normal map that belongs to the heights, at the slope that is taken for theirs."""
    heights, *normals = relief()
    wanted = torch.stack(normals) / 127.5 - 1
    slopes = -wanted[:2] / wanted[2]
    found = shading.normals_of_height(heights)
    assert float(found.norm(dim=0).sub(1).abs().max()) < 1e-5
    scale = shading.SLOPE / slopes.square().sum(dim=0).mean().sqrt()
    torch.testing.assert_close(-found[:2] / found[2], scale * slopes, atol=1e-4, rtol=1e-4)
    flat = shading.normals_of_height(torch.full((8, 8), 7.0))
    assert torch.equal(flat, UP[:, None, None].expand(-1, 8, 8))


def test_heights_do_not_wrap_at_sides_that_do_not_tile() -> None:
    ramp = torch.arange(16.0).expand(16, 16)
    wrapped, cut = (
        shading.normals_of_height(ramp, (True, periodic))[0, :, 0] for periodic in (True, False)
    )
    assert float(wrapped.mean()) > 0.2  # the side as a cliff
    assert float(cut.mean()) < -0.1


def test_maps_are_read_by_their_kinds() -> None:
    maps = [
        TextureMap("a", "RGBA", kind="albedo"),
        TextureMap("r", "RGB", kind="roughness"),
        TextureMap("m", "L", kind="metalness"),
        TextureMap("o", "LA", kind="ao"),
        TextureMap("e", "RGB", kind="emission"),
        TextureMap("t", "L", kind="opacity"),
        TextureMap("other", "RGB"),
    ]
    values = [188.0] * 3 + [127.5] + [51.0] * 3 + [255.0] + [102.0, 0.0] + [0.0, 0.0, 255.0, 127.5]
    sample = torch.tensor([*values, 1.0, 2.0, 3.0])[:, None, None].expand(-1, 4, 5)
    surface = shading.material(sample, maps)
    expected: dict[str, Any] = {
        "base_color": [0.503] * 3, "normal": [0, 0, 1], "roughness": [0.2], "metalness": [1],
        "occlusion": [0.4], "emission": [0, 0, 1], "opacity": [0.25],
    }  # fmt: skip
    for name, value in vars(surface).items():
        assert value.shape == (len(expected[name]), 4, 5)
        assert value[:, 1, 2].tolist() == pytest.approx(expected[name], abs=2e-3), name
    assert not shading.has_relief(maps)
    assert shading.has_relief([*maps, TextureMap("n", kind="normal")])


def test_missing_maps_are_neutral_and_what_is_transparent_is_white() -> None:
    surface = Surface.of({"opacity": torch.tensor([[[0.0, 255.0]]])})
    assert surface.base_color.mean().item() == pytest.approx(0.5, abs=0.01)
    assert surface.roughness.mean().item() == pytest.approx(0.8)
    assert surface.metalness.max() == surface.emission.max() == 0
    assert surface.occlusion.min() == 1
    clear, opaque = shading.lit(surface)[0, 0].tolist()
    assert clear == 255
    assert opaque == pytest.approx(188, abs=8)


def test_bands_of_rows_give_the_same_image(monkeypatch: pytest.MonkeyPatch) -> None:
    surface = Surface.of({"albedo": 255 * torch.rand(3, 20, 7), "height": torch.rand(1, 20, 7)})
    whole = shading.lit(surface)
    monkeypatch.setattr(shading, "BAND", 6)
    torch.testing.assert_close(shading.lit(surface), whole)


def test_tones_keep_base_colors_and_never_clip() -> None:
    levels = torch.linspace(0, 5, 501).expand(3, 1, -1)
    tones = shading.compressed(levels)
    torch.testing.assert_close(tones[..., :80], levels[..., :80])
    assert bool((tones.diff(dim=-1) > 0).all())
    assert float(tones.max()) < 1
    values = torch.arange(256.0)
    again = shading.to_srgb(shading.to_linear(values))
    torch.testing.assert_close(again, values, atol=1e-3, rtol=0)


def test_a_turning_light_goes_once_round() -> None:
    first, second, *_ = azimuths = shading.turning(24)
    assert first - second == 15
    assert len(azimuths) == 24
    x, y, z = shading.direction(first, 45.0).tolist()
    assert (x, y, z) == pytest.approx((-0.5, 0.5, math.sqrt(0.5)))
