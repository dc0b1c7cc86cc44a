"""Langevin dynamics with a Gaussian, and the noise that drives it."""

import pytest
import torch

from gcn_cli.models.energy import autograd_gradient
from gcn_cli.samplers.langevin import langevin_step, run_chain
from gcn_cli.samplers.rng import ImageNoise

MEAN, DEVIATION = 2.0, 0.5


def gaussian_energy(x: torch.Tensor) -> torch.Tensor:
    return ((x - MEAN).square() / (2 * DEVIATION**2)).sum(dim=(1, 2, 3))


def test_a_chain_has_mean_and_variance_of_the_gaussian() -> None:
    """The Euler scheme on a Gaussian has the closed-form variance s^2 / (1 - eps^2 / (4 s^2))."""
    step_size = 0.2
    x = run_chain(
        torch.zeros(8, 1, 50, 50, dtype=torch.float64),
        autograd_gradient(gaussian_energy),
        steps=200,
        step_size=step_size,
        noise=ImageNoise(0, "chain", range(8)),
    )
    biased = DEVIATION**2 / (1 - step_size**2 / (4 * DEVIATION**2))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.var()) == pytest.approx(biased, rel=0.03)


def test_one_step_is_the_published_formula() -> None:
    x, noise = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    moved = langevin_step(x, lambda y: 3 * y, 0.1, noise)
    torch.testing.assert_close(moved, x - 0.005 * 3 * x + 0.1 * noise)


def test_without_noise_the_chain_descends_to_the_mode() -> None:
    steps: list[int] = []
    x = run_chain(
        torch.zeros(1, 1, 3, 3, dtype=torch.float64),
        autograd_gradient(gaussian_energy),
        steps=300,
        step_size=0.3,
        noise=None,
        callback=lambda step, _: steps.append(step),
    )
    torch.testing.assert_close(x, torch.full_like(x, MEAN))
    assert steps == list(range(1, 301))


def test_an_image_has_the_same_noise_in_every_batch() -> None:
    alone = ImageNoise(5, "chain", [2])((1, 3, 4, 4))
    batch = ImageNoise(5, "chain", range(4))((4, 3, 4, 4))
    assert torch.equal(alone[0], batch[2])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(alone, ImageNoise(5, "start", [2])((1, 3, 4, 4)))
    assert not torch.equal(alone, ImageNoise(6, "chain", [2])((1, 3, 4, 4)))


def test_noise_continues_from_a_saved_state() -> None:
    noise = ImageNoise(0, "chain", range(2))
    noise((2, 1, 8, 8))
    state = noise.state()
    expected = noise((2, 1, 8, 8))
    other = ImageNoise(1, "chain", range(2))
    other.load_state(state)
    assert torch.equal(other((2, 1, 8, 8)), expected)
    with pytest.raises(ValueError, match="2 generators"):
        noise((3, 1, 8, 8))
