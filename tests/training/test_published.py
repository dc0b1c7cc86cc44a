"""The published training: likelihood gradient, CD1 identity, authors' rules, stages, resuming."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch

from gcn_cli.config import PublishedConfig
from gcn_cli.errors import DivergedError, InputError
from gcn_cli.kinds import make_trainer
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.energy import energy
from gcn_cli.models.layers import LayerSpec, PaddingMode, parse_layers
from gcn_cli.training.distributed import ProcessGroup
from gcn_cli.training.published import (
    PublishedTrainer,
    cd_step,
    likelihood_gradient,
    likelihood_step,
    make_sgd,
    normalize_gradients,
)
from tests.conftest import MakeModel
from tests.training.driving import run

SMALL = PublishedConfig(
    size=None, layers=parse_layers("8@5/2+2,6@3+1"), iterations=6, langevin_steps=3, chains=2
)
SMALL_CD = dataclasses.replace(SMALL, learner="cd", chains=None, momentum=0.9)


def stripes(count: int = 1, side: int = 16) -> list[torch.Tensor]:
    wave = torch.sin(torch.arange(side) * 1.5707) * 40
    return [wave.expand(3, side, side).clone() + 3 * number for number in range(count)]


def build_trainer(config: PublishedConfig, count: int = 1) -> PublishedTrainer:
    _, trainer = make_trainer(config, stripes(count), torch.device("cpu"), torch.float32)
    assert isinstance(trainer, PublishedTrainer)
    return trainer


def two_pixel_images(span: float = 7.0, points: int = 281) -> tuple[torch.Tensor, float]:
    """A grid of all images of two pixels, and the area of its cells."""
    axis = torch.linspace(-span, span, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    return grid, float(axis[1] - axis[0]) ** 2


def log_likelihood(model: GenerativeConvNet, data: torch.Tensor) -> torch.Tensor:
    """mean log p(I; w), up to the constant of the reference; Z is summed over the grid."""
    grid, cell = two_pixel_images()
    log_z = torch.logsumexp(-energy(model, grid), dim=0) + torch.log(torch.tensor(cell))
    return (-energy(model, data)).mean() - log_z


def test_gradient_is_that_of_the_integrated_likelihood() -> None:
    layers = [LayerSpec(2, 1)]
    model = GenerativeConvNet(layers, channels=1, padding_mode=PaddingMode.VALID).double()
    model.weights[0].data.copy_(torch.tensor([0.8, -0.5]).reshape(2, 1, 1, 1))
    model.biases[0].data.copy_(torch.tensor([0.1, -0.2]))
    data = torch.tensor([[0.7, 1.5], [-0.4, 0.3]], dtype=torch.float64).reshape(2, 1, 1, 2)

    numerical = torch.autograd.grad(log_likelihood(model, data), list(model.parameters()))
    # Exact samples of p, grid points by their probability, in place of Langevin chains.
    grid, _ = two_pixel_images()
    probabilities = torch.softmax(-energy(model, grid).detach(), dim=0)
    picked = torch.multinomial(
        probabilities, 400_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    gradients = likelihood_gradient(model, data, grid[picked])
    for gradient, exact in zip(gradients.values(), numerical, strict=True):
        torch.testing.assert_close(gradient, exact, rtol=0.02, atol=0.01)

    before = log_likelihood(model, data).detach()
    config = PublishedConfig(learning_rate=1e-2, bias_rate_factor=1.0, weight_decay=0.0)
    optimizer = make_sgd(model, config)
    likelihood_step(model, optimizer, gradients)
    assert float(log_likelihood(model, data).detach()) > float(before)


def test_gradient_is_zero_between_equal_images(make_model: MakeModel) -> None:
    model = make_model("2@3")
    same = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for gradient in likelihood_gradient(model, same, same).values():
        assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-12)


def test_cd1_with_frozen_gates_is_learning_to_reconstruct(
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
    difference = ((x - moved) * frozen_basis()).sum()
    gradients = torch.autograd.grad(difference, parameters)
    for gradient, exact in zip(gradients, reconstruction, strict=True):
        torch.testing.assert_close(gradient, -(step_size**2) / 2 * exact, rtol=1e-9, atol=1e-9)


def test_cd_step_is_a_reconstruction_step_while_no_gate_flips(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1", "4@3+1", sigma=0.8)
    x, step_size = images(1, 3, 12, 12), 1e-4
    gates = model.activation_pattern(x)
    error = 0.5 * (x / model.sigma**2 - model.top_down(gates, (12, 12))).square().sum()
    expected = torch.autograd.grad(error, list(model.weights))
    before = [weight.detach().clone() for weight in model.weights]
    rate = 2 / step_size**2  # the step is then the gradient of the error itself
    synthesized = cd_step(
        model, x, torch.optim.SGD(model.parameters(), lr=rate), step_size=step_size
    )
    model_before = make_model("6@5/2+1", "4@3+1", sigma=0.8)
    same = zip(gates, model_before.activation_pattern(synthesized), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    for old, weight, exact in zip(before, model.weights, expected, strict=True):
        torch.testing.assert_close(old - weight.detach(), exact, rtol=1e-5, atol=1e-5)


def test_cd_steps_with_noise_lower_the_reconstruction_error(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1")
    x = images(4, 3, 12, 12)
    generator = torch.Generator().manual_seed(1)

    def noise(shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)

    def error() -> float:
        return float((x - model.basis(x)).detach().square().mean())

    before, optimizer = error(), torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(30):
        moved = cd_step(model, x, optimizer, step_size=0.3, steps=2, noise=noise)
    assert moved.shape == x.shape
    assert error() < 0.95 * before


def test_gradients_are_divided_by_map_areas_then_scaled_to_the_cap() -> None:
    gradients = {
        "weights.0": torch.tensor([100.0, -400.0]),
        "biases.1": torch.tensor([30.0]),
        "head": torch.tensor([5.0]),
    }
    normalized = normalize_gradients(gradients, [4, 10], cap=20.0)
    torch.testing.assert_close(normalized["weights.0"], torch.tensor([5.0, -20.0]))
    torch.testing.assert_close(normalized["biases.1"], torch.tensor([3.0]))
    assert normalized["head"].tolist() == [5.0]


def test_biases_have_a_higher_rate_and_no_decay(make_model: MakeModel) -> None:
    model = make_model("2@3")
    weight, bias = model.weights[0].detach().clone(), model.biases[0].detach().clone()
    config = PublishedConfig(learning_rate=0.1, bias_rate_factor=2.0, weight_decay=0.5)
    optimizer = make_sgd(model, config)
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    likelihood_step(model, optimizer, ones)
    torch.testing.assert_close(model.weights[0].detach(), weight + 0.1 * (1 - 0.5 * weight))
    torch.testing.assert_close(model.biases[0].detach(), bias + 0.2)


def test_stage_adds_a_layer_and_restarts_the_chains() -> None:
    trainer = build_trainer(SMALL)
    rows = run(trainer, 0, 12)
    assert [row["stage"] for row in rows] == [1.0] * 6 + [2.0] * 6
    assert len(trainer.model.layers) == 2
    assert trainer.optimizer.param_groups[0]["lr"] == SMALL.learning_rate / 2
    assert rows[6]["contrast"] < rows[5]["contrast"]  # chains are at zero again


def test_without_layerwise_all_layers_train_at_once() -> None:
    trainer = build_trainer(dataclasses.replace(SMALL, layerwise=False))
    assert trainer.iterations == 6
    assert len(trainer.model.layers) == 2


@pytest.mark.parametrize("stop_at", [3, 6, 8])
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL_CD, batch_size=2),
        dataclasses.replace(SMALL, crop=10, batch_size=3),
        dataclasses.replace(SMALL, head=True, momentum=0.5),
    ],
    ids=["mle", "cd", "crops", "head"],
)
def test_state_resumes_exactly(stop_at: int, config: PublishedConfig) -> None:
    uninterrupted = build_trainer(config, 4)
    expected = run(uninterrupted, 0, 12)
    first, resumed = build_trainer(config, 4), build_trainer(config, 4)
    run(first, 0, stop_at)
    resumed.load_state(first.state())
    assert run(resumed, stop_at, 12) == expected[stop_at:]
    pairs = zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_maximum_likelihood_brings_the_chains_to_the_data() -> None:
    config = dataclasses.replace(SMALL, iterations=60, langevin_steps=10, learning_rate=5e-3)
    rows = run(build_trainer(config), 0, 120)
    assert rows[-1]["contrast"] > 5 * rows[0]["contrast"]
    assert abs(rows[-1]["energy_difference"]) < abs(rows[0]["energy_difference"])


@pytest.mark.slow
def test_contrastive_divergence_learns_to_reconstruct() -> None:
    config = dataclasses.replace(
        SMALL_CD, layerwise=False, iterations=150, langevin_steps=1,
        step_size=0.5, learning_rate=2e-3, gradient_cap=1.0,
    )  # fmt: skip
    rows = run(build_trainer(config, 3), 0, 150)
    assert rows[-1]["reconstruction_error"] < 0.3 * rows[0]["reconstruction_error"]


def test_divergence_is_an_error() -> None:
    config = dataclasses.replace(SMALL, step_size=1e12)
    with pytest.raises(DivergedError, match="iteration 1: energy_difference is nan"):
        run(build_trainer(config), 0, 12)


def test_fewer_chains_than_processes_are_an_error() -> None:
    for config, option in ((SMALL, "--set chains"), (SMALL_CD, "--batch-size")):
        with pytest.raises(InputError, match=f"{option} 2: fewer than the 3 processes"):
            make_trainer(config, stripes(2), torch.device("cpu"), torch.float32, ProcessGroup(0, 3))


def test_images_that_do_not_fit_are_an_error() -> None:
    small, large = stripes(side=16)[0], stripes(side=18)[0]
    for images, crop, message in (
        ([small, large], None, "differ in size"),
        ([small], 20, "larger than the smallest"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(
                dataclasses.replace(SMALL, crop=crop), images, torch.device("cpu"), torch.float32
            )
