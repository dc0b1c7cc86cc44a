"""Colors converted between profiles."""

import pytest
import torch
from PIL import ImageCms

from gcn_cli.images import Image, TextureMap
from gcn_cli.images.color import (
    PRIMARIES,
    SRGB_PRIMARIES,
    ColorMatch,
    is_valid,
    made_profile,
    profile_name,
    same_colors,
    to_profile,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = made_profile(PRIMARIES[9], (1.8,), 3)
GRAY = made_profile(SRGB_PRIMARIES, (1.0,), 1)


def colored(mode: str, profile: bytes | None, bit_depth: int = 8) -> Image:
    pixels = torch.rand(len(mode), 9, 7, generator=torch.Generator().manual_seed(0)) * 155 + 50
    return Image(pixels.round(), mode, bit_depth, profile, color_managed=True)


def test_profiles_are_compared_by_what_they_do() -> None:
    assert WIDE is not None
    assert is_valid(WIDE)
    assert not is_valid(WIDE[:200])
    assert same_colors(None, SRGB)
    assert not same_colors(None, WIDE)
    assert not same_colors(None, GRAY)
    assert not same_colors(WIDE, GRAY)
    assert profile_name(WIDE) == "PNG gamma 1.8, primaries 0.708 0.292 0.17 0.797 0.131 0.046"


def test_equal_colors_and_arrays_stay() -> None:
    image = colored("RGB", None)
    assert to_profile(image, SRGB) is image
    array = Image(image.pixels, "RGB")
    assert to_profile(array, WIDE) is array


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_8_and_16_bits_agree_and_alpha_stays(mode: str) -> None:
    of_8, of_16 = (to_profile(colored(mode, None, depth), WIDE) for depth in (8, 16))
    assert (of_8.mode, of_16.mode, of_16.bit_depth, of_8.icc_profile) == (mode, mode, 16, WIDE)
    torch.testing.assert_close(of_8.pixels, of_16.pixels, atol=0.75, rtol=0)
    back = to_profile(of_16, None).pixels
    torch.testing.assert_close(back, colored(mode, None).pixels, atol=0.5, rtol=0)
    if mode.endswith("A"):
        assert torch.equal(of_8.pixels[-1], colored(mode, None).pixels[-1])


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_gray_and_color_profiles_agree_on_grays(bit_depth: int) -> None:
    linear = Image(torch.full((1, 2, 2), 128.0), "L", bit_depth, GRAY, color_managed=True)
    shown = to_profile(linear, None)
    assert shown.mode == "L"
    torch.testing.assert_close(shown.pixels, torch.full((1, 2, 2), 188.0), atol=0.6, rtol=0)
    gray = Image(torch.full((3, 2, 2), 188.0), "RGB", bit_depth, None, color_managed=True)
    light = to_profile(gray, GRAY)
    assert light.mode == "L"
    torch.testing.assert_close(light.pixels, torch.full((1, 2, 2), 128.0), atol=0.6, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_kept_pixels_come_back_to_the_bit(mode: str, bit_depth: int) -> None:
    original = colored(mode, None, bit_depth)
    colors = ColorMatch.of([original], (TextureMap(mode="RGB", icc_profile=WIDE),))
    result = torch.nn.functional.pad(colors.images[0].pixels, (1, 3, 2, 4), value=100)
    result[: original.color_channels, 5:8, 3:6] += 9
    restored = colors.restore(result, sides=(1, 2, 3, 4))[:, 2:-4, 1:-3]
    changed = torch.zeros(9, 7, dtype=torch.bool)
    changed[3:6, 2:5] = True
    assert torch.equal(restored[:, ~changed], original.pixels[:, ~changed])
    difference = (restored - original.pixels)[: original.color_channels, changed]
    assert 0.5 < float(difference.mean()) < 20
