"""The look of a material under a light, computed from its maps.

A small physically based model: one distant light and a uniform sky above a surface that a distant
camera sees from straight above. Nothing casts a shadow. Directions are unit vectors (3,): x to the
right, y up the image, z towards the camera. Colors and radiances are linear, with sRGB primaries;
1 is what a white level surface sends to the camera.

The equations are those of the glTF 2.0 specification, appendix B, where each has its origin:

- Burley 2012, "Physically based shading at Disney": roughness and metalness as parameters;
- Walter et al. 2007, "Microfacet models for refraction through rough surfaces": GGX;
- Heitz 2014, "Understanding the masking-shadowing function in microfacet-based BRDFs";
- Schlick 1994, "An inexpensive BRDF model for physically-based rendering".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.images.image import NEUTRAL, TextureMap, split_maps

AMBIENT = 0.25  # radiance of the sky, of which a level white surface sends back as much
ELEVATION = 45.0  # degrees of the light above the surface
UPPER_LEFT = 135.0  # azimuth of a light in degrees, from the right over the top of the image
DIELECTRIC = 0.04  # reflectance of all but metals at normal incidence
NEUTRAL_COLOR, NEUTRAL_ROUGHNESS = 188.0, 204.0  # gray levels: linear 0.5, and 0.8
SLOPE = 0.25  # root mean square of the slopes that heights are taken for: they have no unit
STEEPEST = 0.05  # least z of a normal: the camera sees all of the surface
SMOOTHEST = 0.05  # least roughness; a mirror would show a distant light in no pixel
SHOULDER = 0.8  # radiance above which tones are compressed
BAND = 256  # rows that are shaded at once, to save memory


@dataclass(frozen=True)
class Surface:
    """What the maps of a material say of each pixel; tensors (3, H, W) or (1, H, W)."""

    base_color: Tensor  # linear: of the diffuse reflection, or of the specular one of a metal
    normal: Tensor  # unit vectors
    roughness: Tensor
    metalness: Tensor
    occlusion: Tensor  # share of the sky that reaches the pixel
    emission: Tensor  # linear
    opacity: Tensor

    @classmethod
    def of(
        cls,
        maps: Mapping[str, Tensor],
        *,
        y_up: bool = True,
        axes: tuple[bool, bool] = (True, True),
    ) -> "Surface":
        """The surface of maps (C, H, W) in 0..255 by their kinds, of `materials.MAP_KINDS`.

        Maps that are missing: color of linear 0.5, roughness 0.8, no metal, all of the sky, no
        emission, opaque. Normals come from the height if there is no normal map. An alpha channel
        counts in the albedo only, as opacity.

        y_up: whether green of the normal map points up (OpenGL). axes: whether heights go on at
        the opposite side, vertically and horizontally.
        """
        height, width = next(iter(maps.values())).shape[1:]

        def values(kind: str, neutral: float, channels: int = 1) -> Tensor:
            found = maps.get(kind)
            if found is None:
                return torch.full((channels, 1, 1), neutral).expand(-1, height, width)
            colors = found[: 1 if len(found) < 3 else 3].float()
            if channels == 1:
                colors = colors.mean(dim=0, keepdim=True)
            return colors.expand(channels, -1, -1)

        normal = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(-1, height, width)
        if "normal" in maps:
            normal = _decoded_normals(maps["normal"][:3].float(), y_up=y_up)
        elif "height" in maps:
            normal = normals_of_height(values("height", 0.0)[0], axes)
        albedo, opacity = maps.get("albedo"), values("opacity", 255.0) / 255
        if albedo is not None and len(albedo) in (2, 4):
            opacity = opacity * albedo[-1:] / 255
        return cls(
            base_color=to_linear(values("albedo", NEUTRAL_COLOR, 3)),
            normal=normal,
            roughness=values("roughness", NEUTRAL_ROUGHNESS) / 255,
            metalness=values("metalness", 0.0) / 255,
            occlusion=values("ao", 255.0) / 255,
            emission=to_linear(values("emission", 0.0, 3)),
            opacity=opacity,
        )

    def rows(self, rows: slice) -> "Surface":
        """The part of some rows."""
        return Surface(**{name: values[:, rows] for name, values in vars(self).items()})


def has_relief(maps: Sequence[TextureMap]) -> bool:
    """Whether maps state normals or heights; a light shows nothing of a material without."""
    return any(texture_map.kind in ("normal", "height") for texture_map in maps)


def material(
    sample: Tensor, maps: Sequence[TextureMap], axes: tuple[bool, bool] = (True, True)
) -> Surface:
    """The surface of a sample (C, H, W) in 0..255 of linked maps, by their kinds.

    Green of a normal map whose direction is not known is taken as up. axes: as in `Surface.of`.
    """
    parts: dict[str, Tensor] = {}
    y_up = True
    for part, texture_map in zip(split_maps(sample, maps), maps, strict=True):
        parts.setdefault(texture_map.kind, part)
        if texture_map.kind == "normal":
            y_up = texture_map.y_up is not False
    return Surface.of(parts, y_up=y_up, axes=axes)


def lit(surface: Surface, azimuth: float = UPPER_LEFT, elevation: float = ELEVATION) -> Tensor:
    """The image (3, H, W) in 0..255 of a surface under a light; white where it is transparent."""
    light, height = direction(azimuth, elevation), surface.normal.shape[1]
    bands = []
    for top in range(0, height, BAND):
        part = surface.rows(slice(top, top + BAND))
        shown = to_srgb(compressed(radiance(part, light)))
        bands.append(torch.lerp(torch.full_like(shown, 255.0), shown, part.opacity))
    return torch.cat(bands, dim=1)


def turning(count: int) -> list[float]:
    """Azimuths of a light that goes once round clockwise, from the upper left."""
    return [UPPER_LEFT - 360 * index / count for index in range(count)]


def direction(azimuth: float, elevation: float) -> Tensor:
    """The unit vector (3,) towards a light, by angles in degrees."""
    turn, rise = math.radians(azimuth), math.radians(elevation)
    across = math.cos(rise)
    return torch.tensor([across * math.cos(turn), across * math.sin(turn), math.sin(rise)])


def radiance(surface: Surface, light: Tensor) -> Tensor:
    """Radiance (3, H, W) towards the camera: reflected light, reflected sky and emission.

    L = f(l, v) E (n.l) + A o ((1 - F0) d + F0) + e, with f of `brdf`, irradiance E, radiance A of
    the sky, occlusion o and diffuse color d: the rendering equation (Kajiya 1986) of a distant
    light and a sky that is the same everywhere. E is such that a white level Lambertian surface
    under both has the radiance 1 from every elevation of the light.
    """
    view = torch.tensor([0.0, 0.0, 1.0])
    irradiance = math.pi * (1 - AMBIENT) / float(light[2])
    reflected = brdf(surface, light, view) * irradiance * _cosine(surface.normal, light)
    diffuse, specular = reflectances(surface)
    sky = AMBIENT * surface.occlusion * ((1 - specular) * diffuse + specular)
    return reflected + sky + surface.emission


def brdf(surface: Surface, light: Tensor, view: Tensor) -> Tensor:
    """f(l, v) of Cook and Torrance (1982) with a Lambertian base, (3, H, W), per steradian.

    f = (1 - F) d / pi + D V F, with h the direction between light and view, d the diffuse color,
    and D, V, F of `normal_distribution`, `visibility` and `fresnel`. glTF 2.0, B.2: "material".
    """
    half = F.normalize(light + view, dim=0)
    diffuse, specular = reflectances(surface)
    alpha = surface.roughness.clamp_min(SMOOTHEST).square()  # Burley 2012, 5.4
    reflected = fresnel(specular, float(torch.dot(view, half)))
    facets = normal_distribution(_cosine(surface.normal, half), alpha)
    seen = visibility(_cosine(surface.normal, light), _cosine(surface.normal, view), alpha)
    return (1 - reflected) * diffuse / math.pi + facets * seen * reflected


def reflectances(surface: Surface) -> tuple[Tensor, Tensor]:
    """The diffuse color, and F0, the specular one at normal incidence, each (3, H, W).

    d = (1 - m) c, F0 = (1 - m) 0.04 + m c, of base color c and metalness m. glTF 2.0, B.3.5.
    """
    dielectric = 1 - surface.metalness
    diffuse = dielectric * surface.base_color
    return diffuse, dielectric * DIELECTRIC + surface.metalness * surface.base_color


def normal_distribution(cosine: Tensor, alpha: Tensor) -> Tensor:
    """D of GGX: the density of microfacet normals at an angle of a `cosine` to the normal.

    D = a^2 / (pi ((n.h)^2 (a^2 - 1) + 1)^2). Walter et al. 2007, equation 33; glTF 2.0, B.3.2.
    """
    squared = alpha.square()
    return squared / (math.pi * (cosine.square() * (squared - 1) + 1).square())


def visibility(light: Tensor, view: Tensor, alpha: Tensor) -> Tensor:
    """V = G / (4 (n.l) (n.v)), with the height-correlated masking and shadowing G of Smith.

    V = 0.5 / ((n.l) sqrt((n.v)^2 (1 - a^2) + a^2) + (n.v) sqrt((n.l)^2 (1 - a^2) + a^2)), for the
    cosines n.l and n.v. Heitz 2014, equation 99; glTF 2.0, B.3.2.
    """
    squared = alpha.square()
    shadowing = light * torch.lerp(squared, torch.ones_like(squared), view.square()).sqrt()
    masking = view * torch.lerp(squared, torch.ones_like(squared), light.square()).sqrt()
    return 0.5 / (shadowing + masking).clamp_min(1e-6)


def fresnel(specular: Tensor, cosine: float) -> Tensor:
    """F = F0 + (1 - F0) (1 - v.h)^5, for the cosine v.h. Schlick 1994, equation 15."""
    return specular + (1 - specular) * (1 - cosine) ** 5


def normals_of_height(heights: Tensor, axes: tuple[bool, bool] = (True, True)) -> Tensor:
    """Unit normals (3, H, W) of heights (H, W), by central differences; gray levels have any unit.

    n = (-dh/dx, -dh/dy, 1) / |.|, on the torus; at a side that does not tile the heights go on as
    at the border. The slopes are scaled to a root mean square of 0.25 (14 degrees).
    """
    padded = heights[None, None]
    for periodic, sides in zip(axes, ((0, 0, 1, 1), (1, 1, 0, 0)), strict=True):
        padded = F.pad(padded, sides, mode="circular" if periodic else "replicate")
    right = (padded[0, 0, 1:-1, 2:] - padded[0, 0, 1:-1, :-2]) / 2
    up = (padded[0, 0, :-2, 1:-1] - padded[0, 0, 2:, 1:-1]) / 2
    scale = SLOPE / (right.square() + up.square()).mean().sqrt().clamp_min(1e-6)
    return F.normalize(torch.stack([-scale * right, -scale * up, torch.ones_like(up)]), dim=0)


def to_linear(values: Tensor) -> Tensor:
    """Linear colors of sRGB values in 0..255. IEC 61966-2-1."""
    encoded = (values / 255).clamp(0, 1)
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def to_srgb(colors: Tensor) -> Tensor:
    """sRGB values in 0..255 of linear colors, which are clipped to 0..1. IEC 61966-2-1."""
    linear = colors.clamp(0, 1)
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return 255 * torch.where(linear <= 0.0031308, 12.92 * linear, curved)


def compressed(colors: Tensor) -> Tensor:
    """Radiances (3, H, W) with the bright ones below 1; those up to 0.8 stay as they are.

    The shoulder of the Khronos PBR Neutral tone mapper (2024), which keeps base colors: the largest
    channel p becomes 1 - s^2 / (p - 0.8 + s) with s = 0.2, and the color fades towards white. Its
    toe, which takes off the reflection of a white studio, is left out.
    """
    peak, rest = colors.amax(dim=0, keepdim=True), 1 - SHOULDER
    lower = 1 - rest**2 / (peak - SHOULDER + rest).clamp_min(rest)
    lower = torch.where(peak < SHOULDER, peak, lower)
    fade = 1 - 1 / (0.15 * (peak - lower) + 1)
    return torch.lerp(colors * lower / peak.clamp_min(1e-6), lower, fade)


def _decoded_normals(pixels: Tensor, *, y_up: bool) -> Tensor:
    """Unit vectors (3, H, W) of a normal map in 0..255 that the camera can see, y up the image."""
    x, y, z = pixels / NEUTRAL - 1
    return F.normalize(torch.stack([x, y if y_up else -y, z.clamp_min(STEEPEST)]), dim=0)


def _cosine(normal: Tensor, towards: Tensor) -> Tensor:
    """n.d, 0 of directions below the surface: (1, H, W) of normals (3, H, W) and d (3,)."""
    return torch.einsum("chw,c->hw", normal, towards)[None].clamp_min(0)
