"""Energy, energy map and Gaussian pieces against closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gcn_cli.models.cascade import NoiseLevelModel
from gcn_cli.models.convnet import gaussian_piece
from gcn_cli.models.energy import (
    autograd_gradient,
    energy,
    energy_gradient,
    log_reference,
    reconstruct,
    spread_over_pixels,
)
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from tests.conftest import MakeModel

Images = Callable[..., Tensor]


def test_the_log_density_of_a_piece_is_minus_the_energy_up_to_one_constant(
    make_model: MakeModel, images: Images
) -> None:
    """The constant is log q(0), the same for every image of every cell."""
    model = make_model("6@5/2+1", "4@3+1", sigma=0.7)
    x = images(4, 3, 11, 13)
    constant = gaussian_piece(model, x).log_density(x) + energy(model, x)
    expected = log_reference(torch.zeros_like(x), model.sigma)
    torch.testing.assert_close(constant, expected, rtol=1e-12, atol=1e-9)


def test_the_reference_density_is_normalized() -> None:
    points = torch.linspace(-8, 8, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(points, points).reshape(-1, 1, 1, 2)
    mass = log_reference(grid, 1.3).exp().sum() * (points[1] - points[0]) ** 2
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-6, atol=0)


def test_the_mean_of_a_piece_is_the_reconstruction(make_model: MakeModel, images: Images) -> None:
    model = make_model("6@5+2", sigma=0.5)
    x = images(2, 3, 8, 8)
    piece = gaussian_piece(model, x)
    torch.testing.assert_close(piece.mean, reconstruct(model, x))
    assert piece.variance == 0.25


def test_the_energy_gradient_is_the_scaled_reconstruction_error(
    make_model: MakeModel, images: Images
) -> None:
    model = make_model("6@5/2+1", "4@3+1", sigma=0.7)
    x = images(2, 3, 12, 12)
    expected = autograd_gradient(lambda y: energy(model, y))(x)
    torch.testing.assert_close(energy_gradient(model.sigma, model.basis)(x), expected)
    torch.testing.assert_close(expected, (x - reconstruct(model, x)) / model.sigma**2)


def test_the_energy_map_of_a_published_model_sums_to_the_energy(make_model: MakeModel) -> None:
    model = make_model("4@5/3+2", "3@3+1")
    x = torch.randn(2, 3, 20, 17, dtype=torch.float64)
    energy_map = model.energy_map(x)
    assert energy_map.shape == (2, 20, 17)
    torch.testing.assert_close(energy_map.sum(dim=(1, 2)), energy(model, x))


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_the_energy_map_of_a_noise_level_sums_to_the_energy(noise: float) -> None:
    net = NoiseConditionalNet(
        parse_layers("4@5,6@3/2"), padding_mode=PaddingMode.REFLECT, rectifier=SmoothReLU(0.5)
    )
    net.initialize(torch.Generator().manual_seed(0))
    net.spectrum.fit([torch.randn(3, 32, 32)], 16)
    model = NoiseLevelModel(net, noise)
    x = torch.randn(2, 3, 16, 24)
    total = energy(model, x).detach()
    torch.testing.assert_close(model.energy_map(x).sum(dim=(1, 2)), total, rtol=1e-4, atol=1e-2)
    assert [tuple(maps.shape) for maps in model.responses(x)] == [(2, 4, 8, 12), (2, 6, 4, 6)]


def test_spreading_keeps_the_sum_where_sizes_do_not_divide() -> None:
    coarse = torch.rand(2, 3, 5)
    fine = spread_over_pixels(coarse, (7, 11))
    torch.testing.assert_close(fine.sum(dim=(1, 2)), coarse.sum(dim=(1, 2)))
