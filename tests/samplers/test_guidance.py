"""Guides, blends and temperature, by their effect on Gaussians."""

import math

import pytest
import torch

from gcn_cli.errors import InputError
from gcn_cli.models.gaussian import low_pass
from gcn_cli.options import SampleOptions
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.guidance import BLUR, ImageGuide, ModelBlend
from gcn_cli.samplers.langevin import run_chain
from gcn_cli.samplers.rng import ImageNoise


def denoise_white(x: torch.Tensor, noise: float) -> torch.Tensor:
    """D of independent pixels N(0, 1)."""
    return x / (1 + noise**2)


def test_the_low_pass_scales_a_wave_by_the_gaussian_response() -> None:
    phase = torch.arange(64) * (2 * math.pi / 64)
    for cycles in (0, 1, 3):
        wave = torch.cos(cycles * phase).expand(1, 1, 32, 64)
        factor = math.exp(-2 * (math.pi * BLUR * cycles / 64) ** 2)
        torch.testing.assert_close(low_pass(wave, BLUR), factor * wave, atol=1e-5, rtol=0)


def test_a_guide_moves_large_shapes_and_leaves_details() -> None:
    levels = noise_levels(25, 50.0, 0.03)
    guide = torch.where(torch.arange(128) < 64, 1.0, -1.0).expand(1, 1, 128, 128)
    samples = []
    for strength in (0.0, 0.5, 1.0):
        denoise = ImageGuide(guide, strength).wrap(denoise_white)
        noise = ImageNoise(0, "chain", [0])
        samples.append(anneal(levels[0] * noise((1, 1, 128, 128)), denoise, levels, noise))
    errors = [float((low_pass(x, BLUR) - low_pass(guide, BLUR)).square().mean()) for x in samples]
    assert errors[0] > 5 * errors[1] > 5 * errors[2]
    details = [float((x - low_pass(x, 2.0)).std()) for x in samples]
    assert details == pytest.approx([details[0]] * 3, rel=0.03)


def test_strength_0_is_no_guide() -> None:
    x = torch.randn(1, 2, 8, 8)
    guide = ImageGuide(torch.ones(1, 2, 8, 8), 0.0)
    assert torch.equal(guide.wrap(denoise_white)(x, 1.0), denoise_white(x, 1.0))


def test_a_blend_of_one_density_in_two_units_is_that_density() -> None:
    """N(0, 1) by a second model whose images are 2 x + 3."""
    factor, offset = 2.0, torch.full((2, 1, 1), 3.0)

    def other(y: torch.Tensor, noise: float) -> torch.Tensor:
        return offset + (y - offset) * factor**2 / (factor**2 + noise**2)

    x = torch.randn(1, 2, 6, 6)
    for share in (0.0, 0.4, 1.0):
        blend = ModelBlend(other, torch.full((6, 6), share), factor, offset)
        torch.testing.assert_close(blend.wrap(denoise_white)(x, 0.7), denoise_white(x, 0.7))


def test_a_blend_takes_each_model_where_its_share_is_1() -> None:
    share = torch.zeros(4, 4)
    share[:, 2:] = 1
    blend = ModelBlend(lambda y, _: torch.full_like(y, 5.0), share, 1.0, torch.zeros(1, 1, 1))
    blended = blend.wrap(lambda x, _: torch.full_like(x, -5.0))(torch.zeros(1, 1, 4, 4), 1.0)
    assert torch.equal(blended[0, 0], torch.where(share > 0, 5.0, -5.0))


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_scales_the_stationary_variance(temperature: float) -> None:
    """p^(1/T) of N(0, sigma^2) has variance T sigma^2; steps of eps divide by 1 - eps^2 / 4."""
    step = 0.3
    noise = ImageNoise(1, "chain", [0]).scaled(temperature)
    x = run_chain(torch.zeros(1, 1, 200, 200), lambda x: x, steps=150, step_size=step, noise=noise)
    assert float(x.var()) == pytest.approx(temperature / (1 - step**2 / 4), rel=0.03)


def test_temperature_1_changes_nothing_and_0_and_1e30_are_refused() -> None:
    noise = ImageNoise(0, "chain", [0])
    assert noise.scaled(1.0) is noise
    with pytest.raises(InputError, match="temperature 0"):
        SampleOptions(temperature=0.0)
    with pytest.raises(InputError, match=r"temperature 1e\+30: must be 100 or less"):
        SampleOptions(temperature=1e30)
