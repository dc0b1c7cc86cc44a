"""Enlarging an image: block means are the image, details are those of the texture."""

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional as F

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.images import Image
from gcn_cli.model import Model
from gcn_cli.samplers.guidance import KnownMeans
from gcn_cli.upscaling import keep_means
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, relief, small_image


@pytest.fixture(scope="module")
def model() -> Model:
    return gcn.train(small_image(), **SMALL_TEXTURE, iterations=3)


def small(height: int = 13, width: int = 10, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (255 * torch.rand(channels, height, width, generator=generator)).round()


def test_the_constrained_denoiser_has_the_given_means_and_keeps_details() -> None:
    """White data have the posterior mean I / (1 + s^2), in details too."""
    means = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    known = KnownMeans(means, 2)
    x = torch.randn(1, 2, 6, 8, dtype=torch.float64)
    denoise = known.constrain(lambda image, noise: image / (1 + noise**2))
    result = denoise(x, 0.5)
    assert torch.allclose(F.avg_pool2d(result, 2), means)
    details = x - F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)
    assert torch.allclose(result - known.repeated, details / 1.25)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_rounded_blocks_have_the_sum_of_the_given_pixel(factor: int, bit_depth: int) -> None:
    pixels = small()
    pixels[:, :4] = 0  # where clipping moves the means most
    pixels[:, 4:6] = 255
    scale = 1
    if bit_depth == 16:
        scale = 257
        pixels = (pixels * scale + 100).clamp(0, 65535).round() / scale
    generator = torch.Generator().manual_seed(0)
    noisy = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    noisy = noisy + 60 * torch.randn(noisy.shape, generator=generator)
    result = keep_means(noisy, Image(pixels, "RGB", bit_depth), factor)
    assert 0 <= float(result.min()) <= float(result.max()) <= 255
    values = (result.double() * scale).round()
    assert torch.allclose(values, result.double() * scale, atol=1e-2)
    sums = F.avg_pool2d(values[None], factor)[0] * factor**2
    assert torch.equal(sums.round(), (pixels.double() * scale).round() * factor**2)


def test_an_enlarged_image_shrinks_to_the_given_one(model: Model) -> None:
    image = small()
    first, second = model.upscale(image, count=2, steps=3, kind="torch")
    for result in (first, second):
        assert result.shape == (3, 26, 20)
        assert torch.equal(F.avg_pool2d(result[None], 2)[0], image)
    assert not torch.equal(first, second)
    (again,) = model.upscale(image, count=1, steps=3, kind="torch")
    assert torch.equal(again, first)
    (larger,) = model.upscale(image, 4, steps=3, kind="torch")
    assert torch.equal(F.avg_pool2d(larger[None], 4)[0], image)


def test_an_image_that_tiles_is_enlarged_across_its_border(model: Model) -> None:
    image = small(16, 16)
    inside, across = (
        next(model.upscale(image, seamless=axes, steps=2, kind="torch")) for axes in ("off", "both")
    )
    assert inside.shape == across.shape == (3, 32, 32)
    assert not torch.equal(inside, across)


def test_channels_transparency_and_gray_are_kept(model: Model) -> None:
    gray, alpha = small(channels=1), small(channels=4)
    (result,) = model.upscale(gray, steps=2, kind="torch")
    assert torch.equal(F.avg_pool2d(result[None], 2)[0], gray)
    (result,) = model.upscale(alpha, steps=2, kind="torch")
    assert torch.equal(result[3], alpha[3].repeat_interleave(2, 0).repeat_interleave(2, 1))
    deep = PillowImage.fromarray((np.arange(120) * 500).astype(np.uint16).reshape(10, 12))
    (result,) = model.upscale(deep, steps=2, kind="torch")
    values = (result.double() * 257).round()
    assert torch.equal(F.avg_pool2d(values[None], 2)[0, 0], torch.arange(120.0).view(10, 12) * 500)


def test_linked_maps_are_enlarged_together() -> None:
    image = relief(64)
    heights, normals = (image[:1] * 20 + 128).round(), image[1:].round()
    model = gcn.train(normals, linked=(heights,), **SMALL_TEXTURE, iterations=3)
    half = [F.avg_pool2d(part[None], 2)[0].round() for part in (normals, heights)]
    (result,) = model.upscale(half, steps=2, kind="torch")
    assert torch.equal(F.avg_pool2d(result[None, 3:], 2)[0], half[1])
    lengths = (result[:3] / 127.5 - 1).norm(dim=0)
    assert torch.allclose(lengths, torch.ones(64, 64), atol=1e-4)


def test_details_depend_on_the_temperature(model: Model) -> None:
    image = small()
    details = []
    for temperature in (0.1, 1.0):
        (result,) = model.upscale(image, steps=6, temperature=temperature, kind="torch")
        repeated = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
        details.append(float((result - repeated).std()))
    assert details[0] < details[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 3}, "upscale 3: must be 2 or 4"),
        ({"mask": "alpha"}, "give only one of them"),
        ({"temperature": 0.0}, "temperature 0.0: must be more than 0"),
        ({"temperature": 101.0}, "temperature 101.0: must be 100 or less"),
        ({"noise_level": 1.0}, "noise_level: only for auto-encoding"),
    ],
)
def test_impossible_enlargements_are_refused(
    model: Model, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(model.upscale(small(), **options))  # type: ignore[arg-type]


def test_published_models_enlarge_nothing() -> None:
    published = gcn.train(small_image(), **SMALL_PUBLISHED, iterations=1)
    with pytest.raises(InputError, match="upscale 2: needs a texture model with noise levels"):
        list(published.upscale(small()))
