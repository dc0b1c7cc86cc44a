"""Guides, blends and temperature, against what they must do to Gaussians."""

import math

import pytest
import torch

from gcn_cli.errors import InputError
from gcn_cli.options import SampleOptions
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.guidance import LARGE, ImageGuide, ModelBlend, large_shapes
from gcn_cli.samplers.langevin import run_chain
from gcn_cli.samplers.rng import ImageNoise


def white(x: torch.Tensor, noise: float) -> torch.Tensor:
    """D of independent pixels N(0, 1)."""
    return x / (1 + noise**2)


def test_a_wave_is_blurred_by_the_gaussian_s_own_factor() -> None:
    place = torch.arange(64) * (2 * math.pi / 64)
    for cycles in (0, 1, 3):
        wave = torch.cos(cycles * place).expand(1, 1, 32, 64)
        factor = math.exp(-2 * (math.pi * LARGE * cycles / 64) ** 2)
        torch.testing.assert_close(large_shapes(wave), factor * wave, atol=1e-5, rtol=0)


def test_a_guide_moves_large_shapes_and_leaves_the_rest() -> None:
    levels = noise_levels(25, 50.0, 0.03)
    shapes = torch.where(torch.arange(128) < 64, 1.0, -1.0).expand(1, 1, 128, 128)
    made = []
    for strength in (0.0, 0.5, 1.0):
        denoise = ImageGuide(shapes, strength).drawing(white)
        noise = ImageNoise(0, "chain", [0])
        made.append(anneal(levels[0] * noise((1, 1, 128, 128)), denoise, levels, noise))
    plain, half, full = made
    target = large_shapes(shapes)
    off = [float((large_shapes(x) - target).square().mean()) for x in made]
    assert off[0] > 5 * off[1] > 5 * off[2]
    for x in (half, full):
        fine, own = (y - large_shapes(y, 2.0) for y in (x, plain))
        assert float(fine.std()) == pytest.approx(float(own.std()), rel=0.03)


def test_no_strength_is_no_guide() -> None:
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(
        ImageGuide(torch.ones(1, 2, 8, 8), 0.0).drawing(white)(x, 1.0), white(x, 1.0)
    )


def test_a_blend_of_one_density_in_two_units_is_that_density() -> None:
    """N(0, 1) seen by a second model whose images are 2 x + 3."""
    factor, offset = 2.0, torch.full((2, 1, 1), 3.0)

    def other(y: torch.Tensor, noise: float) -> torch.Tensor:
        return offset + (y - offset) * factor**2 / (factor**2 + noise**2)

    x = torch.randn(1, 2, 6, 6)
    for share in (0.0, 0.4, 1.0):
        blend = ModelBlend(other, torch.full((6, 6), share), factor, offset)
        torch.testing.assert_close(blend.mixing(white)(x, 0.7), white(x, 0.7))


def test_each_model_rules_its_own_places() -> None:
    share = torch.zeros(4, 4)
    share[:, 2:] = 1
    blend = ModelBlend(lambda y, _: torch.full_like(y, 5.0), share, 1.0, torch.zeros(1, 1, 1))
    mixed = blend.mixing(lambda x, _: torch.full_like(x, -5.0))(torch.zeros(1, 1, 4, 4), 1.0)
    assert torch.equal(mixed[0, 0], torch.where(share > 0, 5.0, -5.0))


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_is_the_variance_that_a_chain_settles_at(temperature: float) -> None:
    """p^(1/T) of N(0, sigma^2) has the variance T sigma^2; step eps adds 1 / (1 - eps^2 / 4)."""
    step = 0.3
    noise = ImageNoise(1, "chain", [0]).at(temperature)
    x = run_chain(torch.zeros(1, 1, 200, 200), lambda x: x, steps=150, step_size=step, noise=noise)
    assert float(x.var()) == pytest.approx(temperature / (1 - step**2 / 4), rel=0.03)


def test_one_is_the_temperature_of_the_model_itself() -> None:
    noise = ImageNoise(0, "chain", [0])
    assert noise.at(1.0) is noise
    with pytest.raises(InputError, match="--temperature 0"):
        SampleOptions(temperature=0.0)
