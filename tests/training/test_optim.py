"""Muon: orthogonalized momentum, decoupled decay; clipped outliers; running averages."""

import pytest
import torch

from gcn_cli.models.layers import parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.training.optim import OUTLIER, Muon, StageOptimizer, orthogonalize, update_average


def test_orthogonalize_equalizes_singular_values_and_keeps_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 40), (40, 6), (5, 5)):
        matrix = torch.randn(shape, generator=generator)
        result = orthogonalize(matrix)
        values = torch.linalg.svdvals(result)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        overlap = (u @ v * result).sum() / (result.norm() * (u @ v).norm())
        assert float(overlap) > 0.95
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_solves_an_ill_conditioned_regression_that_sgd_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=generator) * torch.logspace(0, -2, 8)
    target = torch.randn(4, 8, generator=generator)

    def error_after(kind: type[Muon] | type[torch.optim.SGD], rate: float) -> float:
        weight = torch.nn.Parameter(torch.zeros(4, 8))
        optimizer = kind([weight], lr=rate)
        for step in range(400):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / 400)
            optimizer.zero_grad()
            loss = ((inputs @ (weight - target).T) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float((weight.detach() - target).norm() / target.norm())

    assert error_after(Muon, 0.05) < 0.05
    assert error_after(torch.optim.SGD, 0.05) > 0.3


def test_decay_is_rate_times_weight_decay() -> None:
    """With a zero gradient only the decay changes a filter."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(2, 3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 0.95))


def test_momentum_of_a_dead_filter_becomes_zero() -> None:
    """Subnormal numbers doubled the time of long trainings."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([weight], lr=0.1)
    for step in range(500):
        weight.grad = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0] if step == 0 else [0.0] * 3])
        optimizer.step()
    momentum = optimizer.state[weight]["momentum"]
    assert torch.equal(momentum[1], torch.zeros(3))
    torch.testing.assert_close(momentum[0], torch.tensor([1.0, 2.0, 3.0]))


def make_net() -> NoiseConditionalNet:
    net = NoiseConditionalNet(parse_layers("4@3"), rectifier=SmoothReLU(0.5))
    net.initialize(torch.Generator().manual_seed(0))
    return net


def test_outlier_gradients_are_clipped_to_a_multiple_of_the_usual_norm() -> None:
    optimizer = StageOptimizer(make_net(), 0.03, 6e-3)
    gradients = {name: torch.ones_like(p) for name, p in optimizer.net.named_parameters()}
    optimizer.step(gradients, 1.0)
    usual = float(optimizer.usual_norm)
    optimizer.step({name: 1000 * gradient for name, gradient in gradients.items()}, 1.0)
    assert float(optimizer.usual_norm) == pytest.approx(usual * (1 + (OUTLIER - 1) * 0.02))


def test_optimizer_state_resumes_exactly() -> None:
    first, resumed = (StageOptimizer(make_net(), 0.03, 6e-3) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        gradients = {
            name: torch.randn(p.shape, generator=generator)
            for name, p in first.net.named_parameters()
        }
        first.step(gradients, 0.5)
        if step == 2:
            resumed.net.load_state_dict(first.net.state_dict())
            resumed.load_state({name: tensor.clone() for name, tensor in first.state().items()})
        elif step > 2:
            resumed.step(gradients, 0.5)
    for ours, theirs in zip(first.net.parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_average_moves_by_its_memory() -> None:
    average, net = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.75 * average.weight.detach() + 0.25 * net.weight.detach()
    average.requires_grad_(False)
    update_average(average, net, 0.75)
    torch.testing.assert_close(average.weight, expected, check_dtype=False)
