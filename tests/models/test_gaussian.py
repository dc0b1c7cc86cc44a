"""The Gaussian part of the model: Wiener's filter, the measured spectrum, samples from it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gcn_cli.models import gaussian
from gcn_cli.models.gaussian import FREQUENCIES, SpectralGaussian
from gcn_cli.models.layers import PaddingMode
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise

Images = Callable[..., Tensor]
CIRCULAR, REFLECT = PaddingMode.CIRCULAR, PaddingMode.REFLECT


def make_spectrum(image_size: tuple[int, int] | None = None) -> SpectralGaussian:
    """Power that falls with frequency, differently down and across, in rotated color axes."""
    spectrum = SpectralGaussian(3, image_size).double()
    if spectrum.mean_image is not None:
        generator = torch.Generator().manual_seed(1)
        spectrum.mean_image.copy_(torch.randn(spectrum.mean_image.shape, generator=generator))
    index = torch.arange(FREQUENCIES + 1.0, dtype=torch.float64)
    power = 1 / (1 + (index[:, None] / 20) ** 2 + (index / 40) ** 2)
    spectrum.power.copy_(torch.stack([0.1 * power, 3 * power, 40 * power]))
    random = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    axes, _ = torch.linalg.qr(random.double())
    spectrum.color_axes.copy_(axes)
    return spectrum


def matrix(linear: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Tensor:
    """The matrix of a linear map of images."""
    size = shape[0] * shape[1] * shape[2]
    units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return linear(units).reshape(size, size).T


@pytest.mark.parametrize("padding_mode", [CIRCULAR, REFLECT])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_the_posterior_mean_is_wieners_filter_of_one_covariance(
    padding_mode: PaddingMode, size: tuple[int, int]
) -> None:
    spectrum, count = make_spectrum(), 3 * size[0] * size[1]

    def filter_at(noise: float) -> Tensor:
        levels = torch.full((count,), noise, dtype=torch.float64)
        return matrix(lambda x: spectrum.posterior_mean(x, levels, padding_mode), (3, *size))

    identity = torch.eye(count, dtype=torch.float64)
    covariance = torch.linalg.solve(identity - filter_at(1.0), filter_at(1.0))
    torch.testing.assert_close(covariance, covariance.T)
    for noise in (0.3, 4.0):
        expected = covariance @ torch.linalg.inv(covariance + noise**2 * identity)
        torch.testing.assert_close(filter_at(noise), expected)


def test_aligned_images_are_filtered_about_their_mean(images: Images) -> None:
    """N(m, C) and noise: m + C (C + s^2)^-1 (I - m)."""
    spectrum, x = make_spectrum((6, 8)), images(2, 3, 6, 8)
    noise = torch.tensor([0.3, 4.0], dtype=torch.float64)
    assert spectrum.mean_image is not None
    deviation = make_spectrum().posterior_mean(x - spectrum.mean_image, noise, REFLECT)
    mean = spectrum.posterior_mean(x, noise, REFLECT)
    torch.testing.assert_close(mean, spectrum.mean_image + deviation)


def test_aligned_images_are_measured_about_their_mean(images: Images) -> None:
    """A mean image and white noise about it: both are measured, the mean does not add to power."""
    phase = torch.arange(32.0) / 4
    mean_image = 5 * torch.sin(phase)[:, None] * torch.cos(phase).expand(2, 32, 32)
    samples = mean_image + 0.5 * images(200, 2, 32, 32).float()
    spectrum = SpectralGaussian(2, (32, 32))
    spectrum.fit_aligned(list(samples))
    assert spectrum.mean_image is not None
    torch.testing.assert_close(spectrum.mean_image, mean_image, rtol=0, atol=0.2)
    expected = torch.full_like(spectrum.power, 0.25)
    torch.testing.assert_close(spectrum.power, expected, rtol=0, atol=0.12)


@pytest.mark.parametrize("image_size", [None, (8, 6)])
@pytest.mark.parametrize("padding_mode", [CIRCULAR, REFLECT])
def test_the_score_gradient_leads_from_white_noise_to_the_posterior_mean(
    padding_mode: PaddingMode, image_size: tuple[int, int] | None, images: Images
) -> None:
    """D of the white reference plus s^2 times the gradient is the mean; Q_s is symmetric."""
    spectrum, x, y = make_spectrum(image_size), images(2, 3, 8, 6), images(2, 3, 8, 6, seed=1)
    noise = torch.tensor([0.3, 2.0], dtype=torch.float64)
    variance = noise.square()[:, None, None, None]
    gradient = spectrum.score_gradient(x, noise, padding_mode)
    mean = x / (variance + 1) + variance * gradient
    torch.testing.assert_close(mean, spectrum.posterior_mean(x, noise, padding_mode))
    constant = spectrum.score_gradient(torch.zeros_like(x), noise, padding_mode)
    forth = (y * (gradient - constant)).sum()
    back = (x * (spectrum.score_gradient(y, noise, padding_mode) - constant)).sum()
    torch.testing.assert_close(forth, back)
    white = SpectralGaussian(3).score_gradient(x.float(), noise.float(), padding_mode)
    assert float(white.abs().max()) < 1e-5


def test_samples_have_the_spectrum_and_fit_measures_it() -> None:
    """Annealed samples on a torus: power of each octave within 15 %, for each color axis."""
    spectrum, count = make_spectrum(), 6
    levels = noise_levels(60, 100.0, 0.01)

    def denoise(x: Tensor, level: float) -> Tensor:
        return spectrum.posterior_mean(x, x.new_full((count,), level), CIRCULAR)

    start = levels[0] * ImageNoise(0, "start", range(count))((count, 3, 128, 128)).double()
    samples = anneal(start, denoise, levels, ImageNoise(0, "chain", range(count)))
    measured = SpectralGaussian(3).double()
    measured.fit(list(samples), 64)
    for low in (4, 16, 64):
        octave = (slice(None), slice(low, 2 * low), slice(low, 2 * low))
        ratio = measured.power[octave].mean(dim=(1, 2)) / spectrum.power[octave].mean(dim=(1, 2))
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.15)
    agreement = (measured.color_axes @ spectrum.color_axes.T).abs()
    torch.testing.assert_close(agreement.amax(dim=1), torch.ones(3).double(), rtol=0, atol=0.02)


@pytest.mark.parametrize("size", [(40, 64), (33, 57)])
def test_transforms_in_chunks_equal_those_at_once(
    size: tuple[int, int], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectrum, x = make_spectrum(), images(2, 3, *size)
    noise = torch.tensor([0.3, 2.0], dtype=torch.float64)
    at_once = spectrum.posterior_mean(x, noise, CIRCULAR)
    monkeypatch.setattr(gaussian, "LARGEST_FFT", 1)
    monkeypatch.setattr(gaussian, "row_chunks", lambda n, _: [slice(0, 7), slice(7, n)])
    torch.testing.assert_close(spectrum.posterior_mean(x, noise, CIRCULAR), at_once)


def test_loaded_parameters_replace_cached_tables(images: Images) -> None:
    spectrum, x = SpectralGaussian(3).double(), images(1, 3, 8, 8)
    noise = torch.ones(1, dtype=torch.float64)
    before = spectrum.posterior_mean(x, noise, CIRCULAR)
    spectrum.load_state_dict(make_spectrum().state_dict())
    after = spectrum.posterior_mean(x, noise, CIRCULAR)
    assert float((after - before).abs().max()) > 0.01
    torch.testing.assert_close(after, make_spectrum().posterior_mean(x, noise, CIRCULAR))
