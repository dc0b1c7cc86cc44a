"""The building blocks for research: the paper's net, Langevin dynamics, CD, a model at a level."""

from pathlib import Path

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.models.convnet import published_net
from gcn_cli.models.energy import energy, energy_gradient
from gcn_cli.samplers.langevin import run_chain
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.published import cd_step
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, small_image


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("research") / "run"
    gcn.train(small_image(), output=folder, iterations=2, **SMALL_TEXTURE)
    return folder


def test_the_example_for_researchers(run: Path) -> None:
    texture = small_image()
    # The example: at most 20 lines.
    net = published_net(torch.Generator().manual_seed(0))
    images = 50 * torch.randn(2, 3, 64, 64)  # gray levels minus the mean color
    u, b = energy(net, images), net.basis(images)  # U(I), (N,); B(I) = df/dI, like I
    gradient = energy_gradient(net.sigma, net.basis)  # dU/dI = I / sigma^2 - B(I)
    noise = ImageNoise(0, "chain", range(2))
    chains = run_chain(images, gradient, steps=10, step_size=0.3, noise=noise)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    synthesized = cd_step(net, images, optimizer, step_size=0.3)

    model = gcn.load(run)
    x = model.to_model(texture)  # (1, C, H, W), deviation 1
    p = model.at_level(0.5)  # images with noise of 0.5 deviations
    log_p = p.score(x) - x.square().sum() / (2 * p.sigma**2)  # up to a constant: -U(x)
    gates = p.activation_pattern(x)  # one tensor (N, filters, h, w) for each layer
    noisy = x + 0.5 * torch.randn_like(x)
    score = (model.denoiser()(noisy, 0.5) - noisy) / 0.5**2  # grad log p_s(noisy)
    model.to_image(x)
    # The end of the example.
    assert u.shape == (2,)
    assert b.shape == chains.shape == synthesized.shape == images.shape
    torch.testing.assert_close(-log_p, energy(p, x))
    assert len(gates) == len(model.config.layers)
    assert score.shape == x.shape


def test_d_is_the_mean_by_the_score_of_the_level(run: Path) -> None:
    """D_s(x) = x + s^2 grad log p_s(x) = x - s^2 (x / sigma^2 - B(x))."""
    model, s = gcn.load(run, device="cpu", precision="float32"), 0.5
    p, x = model.at_level(s), model.to_model(small_image())
    expected = x - s**2 * (x / p.sigma**2 - p.basis(x))
    torch.testing.assert_close(model.denoiser()(x, s), expected, rtol=1e-4, atol=1e-4)


def test_images_come_back_from_model_units(run: Path) -> None:
    model, pixels = gcn.load(run, device="cpu"), small_image()
    back = model.to_image(model.to_model(pixels), kind="torch")
    torch.testing.assert_close(back, pixels, rtol=0, atol=1e-3)
    assert model.to_image(model.to_model(pixels)[0]).size == (40, 32)


def test_levels_are_refused_by_published_models_and_where_they_are_no_level(run: Path) -> None:
    published = gcn.train(small_image(), iterations=1, **SMALL_PUBLISHED)
    assert published.at_level().sigma == published.config.sigma  # type: ignore[union-attr]
    with pytest.raises(gcn.InputError, match="--noise-level: a published model"):
        published.at_level(1.0)
    with pytest.raises(gcn.InputError, match="published model has no noise levels"):
        published.denoiser()
    for level in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(gcn.InputError, match="--noise-level"):
            gcn.load(run).at_level(level)
