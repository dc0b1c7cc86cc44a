"""The building blocks for research: the paper's net, Langevin dynamics, CD, a model at a level."""

from pathlib import Path

import pytest
import torch

import gcn_cli as gcn
from gcn_cli import research
from gcn_cli.models.layers import PaddingMode
from gcn_cli.research import ImageNoise, cd_step, energy, energy_gradient, published_net, run_chain
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


def test_public_names_have_documentation() -> None:
    assert research.__all__ == sorted(research.__all__)
    for name in research.__all__:
        assert getattr(research, name).__doc__


@pytest.mark.parametrize("mode", [None, PaddingMode.CIRCULAR, PaddingMode.ZEROS])
def test_d_is_tweedies_mean_of_the_density_with_the_same_padding(
    run: Path, mode: PaddingMode | None
) -> None:
    """D_s(x) = x + s^2 grad log p_s(x) = x - s^2 (x / sigma^2 - B(x))."""
    model, s = gcn.load(run, device="cpu", precision="float32"), 0.5
    p, x = model.at_level(s, mode), model.to_model(small_image())
    expected = x - s**2 * (x / p.sigma**2 - p.basis(x))
    torch.testing.assert_close(model.denoiser(mode)(x, s), expected, rtol=1e-4, atol=1e-4)
    if mode is not None:
        assert not torch.equal(model.at_level(s).basis(x), p.basis(x))
        assert model.at_level(s).basis(x).isfinite().all()
        with pytest.raises(gcn.InputError, match="padding_mode=valid: only for published"):
            model.at_level(s, PaddingMode.VALID)


def test_the_score_of_a_loaded_model_is_differentiable_in_the_image_alone(run: Path) -> None:
    model = gcn.load(run, device="cpu", precision="float32")
    p, x = model.at_level(0.5), model.to_model(small_image())
    assert p.score(x).numpy().shape == (1,)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(p.score(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, p.basis(x), rtol=1e-4, atol=1e-4)


def test_a_published_model_gives_a_copy_that_can_be_trained(tmp_path: Path) -> None:
    gcn.train(small_image(), output=tmp_path / "run", iterations=1, **SMALL_PUBLISHED)
    model = gcn.load(tmp_path / "run", device="cpu")
    net, x = model.at_level(), model.to_model(small_image())
    assert isinstance(net, research.GenerativeConvNet)
    before = net.basis(x).detach()
    score = model.score(small_image())
    with torch.no_grad():
        net.weights[0].mul_(2)
    torch.testing.assert_close(net.basis(x).detach(), 2 * before, rtol=1e-4, atol=1e-5)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    cd_step(net, x, optimizer, step_size=0.3)
    basis, leaf = net.basis(x).detach(), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.score(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, basis, rtol=1e-4, atol=1e-5)
    assert model.score(small_image()) == score
    circular = model.at_level(padding_mode=PaddingMode.CIRCULAR)
    assert isinstance(circular, research.GenerativeConvNet)
    assert circular.padding_mode is PaddingMode.CIRCULAR


def test_d_is_extrapolated_below_the_lowest_level_and_refuses_other_levels(run: Path) -> None:
    model = gcn.load(run, device="cpu", precision="float32")
    denoise, x, lowest = model.denoiser(), model.to_model(small_image()), model.config.noise_min  # type: ignore[union-attr]
    torch.testing.assert_close(denoise(x, lowest / 2) - x, (denoise(x, lowest) - x) / 4)
    for level in (0.0, -1.0, float("nan"), 101.0):
        with pytest.raises(gcn.InputError, match=f"noise level {level:g}: must be above 0"):
            denoise(x, level)


def test_images_come_back_from_model_units(run: Path) -> None:
    model, pixels = gcn.load(run, device="cpu"), small_image()
    back = model.to_image(model.to_model(pixels), kind="torch")
    torch.testing.assert_close(back, pixels, rtol=0, atol=1e-3)
    assert model.to_image(model.to_model(pixels)[0]).size == (40, 32)


def test_levels_are_refused_by_published_models_and_where_they_are_no_level(run: Path) -> None:
    published = gcn.train(small_image(), iterations=1, **SMALL_PUBLISHED)
    assert published.at_level().sigma == published.config.sigma  # type: ignore[union-attr]
    with pytest.raises(gcn.InputError, match="noise_level: a published model"):
        published.at_level(1.0)
    with pytest.raises(gcn.InputError, match=r"^a published model has no noise levels"):
        published.denoiser()
    for level in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(gcn.InputError, match="noise_level"):
            gcn.load(run).at_level(level)
