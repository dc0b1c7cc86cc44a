"""Descent to modes: never upwards, exact where theory promises it, honest where it does not."""

import torch

from gcn_cli.models.energy import energy, reconstruct
from gcn_cli.samplers.modes import descend_to_modes
from tests.conftest import MakeModel


def residual(model: torch.nn.Module, x: torch.Tensor) -> float:
    off = (x - reconstruct(model, x)).detach()  # type: ignore[arg-type]
    return float(off.norm() / x.norm())


def test_one_layer_inside_a_cell_reaches_its_mode(make_model: MakeModel) -> None:
    """From a picture within the cell of its mode one whole step is enough."""
    model = make_model("6@3+1", scale=0.3)
    x = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    found = descend_to_modes(model, x, 200)
    again = descend_to_modes(model, found.images + 1e-6 * torch.randn_like(x), 3)
    for one in (found, again):
        settled = ~one.caught
        off = (one.images - reconstruct(model, one.images)).detach()
        share = off.flatten(1).norm(dim=1) / one.images.flatten(1).norm(dim=1)
        assert float(share[settled].max() if bool(settled.any()) else 0.0) < 1e-5
    assert bool((~found.caught).any())


def test_the_energy_never_rises_and_its_fall_is_what_is_told(make_model: MakeModel) -> None:
    model = make_model("6@5/2+2", "8@3+1", "4@3+1", scale=0.25, sigma=2.0)
    x = 3 * torch.randn(3, 3, 16, 16, dtype=torch.float64)
    before = last = energy(model, x).detach()
    for steps in (1, 3, 10, 30):
        found = descend_to_modes(model, x, steps)
        now = energy(model, found.images).detach()
        assert bool((now <= last + 1e-9).all())
        torch.testing.assert_close(found.falls, before - now)
        last = now
        assert found.steps <= steps


def test_whole_auto_encodings_climb_where_descent_does_not(make_model: MakeModel) -> None:
    model = make_model("4@3+1", scale=2.0)  # steep: the cell's mean lies far beyond its border
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    whole, climbed = x, []
    for _ in range(12):
        moved = reconstruct(model, whole).detach()
        climbed.append(bool(energy(model, moved) > energy(model, whole)))
        whole = moved
    assert (
        float((energy(model, descend_to_modes(model, x, 12).images) - energy(model, x)).detach())
        <= 0
    )
    assert any(climbed) or residual(model, whole) < 1e-9


def test_at_a_mode_nothing_moves(make_model: MakeModel) -> None:
    model = make_model("3@3+1", scale=0.0)
    found = descend_to_modes(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64), 5)
    assert found.steps == 0
    assert float(found.falls) == 0
    assert float(found.at_kink) == 0


class Halving:
    """A density whose auto-encoder halves images: U(I) = |I|^2 / 4, sigma 1."""

    sigma = 1.0

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(dim=(1, 2, 3)) / 4

    def basis(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2

    def activation_pattern(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.ones_like(x, dtype=torch.bool)]

    def responses(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]

    def energy_map(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(dim=1) / 4


def test_mode_finding_at_rate_one_repeats_the_reconstruction() -> None:
    x = descend_to_modes(Halving(), torch.ones(1, 1, 1, 1), 3).images
    assert float(x) == 0.125
