"""The Gaussian part of a ladder: Wiener's filter, its measured spectrum, and sampling from it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gcn_cli.models.gaussian import WAVES, SpectralGaussian
from gcn_cli.models.layers import PaddingMode
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise

LATTICES = [PaddingMode.CIRCULAR, PaddingMode.REFLECT]


def colored(aligned: tuple[int, int] | None = None) -> SpectralGaussian:
    """Power that falls with the wave number, other up than across, by turned color axes."""
    spectrum = SpectralGaussian(3, aligned).double()
    if spectrum.middle is not None:
        drawn = torch.randn(spectrum.middle.shape, generator=torch.Generator().manual_seed(1))
        spectrum.middle.copy_(drawn)
    waves = torch.arange(WAVES + 1.0, dtype=torch.float64)
    slow = 1 / (1 + (waves[:, None] / 20) ** 2 + (waves / 40) ** 2)
    spectrum.power.copy_(torch.stack([0.1 * slow, 3 * slow, 40 * slow]))
    drawn = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    turned, _ = torch.linalg.qr(drawn.double())
    spectrum.axes.copy_(turned)
    return spectrum


def matrix(of: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Tensor:
    """A linear map of images as a matrix."""
    size = shape[0] * shape[1] * shape[2]
    units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return of(units).reshape(size, size).T


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_the_mean_is_wieners_filter_of_one_covariance(
    lattice: PaddingMode, size: tuple[int, int]
) -> None:
    spectrum, shape = colored(), (3, *size)

    def filter_at(noise: float) -> Tensor:
        count = 3 * size[0] * size[1]
        levels = torch.full((count,), noise, dtype=torch.float64)
        return matrix(lambda x: spectrum.mean(x, levels, lattice), shape)

    one = torch.eye(3 * size[0] * size[1], dtype=torch.float64)
    covariance = torch.linalg.solve(one - filter_at(1.0), filter_at(1.0))
    torch.testing.assert_close(covariance, covariance.T)
    for noise in (0.3, 4.0):
        expected = covariance @ torch.linalg.inv(covariance + noise**2 * one)
        torch.testing.assert_close(filter_at(noise), expected)


def test_of_aligned_images_it_is_the_mean_of_a_gaussian_about_theirs(
    images: Callable[..., Tensor],
) -> None:
    """N(m, C) and noise: m + C (C + s^2)^-1 (I - m)."""
    spectrum, x = colored((6, 8)), images(2, 3, 6, 8)
    noise = torch.tensor([0.3, 4.0], dtype=torch.float64)
    assert spectrum.middle is not None
    about = colored().mean(x - spectrum.middle, noise, PaddingMode.REFLECT)
    torch.testing.assert_close(
        spectrum.mean(x, noise, PaddingMode.REFLECT), spectrum.middle + about
    )


def test_aligned_images_are_measured_about_their_mean(images: Callable[..., Tensor]) -> None:
    """Of a mean and white noise about it both are found, and the mean is not taken for power."""
    waves = torch.arange(32.0) / 4
    middle = 5 * torch.sin(waves)[:, None] * torch.cos(waves).expand(2, 32, 32)
    pictures = middle + 0.5 * images(200, 2, 32, 32).float()
    spectrum = SpectralGaussian(2, (32, 32))
    spectrum.fit_aligned(list(pictures))
    assert spectrum.middle is not None
    torch.testing.assert_close(spectrum.middle, middle, rtol=0, atol=0.2)
    torch.testing.assert_close(
        spectrum.power, torch.full_like(spectrum.power, 0.25), rtol=0, atol=0.12
    )


@pytest.mark.parametrize("aligned", [None, (8, 6)])
@pytest.mark.parametrize("lattice", LATTICES)
def test_the_slope_closes_the_gap_between_white_noise_and_the_spectrum(
    lattice: PaddingMode, aligned: tuple[int, int] | None, images: Callable[..., Tensor]
) -> None:
    """D of the white reference plus s^2 times the slope is the mean; Q_s is symmetric."""
    spectrum, x = colored(aligned), images(2, 3, 8, 6)
    noise = torch.tensor([0.3, 2.0], dtype=torch.float64)
    squared = noise.square()[:, None, None, None]
    slope = spectrum.slope(x, noise, lattice)
    mean = x / (squared + 1) + squared * slope
    torch.testing.assert_close(mean, spectrum.mean(x, noise, lattice))
    y = images(2, 3, 8, 6, seed=1)
    at_0 = spectrum.slope(torch.zeros_like(x), noise, lattice)  # what is not linear in I
    there = (y * (slope - at_0)).sum()
    back = (x * (spectrum.slope(y, noise, lattice) - at_0)).sum()
    torch.testing.assert_close(there, back)
    assert float(SpectralGaussian(3).slope(x.float(), noise.float(), lattice).abs().max()) < 1e-5


def sampled(spectrum: SpectralGaussian, side: int, count: int) -> Tensor:
    """Down the levels with the Gaussian's own D, on a torus."""
    levels = noise_levels(60, 100.0, 0.01)
    noise = ImageNoise(0, "chain", range(count))
    start = levels[0] * ImageNoise(0, "start", range(count))((count, 3, side, side)).double()

    def mean(x: Tensor, level: float) -> Tensor:
        return spectrum.mean(x, x.new_full((count,), level), PaddingMode.CIRCULAR)

    return anneal(start, mean, levels, noise)


def test_samples_have_the_spectrum_and_are_measured_to_have_it() -> None:
    """Down the ladder and back: each octave of waves within 15 %, in every color."""
    spectrum = colored()
    made = sampled(spectrum, 128, 6)
    found = SpectralGaussian(3).double()
    found.fit(list(made), 64)
    for low in (4, 16, 64):
        octave = (slice(None), slice(low, 2 * low), slice(low, 2 * low))
        ratio = found.power[octave].mean(dim=(1, 2)) / spectrum.power[octave].mean(dim=(1, 2))
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.15)
    agreement = (found.axes @ spectrum.axes.T).abs()
    torch.testing.assert_close(agreement.amax(dim=1), torch.ones(3).double(), rtol=0, atol=0.02)


def test_other_values_put_in_are_used(images: Callable[..., Tensor]) -> None:
    spectrum, x = SpectralGaussian(3).double(), images(1, 3, 8, 8)
    noise = torch.ones(1, dtype=torch.float64)
    before = spectrum.mean(x, noise, PaddingMode.CIRCULAR)
    spectrum.load_state_dict(colored().state_dict())
    after = spectrum.mean(x, noise, PaddingMode.CIRCULAR)
    assert float((after - before).abs().max()) > 0.01
    torch.testing.assert_close(after, colored().mean(x, noise, PaddingMode.CIRCULAR))
