"""Resizing for a model, and removal of white noise: inside and outside of the levels learned."""

import io
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization, write
from gcn_cli.kinds import build_kind
from gcn_cli.models.layers import parse_layers
from gcn_cli.presets import PRESETS
from gcn_cli.reconstruction import (
    Scale,
    denoise_image,
    estimate_noise_level,
    extrapolated_denoiser,
    fit_to_model,
    fit_to_model_with_scale,
)

MEAN, SCALE = 100.0, 20.0
LOWEST, HIGHEST = 0.5, 2.0  # noise levels: 10 and 40 gray levels
VARIANCE = 0.7


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    """An untrained model, so of white noise of variance 1: D_s(I) = I / (1 + s^2)."""
    config = NoiseConditionalConfig(
        layers=parse_layers("8@5,8@3/2"), noise_min=LOWEST, noise_max=HIGHEST, stages=1, shrink=40
    )
    normalization = Normalization((MEAN,) * 3, (SCALE,) * 3)
    return Checkpoint(build_kind(config, (32, 32)), normalization, (32, 32))


def white_noise(deviation: float, height: int = 32, width: int = 32) -> Tensor:
    """White noise (3, height, width) around MEAN, in gray levels."""
    generator = torch.Generator().manual_seed(0)
    return MEAN + deviation * torch.randn(3, height, width, generator=generator)


def test_scale_converts_coordinates_both_ways() -> None:
    half = Scale((80, 120), (40, 60))
    assert half.inward((0, 0)) == (0, 0)
    assert half.inward((119, 79)) == (59, 39)
    assert half.inward((61, 20)) == (30, 10)
    assert half.outward((59, 39)) == (119, 79)
    stretched = Scale((100, 30), (50, 90))  # half as high, three times as wide
    assert stretched.inward((10, 10)) == (31, 5)
    assert stretched.outward((31, 5)) == (10, 11)
    same = Scale((7, 9), (7, 9))
    assert all(same.inward((x, y)) == (x, y) for x in range(9) for y in range(7))


def test_standard_input_is_read_once(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(white_noise(30.0, 80, 120), str(tmp_path / "image.png"))
    stream = io.TextIOWrapper(io.BytesIO((tmp_path / "image.png").read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    pixels, scale = fit_to_model_with_scale(model, "-")
    assert scale == Scale((80, 120), (40, 60))
    assert pixels.shape == (3, 40, 60)
    with Image.open(tmp_path / "image.png") as image:
        assert fit_to_model_with_scale(model, image)[1] == scale


def test_images_are_cut_to_the_stride_and_small_ones_are_refused(model: Checkpoint) -> None:
    assert fit_to_model(model, white_noise(30.0, 80, 122)).shape == (3, 40, 60)
    with pytest.raises(InputError, match="an image: sides must be"):
        fit_to_model(model, white_noise(30.0, 2, 8))


@pytest.mark.parametrize("noise_level", [0.02, 0.3, 1.0, 4.0])
def test_the_noise_level_of_a_gaussian_is_estimated(noise_level: float) -> None:
    z = torch.randn(2, 1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    noisy = VARIANCE**0.5 * z[0] + noise_level * z[1]

    def denoise(x: Tensor, s: float) -> Tensor:
        return x * VARIANCE / (VARIANCE + s**2)

    # The sum of 120000 squares varies by about half a percent of VARIANCE.
    estimate = estimate_noise_level(noisy, denoise, 10.0)
    assert estimate == pytest.approx(noise_level, rel=0.02, abs=0.07)


@pytest.mark.parametrize("sigma", [10.0, 20.0, 40.0])
def test_an_untrained_model_is_the_wiener_filter(model: Checkpoint, sigma: float) -> None:
    """From the lowest to the highest level, at sides that are no multiples of the stride."""
    noisy = white_noise(SCALE, 33, 29)
    clean, deviation = denoise_image(model, noisy, sigma, torch.float32)
    assert deviation == sigma
    factor = 1 / (1 + (sigma / SCALE) ** 2)
    torch.testing.assert_close(clean, MEAN + factor * (noisy - MEAN), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 2.0, 9.9])
def test_below_the_lowest_level_its_score_is_used(model: Checkpoint, sigma: float) -> None:
    """The score is -I / (1 + s0^2), so that D_s(I) = I (1 - s^2 / (1 + s0^2))."""
    noisy = white_noise(SCALE)
    clean, deviation = denoise_image(model, noisy, sigma, torch.float32)
    assert deviation == pytest.approx(sigma)
    factor = 1 - (sigma / SCALE) ** 2 / (1 + LOWEST**2)
    torch.testing.assert_close(clean, MEAN + factor * (noisy - MEAN), rtol=0, atol=1e-3)


def test_extrapolation_is_exact_at_the_levels_learned_and_continuous() -> None:
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def learned(x: Tensor, noise: float) -> Tensor:
        assert noise >= LOWEST
        return x / (1 + noise**2)

    denoise = extrapolated_denoiser(learned, LOWEST)
    for level in (LOWEST, 1.0):
        assert torch.equal(denoise(x, level), learned(x, level))
    torch.testing.assert_close(denoise(x, 0.9999 * LOWEST), learned(x, LOWEST), rtol=0, atol=1e-3)
    torch.testing.assert_close(denoise(x, 1e-3), x, rtol=0, atol=1e-5)


def test_more_noise_than_learned_is_refused_with_the_limit(model: Checkpoint) -> None:
    with pytest.raises(InputError) as refusal:
        denoise_image(model, white_noise(SCALE), 40.5, torch.float32)
    message = str(refusal.value)
    assert message.startswith("--denoise 40.5: is above 40.0 gray levels")
    assert message.endswith("give 40.0 or less, or auto")
    assert "\n" not in message


def test_less_noise_than_learned_is_estimated_as_almost_none(
    model: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    smooth = white_noise(2.0)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        clean, deviation = denoise_image(model, smooth, None, torch.float32)
    assert 0 < deviation < 0.05
    torch.testing.assert_close(clean, smooth, rtol=0, atol=1e-3)
    assert "--denoise: less noise than the lowest level, 10.0 gray levels" in caplog.text


def test_an_estimate_does_not_exceed_the_highest_level(model: Checkpoint) -> None:
    _, deviation = denoise_image(model, white_noise(10 * SCALE), None, torch.float32)
    assert deviation == pytest.approx(HIGHEST * SCALE, rel=0.01)
    assert deviation <= HIGHEST * SCALE


@pytest.mark.parametrize(
    ("preset", "scale", "sigma", "message"),
    [
        ("default", 20.0, -1.0, "--denoise -1.0: must be"),
        ("default", 20.0, float("nan"), "--denoise nan: must be"),
        ("object", 20.0, 5.0, "aligned objects"),
        ("default", None, 5.0, "linked maps"),
        ("paper-texture", 1.0, 5.0, "published model"),
    ],
)
def test_images_that_cannot_be_denoised_are_refused(
    preset: str, scale: float | None, sigma: float, message: str
) -> None:
    scales = (1.0, 2.0, 3.0) if scale is None else (scale,) * 3
    kind = build_kind(PRESETS[preset], (64, 64))
    model = Checkpoint(kind, Normalization((0.0,) * 3, scales), (64, 64))
    with pytest.raises(InputError, match=message):
        denoise_image(model, torch.zeros(3, 64, 64), sigma, torch.float32)
