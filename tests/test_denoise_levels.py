"""Noise outside of the levels that a model learned: weaker is extrapolated, stronger refused."""

import logging

import pytest
import torch

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import build_kind
from gcn_cli.models.layers import parse_layers
from gcn_cli.reconstruction import below_lowest, denoise_image

MEAN, SCALE = 100.0, 20.0
LOWEST, HIGHEST = 0.5, 2.0  # deviations of the data: 10 and 40 gray levels


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    """An untrained ladder, so of white data of variance 1: D_s(I) = I / (1 + s^2)."""
    config = NoiseConditionalConfig(
        layers=parse_layers("8@5,8@3/2"), noise_min=LOWEST, noise_max=HIGHEST, octaves=1
    )
    return Checkpoint(
        build_kind(config, (32, 32)), Normalization((MEAN,) * 3, (SCALE,) * 3), (32, 32)
    )


def picture(deviation: float) -> torch.Tensor:
    """White noise (3, 32, 32) about MEAN, in gray levels."""
    return MEAN + deviation * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.1, 2.0, 9.9])
def test_below_the_lowest_level_the_score_is_that_of_the_lowest(
    model: Checkpoint, sigma: float
) -> None:
    """-I / (1 + s0^2), so that D_s(I) = I (1 - s^2 / (1 + s0^2))."""
    noisy = picture(SCALE)
    clean, level = denoise_image(model, noisy, sigma, torch.float32)
    assert level == pytest.approx(sigma)
    factor = 1 - (sigma / SCALE) ** 2 / (1 + LOWEST**2)
    torch.testing.assert_close(clean, MEAN + factor * (noisy - MEAN), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma", [10.0, 40.0])
def test_the_lowest_and_the_highest_level_are_as_learned(model: Checkpoint, sigma: float) -> None:
    noisy = picture(SCALE)
    clean, _ = denoise_image(model, noisy, sigma, torch.float32)
    factor = 1 / (1 + (sigma / SCALE) ** 2)
    torch.testing.assert_close(clean, MEAN + factor * (noisy - MEAN), rtol=0, atol=1e-3)


def test_the_extension_leaves_learned_levels_to_the_bit_and_meets_them() -> None:
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def learned(x: torch.Tensor, noise: float) -> torch.Tensor:
        assert noise >= LOWEST
        return x / (1 + noise**2)

    extended = below_lowest(learned, LOWEST)
    for level in (LOWEST, 1.0):
        assert torch.equal(extended(x, level), learned(x, level))
    torch.testing.assert_close(extended(x, 0.9999 * LOWEST), learned(x, LOWEST), rtol=0, atol=1e-3)
    torch.testing.assert_close(extended(x, 1e-3), x, rtol=0, atol=1e-5)


def test_more_noise_than_was_learned_is_refused_with_the_limit(model: Checkpoint) -> None:
    with pytest.raises(InputError) as refusal:
        denoise_image(model, picture(SCALE), 40.5, torch.float32)
    message = str(refusal.value)
    assert message.startswith("--denoise 40.5: is above 40.0 gray levels")
    assert message.endswith("give 40.0 or less, or auto")
    assert "\n" not in message


def test_less_noise_than_was_learned_is_estimated_as_next_to_none(
    model: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture without deviation to speak of: the old estimate took a fifth of it off."""
    calm = picture(2.0)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        clean, level = denoise_image(model, calm, None, torch.float32)
    assert 0 < level < 0.05
    torch.testing.assert_close(clean, calm, rtol=0, atol=1e-3)
    assert "noise under the lowest level learned, 10.0 gray levels" in caplog.text


def test_an_estimate_is_no_higher_than_what_was_learned(model: Checkpoint) -> None:
    """The picture has 10 deviations of the data, the model knows 2."""
    _, level = denoise_image(model, picture(10 * SCALE), None, torch.float32)
    assert level == pytest.approx(HIGHEST * SCALE, rel=0.01)
    assert level <= HIGHEST * SCALE
