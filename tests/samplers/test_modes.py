"""Descent to modes: the energy never rises, and theory holds where it makes a promise."""

import torch
from torch import Tensor

from gcn_cli.models.energy import GenerativeModel, energy, reconstruct
from gcn_cli.samplers.langevin import mode_residual
from gcn_cli.samplers.modes import descend_to_modes
from tests.conftest import MakeModel


def residual(model: GenerativeModel, x: Tensor) -> Tensor:
    return mode_residual(x, reconstruct(model, x)).detach()


def test_a_mode_of_one_layer_reconstructs_itself(make_model: MakeModel) -> None:
    """Hopfield: I = sigma^2 B(I) at a mode strictly inside a cell, exact for one layer."""
    model = make_model("8@3+1", scale=0.3)
    modes = descend_to_modes(model, torch.randn(3, 3, 10, 10, dtype=torch.float64), 400).images
    assert float(residual(model, modes).max()) < 1e-9


def test_within_the_cell_of_a_mode_few_steps_are_enough(make_model: MakeModel) -> None:
    model = make_model("6@3+1", scale=0.3)
    x = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    first = descend_to_modes(model, x, 200)
    again = descend_to_modes(model, first.images + 1e-6 * torch.randn_like(x), 3)
    for descent in (first, again):
        at_modes = residual(model, descent.images)[~descent.stuck]
        assert bool((at_modes < 1e-5).all())
    assert bool((~first.stuck).any())


def test_the_energy_never_rises_and_its_decrease_is_reported(make_model: MakeModel) -> None:
    model = make_model("6@5/2+2", "8@3+1", "4@3+1", scale=0.25, sigma=2.0)
    x = 3 * torch.randn(3, 3, 16, 16, dtype=torch.float64)
    start = last = energy(model, x).detach()
    for steps in (1, 3, 10, 30):
        descent = descend_to_modes(model, x, steps)
        now = energy(model, descent.images).detach()
        assert bool((now <= last + 1e-9).all())
        torch.testing.assert_close(descent.energy_decrease, start - now)
        last = now
        assert descent.steps <= steps


def test_repeated_auto_encoding_may_raise_the_energy_where_descent_does_not(
    make_model: MakeModel,
) -> None:
    model = make_model("4@3+1", scale=2.0)  # steep: the mean of a cell lies far outside it
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    encoded, rises = x, []
    for _ in range(12):
        moved = reconstruct(model, encoded).detach()
        rises.append(bool(energy(model, moved) > energy(model, encoded)))
        encoded = moved
    assert any(rises) or float(residual(model, encoded)) < 1e-9
    descent = descend_to_modes(model, x, 12)
    assert float((energy(model, descent.images) - energy(model, x)).detach()) <= 0


def test_a_mode_does_not_move(make_model: MakeModel) -> None:
    model = make_model("3@3+1", scale=0.0)
    descent = descend_to_modes(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64), 5)
    assert descent.steps == 0
    assert float(descent.energy_decrease) == 0
    assert float(descent.kink_share) == 0


class Halving:
    """A model whose auto-encoder halves images: U(I) = |I|^2 / 4, sigma 1."""

    sigma = 1.0

    def score(self, x: Tensor) -> Tensor:
        return x.square().sum(dim=(1, 2, 3)) / 4

    def basis(self, x: Tensor) -> Tensor:
        return x / 2

    def activation_pattern(self, x: Tensor) -> list[Tensor]:
        return [torch.ones_like(x, dtype=torch.bool)]

    def responses(self, x: Tensor) -> list[Tensor]:
        return [x]

    def energy_map(self, x: Tensor) -> Tensor:
        return x.square().sum(dim=1) / 4


def test_steps_of_rate_1_are_reconstructions() -> None:
    x = descend_to_modes(Halving(), torch.ones(1, 1, 1, 1), 3).images
    assert float(x) == 0.125
