"""The likelihood gradient against numerical integration, the CD1 identity, the published rules."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.energy import energy
from gcn_cli.models.layers import LayerSpec, PaddingMode
from gcn_cli.training.published import (
    likelihood_gradient,
    likelihood_step,
    make_sgd,
    normalize_gradients,
)
from tests.conftest import MakeModel


def two_pixels(span: float = 7.0, points: int = 281) -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-span, span, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    return grid, float(axis[1] - axis[0]) ** 2


def log_likelihood(model: GenerativeConvNet, data: torch.Tensor) -> torch.Tensor:
    """mean log p(I; w) but for the reference's own constant, Z summed over a grid of images."""
    grid, cell = two_pixels()
    log_z = torch.logsumexp(-energy(model, grid), dim=0) + torch.log(torch.tensor(cell))
    return (-energy(model, data)).mean() - log_z


def test_the_gradient_has_the_sign_and_value_of_the_integrated_likelihood() -> None:
    model = GenerativeConvNet([LayerSpec(2, 1)], channels=1, lattice=PaddingMode.VALID).double()
    model.weights[0].data.copy_(torch.tensor([0.8, -0.5]).reshape(2, 1, 1, 1))
    model.biases[0].data.copy_(torch.tensor([0.1, -0.2]))
    data = torch.tensor([[0.7, 1.5], [-0.4, 0.3]], dtype=torch.float64).reshape(2, 1, 1, 2)

    numerical = torch.autograd.grad(log_likelihood(model, data), list(model.parameters()))
    # Exact draws from p: grid points, repeated by their probability, in place of Langevin.
    grid, _ = two_pixels()
    weights = torch.softmax(-energy(model, grid).detach(), dim=0)
    picked = torch.multinomial(
        weights, 400_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    gradients = likelihood_gradient(model, data, grid[picked])
    for ours, exact in zip(gradients.values(), numerical, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0.02, atol=0.01)

    before = log_likelihood(model, data).detach()
    optimizer = make_sgd(model, learning_rate=1e-2, bias_rate=1.0, weight_decay=0.0, momentum=0.0)
    likelihood_step(model, optimizer, gradients)
    assert float(log_likelihood(model, data).detach()) > float(before)


def test_cd1_without_noise_and_with_frozen_gates_is_learning_to_reconstruct(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    """d/dw [f(I) - f(I')] = -(eps^2 / 2) d/dw 1/2 |I / sigma^2 - B|^2, to 1e-9."""
    model = make_model("6@5/2+1", "4@3+1", sigma=0.8)
    x = images(1, 3, 12, 12)
    gates, step_size = model.activation_pattern(x), 0.3

    def frozen_basis() -> torch.Tensor:
        return model.top_down(gates, (12, 12))

    basis = frozen_basis()
    error = 0.5 * (x / model.sigma**2 - basis).square().sum()
    parameters = [*model.weights]
    reconstruction = torch.autograd.grad(error, parameters, retain_graph=True)
    moved = (x - step_size**2 / 2 * (x / model.sigma**2 - basis)).detach()
    # Inside the cell f is alpha + <I, B>; alpha cancels between the two images.
    contrast = ((x - moved) * frozen_basis()).sum()
    ours = torch.autograd.grad(contrast, parameters)
    for a, b in zip(ours, reconstruction, strict=True):
        torch.testing.assert_close(a, -(step_size**2) / 2 * b, rtol=1e-9, atol=1e-9)


def test_cd1_with_free_gates_is_the_identity_where_no_gate_flips(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1", "4@3+1")
    x, step_size = images(1, 3, 12, 12), 1e-4
    gates = model.activation_pattern(x)
    basis = model.top_down(gates, (12, 12))
    moved = (x - step_size**2 / 2 * (x - basis)).detach()
    same = zip(gates, model.activation_pattern(moved), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    error = 0.5 * (x - basis).square().sum()
    expected = torch.autograd.grad(error, list(model.weights))
    gradients = likelihood_gradient(model, x, moved)
    for layer, exact in enumerate(expected):
        ours = gradients[f"weights.{layer}"] / (-(step_size**2) / 2)
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_gradients_are_divided_by_map_areas_then_capped() -> None:
    gradients = {
        "weights.0": torch.tensor([100.0, -400.0]),
        "biases.1": torch.tensor([30.0]),
        "head": torch.tensor([5.0]),
    }
    ruled = normalize_gradients(gradients, [4, 10], cap=20.0)
    torch.testing.assert_close(ruled["weights.0"], torch.tensor([5.0, -20.0]))
    torch.testing.assert_close(ruled["biases.1"], torch.tensor([3.0]))
    assert ruled["head"].tolist() == [5.0]


def test_biases_learn_faster_and_do_not_decay(make_model: MakeModel) -> None:
    model = make_model("2@3")
    weight, bias = model.weights[0].detach().clone(), model.biases[0].detach().clone()
    optimizer = make_sgd(model, learning_rate=0.1, bias_rate=2.0, weight_decay=0.5, momentum=0.0)
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    likelihood_step(model, optimizer, ones)
    torch.testing.assert_close(model.weights[0].detach(), weight + 0.1 * (1 - 0.5 * weight))
    torch.testing.assert_close(model.biases[0].detach(), bias + 0.2)


def test_only_what_was_observed_pulls_the_score_up(make_model: MakeModel) -> None:
    model = make_model("2@3")
    same = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for gradient in likelihood_gradient(model, same, same).values():
        assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-12)
