"""Muon: orthogonalized momentum, decoupled decay; clipped outliers; running averages."""

import copy

import pytest
import torch

from gcn_cli.models.layers import parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.training.optim import (
    OUTLIER,
    AdamW,
    Muon,
    StageOptimizer,
    orthogonalize,
    orthogonalize_batch,
    update_average,
)


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


def test_matrices_of_a_batch_are_orthogonalized_as_alone() -> None:
    """Of different sizes, wide and tall, one of them zero."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 40), (40, 6), (5, 5), (12, 30))
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    matrices.append(torch.zeros(3, 4))
    for matrix, result in zip(matrices, orthogonalize_batch(matrices), strict=True):
        torch.testing.assert_close(result, orthogonalize(matrix), rtol=1e-4, atol=1e-5)


def test_muon_solves_an_ill_conditioned_regression_that_sgd_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=generator) * torch.logspace(0, -2, 8)
    target = torch.randn(4, 8, generator=generator)

    def error_after(muon: bool, rate: float) -> float:
        weight = torch.zeros(4, 8)
        optimizer = Muon([weight])
        for step in range(400):
            difference = inputs @ (weight - target).T
            gradient = 2 * difference.T @ inputs / difference.numel()
            if muon:
                optimizer.step([gradient], rate * (1 - step / 400))
            else:
                weight -= rate * (1 - step / 400) * gradient
        return float((weight - target).norm() / target.norm())

    assert error_after(True, 0.05) < 0.05
    assert error_after(False, 0.05) > 0.3


def test_decay_is_rate_times_weight_decay() -> None:
    """With a zero gradient only the decay changes a filter."""
    weight = torch.ones(2, 3)
    Muon([weight], weight_decay=0.5).step([torch.zeros(2, 3)], 0.1)
    torch.testing.assert_close(weight, torch.full((2, 3), 0.95))


def test_momentum_of_a_dead_filter_becomes_zero() -> None:
    """Subnormal numbers doubled the time of long trainings."""
    weight = torch.ones(2, 3)
    optimizer = Muon([weight])
    for step in range(500):
        second = [1.0, 1.0, 1.0] if step == 0 else [0.0] * 3
        optimizer.step([torch.tensor([[1.0, 2.0, 3.0], second])], 0.1)
    momentum = optimizer.averages[0]
    assert torch.equal(momentum[1], torch.zeros(3))
    torch.testing.assert_close(momentum[0], torch.tensor([1.0, 2.0, 3.0]))


def test_adamw_is_that_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,))]
    theirs = [torch.nn.Parameter(parameter.clone()) for parameter in ours]
    reference = torch.optim.AdamW(theirs, 1.0, betas=(0.9, 0.99), weight_decay=0.1)
    optimizer = AdamW(ours, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(5):
        gradients = [torch.randn(p.shape, generator=generator) for p in ours]
        for other, gradient in zip(theirs, gradients, strict=True):
            other.grad = gradient.clone()
        reference.param_groups[0]["lr"] = 0.1 / (1 + step)
        reference.step()
        optimizer.step(gradients, *optimizer.scalars(0.1 / (1 + step)))
    for result, other in zip(ours, theirs, strict=True):
        assert torch.equal(result, other.detach())


def make_net() -> NoiseConditionalNet:
    net = NoiseConditionalNet(parse_layers("4@3"), rectifier=SmoothReLU(0.5))
    net.initialize(torch.Generator().manual_seed(0))
    return net


def random_gradients(
    net: NoiseConditionalNet, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    return {n: torch.randn(p.shape, generator=generator) for n, p in net.named_parameters()}


def test_outlier_gradients_are_clipped_to_a_multiple_of_the_usual_norm() -> None:
    optimizer = StageOptimizer(make_net(), 0.03, 6e-3)
    gradients = {name: torch.ones_like(p) for name, p in optimizer.net.named_parameters()}
    optimizer.step(gradients, *optimizer.scalars(1.0))
    usual = float(optimizer.usual_norm)
    large = {name: 1000 * gradient for name, gradient in gradients.items()}
    optimizer.step(large, *optimizer.scalars(1.0))
    assert float(optimizer.usual_norm) == pytest.approx(usual * (1 + (OUTLIER - 1) * 0.02))


def test_optimizer_state_resumes_exactly() -> None:
    first, resumed = (StageOptimizer(make_net(), 0.03, 6e-3) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        gradients = random_gradients(first.net, generator)
        first.step(gradients, *first.scalars(0.5))
        if step == 2:
            resumed.net.load_state_dict(first.net.state_dict())
            resumed.load_state({name: tensor.clone() for name, tensor in first.state().items()})
        elif step > 2:
            resumed.step(gradients, *resumed.scalars(0.5))
    for ours, theirs in zip(first.net.parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_numbers_may_be_tensors() -> None:
    """As in a CUDA graph: the same step, to rounding."""
    first, second = (StageOptimizer(make_net(), 0.03, 6e-3) for _ in range(2))
    averages = [copy.deepcopy(optimizer.net).requires_grad_(False) for optimizer in (first, second)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradients = random_gradients(first.net, generator)
        first.step(gradients, *first.scalars(0.5))
        second.step(gradients, *map(torch.tensor, second.scalars(0.5)))
        update_average(averages[0], first.net, 0.9)
        update_average(averages[1], second.net, torch.tensor(0.9))
    for ours, theirs in zip(averages[0].parameters(), averages[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_average_moves_by_its_memory() -> None:
    average, net = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.75 * average.weight.detach() + 0.25 * net.weight.detach()
    average.requires_grad_(False)
    update_average(average, net, 0.75)
    torch.testing.assert_close(average.weight, expected, check_dtype=False)
