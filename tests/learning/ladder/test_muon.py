"""Orthogonalised momentum."""

import pytest
import torch

from gcn_cli.learning.ladder.muon import Muon, orthogonalise
from gcn_cli.learning.state import load_optimiser_state, optimiser_state


def test_singular_values_become_alike_and_directions_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 40), (40, 6), (5, 5)):
        matrix = torch.randn(shape, generator=generator)
        made = orthogonalise(matrix)
        values = torch.linalg.svdvals(made)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        overlap = (u @ v * made).sum() / (made.norm() * (u @ v).norm())
        assert float(overlap) > 0.95
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_it_solves_an_ill_conditioned_regression_that_plain_descent_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=generator) * torch.logspace(0, -2, 8)
    target = torch.randn(4, 8, generator=generator)

    def loss_after(make: type[Muon] | type[torch.optim.SGD], rate: float) -> float:
        weight = torch.nn.Parameter(torch.zeros(4, 8))
        optimiser = make([weight], lr=rate)
        for step in range(400):
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 - step / 400)
            optimiser.zero_grad()
            loss = ((inputs @ (weight - target).T) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return float((weight.detach() - target).norm() / target.norm())

    assert loss_after(Muon, 0.05) < 0.05
    assert loss_after(torch.optim.SGD, 0.05) > 0.3


def test_decay_shrinks_by_its_share_of_the_rate() -> None:
    """Without a gradient's direction nothing else moves a filter."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(2, 3)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 0.95))


def test_damped_steps_are_short_where_gradients_turn_round_and_whole_where_they_agree() -> None:
    drawn = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))

    def last_step(turns: bool, damped: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.zeros(6, 20))
        optimiser = Muon([weight], lr=1.0)
        for number in range(60):
            if number == 20:
                optimiser.param_groups[0]["damped"] = damped
            before = weight.detach().clone()
            weight.grad = -drawn if turns and number % 2 else drawn.clone()
            optimiser.step()
        return weight.detach() - before

    alike, turning = last_step(False, True), last_step(True, True)
    assert torch.allclose(alike, last_step(False, False), rtol=0.01)
    # A momentum of 0.9 keeps 0.1 / 1.9 of gradients that turn round at every step.
    assert float(turning.norm() / last_step(True, False).norm()) == pytest.approx(0.1 / 1.9, 0.01)


def test_damping_goes_on_where_a_saved_optimiser_stood() -> None:
    drawn = torch.randn(30, 6, 20, generator=torch.Generator().manual_seed(0))

    def run(optimiser: Muon, weight: torch.nn.Parameter, gradients: torch.Tensor) -> None:
        for gradient in gradients:
            optimiser.param_groups[0]["damped"] = True
            weight.grad = gradient.clone()
            optimiser.step()

    whole, halves, rest = (torch.nn.Parameter(torch.zeros(6, 20)) for _ in range(3))
    run(Muon([whole], lr=0.1), whole, drawn)
    first, second = Muon([halves], lr=0.1), Muon([rest], lr=0.1)
    run(first, halves, drawn[:15])
    rest.data.copy_(halves)
    load_optimiser_state(second, optimiser_state(first))
    run(second, rest, drawn[15:])
    assert torch.equal(whole, rest)
