"""Energy, Gaussian pieces and modes against closed forms."""

from collections.abc import Callable

import torch

from gcn_cli.models.convnet import gaussian_piece
from gcn_cli.models.energy import (
    autograd_gradient,
    energy,
    energy_gradient,
    log_reference,
    reconstruct,
)
from gcn_cli.samplers.langevin import mode_residual
from gcn_cli.samplers.modes import descend_to_modes
from tests.conftest import MakeModel


def test_the_log_density_of_the_piece_is_minus_u_up_to_one_constant(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
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


def test_the_mean_of_the_piece_is_the_reconstruction(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5+2", sigma=0.5)
    x = images(2, 3, 8, 8)
    piece = gaussian_piece(model, x)
    torch.testing.assert_close(piece.mean, reconstruct(model, x))
    assert piece.variance == 0.25


def test_the_gradient_of_u_is_the_scaled_reconstruction_error(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1", "4@3+1", sigma=0.7)
    x = images(2, 3, 12, 12)
    slope = autograd_gradient(lambda y: energy(model, y))(x)
    explicit = energy_gradient(model.sigma, model.basis)(x)
    torch.testing.assert_close(explicit, slope)
    torch.testing.assert_close(slope, (x - reconstruct(model, x)) / model.sigma**2)


def test_a_mode_of_one_layer_reconstructs_itself(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    """Hopfield: I = sigma^2 B(I) at a mode strictly inside a cell, exact for one layer."""
    model = make_model("8@3+1", scale=0.3)

    def reconstruction(x: torch.Tensor) -> torch.Tensor:
        return reconstruct(model, x).detach()

    mode = descend_to_modes(model, images(3, 3, 10, 10), 400).images
    assert float(mode_residual(mode, reconstruction(mode)).max()) < 1e-9
