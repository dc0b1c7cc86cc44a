"""The ladder: identities at every level, and the hand-made double pass against autograd."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.backprop import backward, double_backward, forward, pack, potential_gradient
from gcn_cli.models.cascade import NoiseLevelModel, make_denoiser
from gcn_cli.models.energy import autograd_gradient, energy, energy_gradient, reconstruct
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU

LAYERS = parse_layers("6@5,5@4/2,4@3")


def ladder(
    exact: bool = False, lattice: PaddingMode = PaddingMode.CIRCULAR, head: bool = False
) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        LAYERS,
        rectifier=SmoothReLU(0.25, exact),
        lattice=lattice,
        head_for=(16, 24) if head else None,
    )
    generator = torch.Generator().manual_seed(0)
    net.initialize(generator)
    for level in net.levels:
        level.data.mul_(10)
    for readout in net.readouts:
        readout.data.add_(0.1 * torch.randn(readout.shape, generator=generator))
    waves = torch.arange(float(len(net.spectrum.power[0])))
    net.spectrum.power.copy_(4 / (1 + (waves[:, None] / 20) ** 2 + (waves / 40) ** 2))
    if net.spectrum.middle is not None:
        net.spectrum.middle.copy_(torch.randn(3, 16, 24, generator=generator))
    return net.double()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("lattice", [PaddingMode.CIRCULAR, PaddingMode.REFLECT, PaddingMode.ZERO])
@pytest.mark.parametrize("head", [False, True])
def test_basis_is_the_gradient_of_the_score(
    exact: bool, lattice: PaddingMode, head: bool, images: Callable[..., torch.Tensor]
) -> None:
    level = NoiseLevelModel(ladder(exact, lattice, head), 0.4, torch.float64)
    x = images(2, 3, 16, 24)
    slope = autograd_gradient(level.score)(x)
    torch.testing.assert_close(level.basis(x), slope)


@pytest.mark.parametrize("head", [False, True])
def test_denoising_is_tweedie_in_terms_of_the_reconstruction(
    head: bool, images: Callable[..., torch.Tensor]
) -> None:
    level = NoiseLevelModel(ladder(head=head), 0.7, torch.float64)
    x = images(2, 3, 16, 24)
    log_density_slope = -energy_gradient(level.sigma, level.basis)(x)
    mean = make_denoiser(level.net, torch.float64)(x, level.noise)
    torch.testing.assert_close(mean, x + level.noise**2 * log_density_slope)
    slope = autograd_gradient(lambda y: energy(level, y))(x)
    torch.testing.assert_close(-log_density_slope, slope)
    shrink = level.noise**2 / (level.noise**2 + 1)
    residual = shrink * (x - reconstruct(level, x))
    torch.testing.assert_close(x - mean, residual)


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("lattice", [PaddingMode.CIRCULAR, PaddingMode.REFLECT])
def test_without_filters_the_mean_is_that_of_gaussian_data(
    noise: float, lattice: PaddingMode, images: Callable[..., torch.Tensor]
) -> None:
    """White data of variance v: D(I) = v / (v + s^2) I."""
    net = NoiseConditionalNet(LAYERS, rectifier=SmoothReLU(0.25), lattice=lattice).double()
    net.spectrum.power.fill_(0.6)
    x = images(2, 3, 16, 24)
    expected = x * 0.6 / (0.6 + noise**2)
    torch.testing.assert_close(make_denoiser(net, torch.float64)(x, noise), expected)


def test_an_exact_ladder_is_piecewise_gaussian(images: Callable[..., torch.Tensor]) -> None:
    """Inside a cell B changes by the fixed quadratic layer alone."""
    level = NoiseLevelModel(ladder(exact=True), 0.5, torch.float64)
    x = images(1, 3, 16, 16)
    moved = x + 1e-9 * images(1, 3, 16, 16, seed=1)
    noise = torch.tensor([level.noise], dtype=torch.float64)
    quadratic = level.net.spectrum.slope(moved - x, noise, level.net.lattice)
    torch.testing.assert_close(level.basis(moved) - level.basis(x), quadratic, rtol=0, atol=1e-14)
    assert float(quadratic.abs().max()) > 1e-10


@pytest.mark.parametrize("lattice", [PaddingMode.CIRCULAR, PaddingMode.REFLECT, PaddingMode.ZERO])
@pytest.mark.parametrize("head", [False, True])
def test_the_double_pass_equals_autograd_of_autograd(
    lattice: PaddingMode, head: bool, images: Callable[..., torch.Tensor]
) -> None:
    net = ladder(lattice=lattice, head=head)
    z, along = images(3, 3, 16, 24), images(3, 3, 16, 24, seed=1)
    log_noise = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64)
    times = torch.tensor([0.7, -2.0, 0.1], dtype=torch.float64)
    up = forward(net, z, log_noise, pack(net, torch.float64), learning=True)
    down = backward(net, up)
    ours = double_backward(net, up, down, along)
    both = double_backward(net, up, down, along, times)
    scores = potential_gradient(net, up, times)

    leaf = z.clone().requires_grad_()
    totals = net.total(leaf, log_noise)
    (slope,) = torch.autograd.grad(totals.sum(), leaf, create_graph=True)
    names, parameters = zip(*net.named_parameters(), strict=True)
    twice = torch.autograd.grad((slope * along).sum(), parameters, retain_graph=True)
    once = torch.autograd.grad((times * totals).sum(), parameters)
    assert set(ours) == set(both) == set(scores) == set(names)
    for name, second, first in zip(names, twice, once, strict=True):
        for made, exact in ((ours, second), (scores, first), (both, second + first)):
            torch.testing.assert_close(made[name], exact, rtol=1e-9, atol=1e-10, msg=name)


def test_bf16_maps_stay_within_two_percent(images: Callable[..., torch.Tensor]) -> None:
    net = ladder().float()
    x = images(2, 3, 32, 32).float()
    exact = make_denoiser(net)(x, 0.5)
    rounded = make_denoiser(net, torch.bfloat16)(x, 0.5)
    assert float(((rounded - exact).norm() / exact.norm()).detach()) < 2e-2


def test_the_smoothed_rectifier_is_the_box_average_of_the_relu() -> None:
    rectifier = SmoothReLU(0.25)
    a = torch.linspace(-1, 1, 41, dtype=torch.float64)
    offsets = torch.linspace(-0.25, 0.25, 4001, dtype=torch.float64)
    average = torch.relu(a[:, None] + offsets).mean(dim=1)
    boxed = a / rectifier.span + 0.5
    value = rectifier.span * rectifier.value(boxed, rectifier.gate(boxed))
    torch.testing.assert_close(value, average, rtol=0, atol=1e-4)
    inside = (a.abs() < 0.24).double()
    away = (a.abs() - 0.25).abs() > 0.01  # at the very edge either value is right
    bent = rectifier.bend(boxed, torch.full_like(a, 3.0)) / rectifier.span  # a gate by a
    torch.testing.assert_close(bent[away], 3.0 / (2 * 0.25) * inside[away])


def test_sides_must_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        ladder().map_sizes(18, 16)


@pytest.mark.parametrize("size", [(16, 24), (18, 24), (17, 21), (5, 7)])
def test_on_a_torus_of_any_size_the_mean_is_that_of_the_endless_pattern(
    size: tuple[int, int], images: Callable[..., torch.Tensor]
) -> None:
    """Laid out four times each way a torus of any size is one that closes, far from its start."""
    net = ladder()
    net.spectrum.power.fill_(1.0)  # its waves depend on the size, those of white noise do not
    x = images(2, 3, *size)
    denoise = make_denoiser(net, torch.float64, PaddingMode.CIRCULAR)
    found = denoise(x, 0.5)
    endless = denoise(x.repeat(1, 1, 4, 4), 0.5)
    # Which phase of the strides a pixel is at is counted from its own torus's first.
    torch.testing.assert_close(found, endless[:, :, : size[0], : size[1]], rtol=0, atol=0.02)
