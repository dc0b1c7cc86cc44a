"""Orthogonalized momentum."""

import torch

from gcn_cli.training.optim import Muon, orthogonalize


def test_singular_values_become_alike_and_directions_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 40), (40, 6), (5, 5)):
        matrix = torch.randn(shape, generator=generator)
        made = orthogonalize(matrix)
        values = torch.linalg.svdvals(made)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        overlap = (u @ v * made).sum() / (made.norm() * (u @ v).norm())
        assert float(overlap) > 0.95
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_it_solves_an_ill_conditioned_regression_that_plain_descent_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=generator) * torch.logspace(0, -2, 8)
    target = torch.randn(4, 8, generator=generator)

    def loss_after(make: type[Muon] | type[torch.optim.SGD], rate: float) -> float:
        weight = torch.nn.Parameter(torch.zeros(4, 8))
        optimizer = make([weight], lr=rate)
        for step in range(400):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / 400)
            optimizer.zero_grad()
            loss = ((inputs @ (weight - target).T) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float((weight.detach() - target).norm() / target.norm())

    assert loss_after(Muon, 0.05) < 0.05
    assert loss_after(torch.optim.SGD, 0.05) > 0.3


def test_decay_shrinks_by_its_share_of_the_rate() -> None:
    """Without a gradient's direction nothing else moves a filter."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(2, 3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 0.95))


def test_what_a_dead_filter_keeps_of_its_momentum_ends() -> None:
    """It would fade into subnormal numbers, with which long trainings took twice the time."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([weight], lr=0.1)
    for step in range(500):
        weight.grad = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0] if step == 0 else [0.0] * 3])
        optimizer.step()
    kept = optimizer.state[weight]["momentum"]
    assert torch.equal(kept[1], torch.zeros(3))
    torch.testing.assert_close(kept[0], torch.tensor([1.0, 2.0, 3.0]))
