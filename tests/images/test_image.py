"""Modes, resizing, alpha, normal maps and normalization of images in memory."""

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from PIL import ImageDraw

from gcn_cli.errors import InputError
from gcn_cli.images import Image, Normalization, TextureMap
from gcn_cli.images.image import finish_maps, green_direction, is_normal_map, side_by_side
from gcn_cli.images.reading import image_from_pillow
from tests.small import relief


def random_pixels(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("size", [(9, 11), (31, 40), (20, 7)])
def test_resizing_fractions_equals_pillow(size: tuple[int, int]) -> None:
    pixels = random_pixels(3, 20, 16)
    resized = Image(pixels, "RGB", 32).resized(size).pixels
    for channel, ours in zip(pixels, resized, strict=True):
        image = PillowImage.fromarray(channel.numpy())
        theirs = np.array(image.resize(size[::-1], PillowImage.Resampling.BICUBIC))
        torch.testing.assert_close(ours, torch.from_numpy(theirs).clamp(0, 255), atol=0.05, rtol=0)


def test_resizing_fractions_is_close_to_resizing_8_bits() -> None:
    pixels = random_pixels(3, 20, 16).round()
    of_8_bits, of_fractions = (Image(pixels, "RGB", b).resized((9, 11)).pixels for b in (8, 32))
    assert of_8_bits.shape == (3, 9, 11)
    torch.testing.assert_close(of_8_bits, of_fractions, atol=1.01, rtol=0)


def test_transparent_colors_do_not_bleed_when_resized() -> None:
    pixels = torch.zeros(4, 16, 16)
    pixels[0, :, :8], pixels[3, :, :8] = 200, 255  # the transparent half is black
    for bit_depth in (8, 32):
        small = Image(pixels, "RGBA", bit_depth).resized((8, 8)).pixels
        assert float(small[0][small[3] > 20].min()) > 190


@pytest.mark.parametrize("bit_depth", [8, 32])
def test_transparency_is_composited_on_white(bit_depth: int) -> None:
    for mode in ("LA", "RGBA"):
        image = Image(torch.zeros(len(mode), 2, 2), mode, bit_depth)
        assert bool((image.to_mode("RGB") == 255).all())
        assert bool((image.to_mode("RGBA")[:3] == 0).all())


def test_transparent_pixels_are_found() -> None:
    image = PillowImage.effect_noise((32, 32), 60).convert("RGBA")
    alpha = PillowImage.new("L", image.size, 255)
    ImageDraw.Draw(alpha).ellipse((4, 4, 12, 12), fill=0)
    image.putalpha(alpha)
    transparent = image_from_pillow(image).transparent
    assert transparent is not None
    assert bool(transparent[8, 8])
    assert not bool(transparent[30, 30])
    assert image_from_pillow(image.convert("RGB")).transparent is None


def test_normal_maps_are_detected_and_get_unit_length() -> None:
    directions = torch.nn.functional.normalize(torch.randn(3, 8, 8) * 0.3 + 1, dim=0)
    directions[2] = directions[2].abs()
    pixels = (directions + 1) * 127.5
    assert is_normal_map(pixels.round())
    assert not is_normal_map(torch.full((3, 8, 8), 100.0))
    maps = [TextureMap("a", "L"), TextureMap("n", "RGB", kind="normal")]
    finished = finish_maps(torch.cat([pixels[:1], pixels + 9]), maps)
    assert torch.equal(finished[:1], pixels[:1])
    torch.testing.assert_close((finished[1:] / 127.5 - 1).norm(dim=0), torch.ones(8, 8))
    assert side_by_side(finished, maps).shape == (3, 8, 16)


def test_a_blue_surface_is_no_normal_map() -> None:
    """Its color has the length of a unit vector, but shading changes the length."""
    shading = 1 + 0.1 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    paint = shading * torch.tensor([-0.2, 0.18, 0.95])[:, None, None]
    assert float((paint.norm(dim=0) - 1).abs().median()) < 0.1
    assert not is_normal_map(127.5 * (paint + 1))
    assert is_normal_map(relief()[1:].round())


@pytest.mark.parametrize("y_up", [True, False])
def test_slopes_show_where_green_points(y_up: bool) -> None:
    normals, known = relief(y_up=y_up)[1:], torch.ones(48, 48, dtype=torch.bool)
    sign = 1 if y_up else -1
    assert sign * green_direction(normals.round(), known) > 0.95
    noisy = normals + 20 * torch.randn(normals.shape, generator=torch.Generator().manual_seed(0))
    assert sign * green_direction(noisy, known) > 0.5
    known[:, :40] = False
    hidden = torch.where(known, normals, 255 - normals.flip(-1))
    assert sign * green_direction(hidden, known) > 0.95
    flat = torch.tensor([128.0, 128.0, 255.0])[:, None, None].expand(3, 48, 48)
    assert green_direction(flat, known) == 0
    assert abs(green_direction(random_pixels(3, 2, 48), torch.ones(2, 48) > 0)) <= 1


def test_normalization_inverts() -> None:
    scale = Normalization((10.0, 20.0, 30.0), (4.0, 4.0, 2.0))
    pixels = random_pixels(3, 4, 4)[None]
    torch.testing.assert_close(scale.to_pixels(scale.to_model(pixels)), pixels)
    assert scale.to_model(torch.tensor(scale.mean)[:, None, None]).abs().max() == 0


def test_normalization_has_a_scale_for_each_group_and_ignores_unknown_pixels() -> None:
    image = torch.cat([torch.randn(1, 64, 64) * 3 + 100, torch.randn(2, 64, 64) * 30 + 50])
    everywhere = [torch.ones(64, 64, dtype=torch.bool)]
    groups = [("height", 1, 0.5), ("albedo", 2, 1.0)]
    known = Normalization.fit([image], None, unit_deviation=True, groups=groups, known=everywhere)
    assert known.scale[0] == pytest.approx(6, rel=0.05)
    assert known.scale[1] == known.scale[2] == pytest.approx(30, rel=0.05)
    masked, mask = torch.cat([image, image + 50], dim=2), torch.arange(128).expand(64, 128) < 64
    of_masked = Normalization.fit([masked], None, unit_deviation=True, groups=groups, known=[mask])
    assert of_masked.mean == pytest.approx(known.mean)
    assert of_masked.scale == pytest.approx(known.scale)
    image[1:] = 7
    with pytest.raises(InputError, match="albedo: has one color only, nothing to learn; leave it"):
        Normalization.fit([image], None, unit_deviation=True, groups=groups, known=everywhere)
    with pytest.raises(InputError, match="2 values for 3 channels"):
        Normalization.fit([image], (1.0, 2.0), unit_deviation=True, groups=groups, known=everywhere)
