"""The noise-conditional net: identities at every noise level, and gradients against autograd."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.backprop import backward, double_backward, forward, pack, potential_gradient
from gcn_cli.models.cascade import Cascade, NoiseLevelModel, make_denoiser
from gcn_cli.models.energy import autograd_gradient, energy, energy_gradient, reconstruct
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU

LAYERS = parse_layers("6@5,5@4/2,4@3")
MODES = [PaddingMode.CIRCULAR, PaddingMode.REFLECT, PaddingMode.ZEROS]
Images = Callable[..., torch.Tensor]


def make_net(
    exact: bool = False, padding_mode: PaddingMode = PaddingMode.CIRCULAR, head: bool = False
) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        LAYERS,
        rectifier=SmoothReLU(0.25, exact),
        padding_mode=padding_mode,
        image_size=(16, 24) if head else None,
    )
    generator = torch.Generator().manual_seed(0)
    net.initialize(generator)
    for modulation in net.modulations:
        modulation.data.mul_(10)
    for readout in net.readouts:
        readout.data.add_(0.1 * torch.randn(readout.shape, generator=generator))
    waves = torch.arange(float(len(net.spectrum.power[0])))
    net.spectrum.power.copy_(4 / (1 + (waves[:, None] / 20) ** 2 + (waves / 40) ** 2))
    if net.spectrum.mean_image is not None:
        net.spectrum.mean_image.copy_(torch.randn(3, 16, 24, generator=generator))
    return net.double()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("padding_mode", MODES)
@pytest.mark.parametrize("head", [False, True])
def test_basis_is_the_gradient_of_the_score(
    exact: bool, padding_mode: PaddingMode, head: bool, images: Images
) -> None:
    model = NoiseLevelModel(make_net(exact, padding_mode, head), 0.4, torch.float64)
    x = images(2, 3, 16, 24)
    torch.testing.assert_close(model.basis(x), autograd_gradient(model.score)(x))


@pytest.mark.parametrize("head", [False, True])
def test_the_denoiser_follows_tweedies_formula(head: bool, images: Images) -> None:
    model = NoiseLevelModel(make_net(head=head), 0.7, torch.float64)
    x = images(2, 3, 16, 24)
    log_density_gradient = -energy_gradient(model.sigma, model.basis)(x)
    mean = make_denoiser(Cascade([model.net]), torch.float64)(x, model.noise)
    torch.testing.assert_close(mean, x + model.noise**2 * log_density_gradient)
    gradient = autograd_gradient(lambda y: energy(model, y))(x)
    torch.testing.assert_close(-log_density_gradient, gradient)
    shrinkage = model.noise**2 / (model.noise**2 + 1)
    torch.testing.assert_close(x - mean, shrinkage * (x - reconstruct(model, x)))


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("padding_mode", MODES[:2])
def test_without_filters_the_denoiser_is_that_of_gaussian_data(
    noise: float, padding_mode: PaddingMode, images: Images
) -> None:
    """White data of variance v: D(I) = v / (v + s^2) I."""
    net = NoiseConditionalNet(LAYERS, rectifier=SmoothReLU(0.25), padding_mode=padding_mode)
    net.double().spectrum.power.fill_(0.6)
    x = images(2, 3, 16, 24)
    mean = make_denoiser(Cascade([net]), torch.float64)(x, noise)
    torch.testing.assert_close(mean, x * 0.6 / (0.6 + noise**2))


def test_with_exact_gates_the_model_is_piecewise_gaussian(images: Images) -> None:
    """Within a cell of constant gates, B changes by the quadratic part only."""
    model = NoiseLevelModel(make_net(exact=True), 0.5, torch.float64)
    x = images(1, 3, 16, 16)
    moved = x + 1e-9 * images(1, 3, 16, 16, seed=1)
    noise = torch.tensor([model.noise], dtype=torch.float64)
    change = model.net.spectrum.score_gradient(moved - x, noise, model.net.padding_mode)
    torch.testing.assert_close(model.basis(moved) - model.basis(x), change, rtol=0, atol=1e-14)
    assert float(change.abs().max()) > 1e-10


@pytest.mark.parametrize("padding_mode", MODES)
@pytest.mark.parametrize("head", [False, True])
def test_double_backward_equals_autograd(
    padding_mode: PaddingMode, head: bool, images: Images
) -> None:
    net = make_net(padding_mode=padding_mode, head=head)
    z, direction = images(3, 3, 16, 24), images(3, 3, 16, 24, seed=1)
    log_noise = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64)
    factors = torch.tensor([0.7, -2.0, 0.1], dtype=torch.float64)
    passed = forward(pack(net, torch.float64), z, log_noise, training=True)
    down = backward(passed)
    hessian = double_backward(passed, down, direction)
    both = double_backward(passed, down, direction, factors)
    weighted = potential_gradient(passed, factors)

    leaf = z.clone().requires_grad_()
    potentials = net.potential(leaf, log_noise)
    (gradient,) = torch.autograd.grad(potentials.sum(), leaf, create_graph=True)
    names, parameters = zip(*net.named_parameters(), strict=True)
    second = torch.autograd.grad((gradient * direction).sum(), parameters, retain_graph=True)
    first = torch.autograd.grad((factors * potentials).sum(), parameters)
    assert set(hessian) == set(both) == set(weighted) == set(names)
    for name, twice, once in zip(names, second, first, strict=True):
        for ours, exact in ((hessian, twice), (weighted, once), (both, twice + once)):
            torch.testing.assert_close(ours[name], exact, rtol=1e-9, atol=1e-10, msg=name)


def test_bf16_maps_stay_within_two_percent(images: Images) -> None:
    cascade = Cascade([make_net().float()])
    x = images(2, 3, 32, 32).float()
    exact = make_denoiser(cascade)(x, 0.5)
    rounded = make_denoiser(cascade, torch.bfloat16)(x, 0.5)
    assert float(((rounded - exact).norm() / exact.norm()).detach()) < 2e-2


def test_the_smooth_relu_is_the_box_average_of_the_relu() -> None:
    rectifier = SmoothReLU(0.25)
    a = torch.linspace(-1, 1, 41, dtype=torch.float64)
    offsets = torch.linspace(-0.25, 0.25, 4001, dtype=torch.float64)
    average = torch.relu(a[:, None] + offsets).mean(dim=1)
    boxed = a / rectifier.span + 0.5
    value = rectifier.span * rectifier.value(boxed, rectifier.gate(boxed))
    torch.testing.assert_close(value, average, rtol=0, atol=1e-4)
    inside = (a.abs() < 0.24).double()
    away = (a.abs() - 0.25).abs() > 0.01  # at the edge itself both values are right
    passed = rectifier.gate_backward(boxed, torch.full_like(a, 3.0)) / rectifier.span
    torch.testing.assert_close(passed[away], 3.0 / (2 * 0.25) * inside[away])


def test_sides_must_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        make_net().map_sizes(18, 16)


@pytest.mark.parametrize("size", [(16, 24), (18, 24), (17, 21), (5, 7)])
def test_on_a_torus_of_any_size_the_denoiser_is_that_of_the_periodic_image(
    size: tuple[int, int], images: Images
) -> None:
    """Four periods each way have sides that divide."""
    net = make_net()
    net.spectrum.power.fill_(1.0)  # the waves of a torus depend on its size, white noise does not
    x = images(2, 3, *size)
    denoise = make_denoiser(Cascade([net]), torch.float64, PaddingMode.CIRCULAR)
    periodic = denoise(x.repeat(1, 1, 4, 4), 0.5)[:, :, : size[0], : size[1]]
    # The phase of a pixel within the strides is that of its own torus.
    torch.testing.assert_close(denoise(x, 0.5), periodic, rtol=0, atol=0.02)
