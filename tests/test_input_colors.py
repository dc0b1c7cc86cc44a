"""Color profiles of training images and of images that are given to a model."""

import logging
from dataclasses import replace

import pytest
import torch
from PIL import ImageCms

from gcn_cli.images import Image, TextureMap
from gcn_cli.images.color import PRIMARIES, made_profile, to_profile
from gcn_cli.inputs import to_pixels
from tests.test_inputs import load, noise

WIDE = made_profile(PRIMARIES[9], (1.8,), 3)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_images_of_several_profiles_are_converted_to_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    pixels = (noise("RGB").pixels * 0.6 + 50).round()
    plain = Image(pixels, "RGB", color_managed=True)
    wide = to_profile(plain, WIDE)
    assert float((wide.pixels - plain.pixels).abs().max()) > 20
    loaded = load([plain, plain, wide])
    assert loaded.maps[0].icc_profile is None
    torch.testing.assert_close(loaded.images[2], plain.pixels, atol=2.5, rtol=0.03)
    assert caplog.messages[0] == "1 of 3 image(s) have another color profile: converted to sRGB"
    loaded = load([wide, plain, wide])
    assert loaded.maps[0].icc_profile == WIDE
    assert torch.equal(loaded.images[1], wide.pixels)
    tagged = replace(plain, icc_profile=SRGB)  # without a profile sRGB is meant
    caplog.clear()
    loaded = load([plain, tagged])
    assert torch.equal(loaded.images[0], loaded.images[1])
    assert not caplog.messages
    gray = load([wide], channels=1)  # a profile of colors does not fit grays
    assert gray.maps[0].icc_profile is None
    torch.testing.assert_close(gray.images[0], plain.to_mode("L"), atol=2.5, rtol=0.03)


def test_a_start_image_is_converted_to_the_model_but_normals_and_arrays_are_not() -> None:
    plain = replace(noise("RGB"), color_managed=True)
    pixels = to_pixels(plain, [TextureMap(icc_profile=WIDE)])
    assert torch.equal(pixels, to_profile(plain, WIDE).pixels)
    for image, kind in ((plain, "normal"), (noise("RGB"), "")):
        pixels = to_pixels(image, [TextureMap(icc_profile=WIDE, kind=kind)])
        assert torch.equal(pixels, plain.pixels)
