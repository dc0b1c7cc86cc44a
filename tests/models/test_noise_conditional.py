"""The noise-conditional net: identities at every noise level, and gradients against autograd."""

import math
from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.backprop import backward, double_backward, forward, pack, potential_gradient
from gcn_cli.models.cascade import Cascade, NoiseLevelModel, make_denoiser
from gcn_cli.models.energy import autograd_gradient, energy, energy_gradient, reconstruct
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import (
    HARMONICS,
    NoiseConditionalNet,
    SmoothReLU,
    phase_features,
)
from gcn_cli.pattern import PhaseField

LAYERS = parse_layers("6@5,5@4/2,4@3")
MODES = [PaddingMode.CIRCULAR, PaddingMode.REFLECT, PaddingMode.ZEROS]
Images = Callable[..., torch.Tensor]


def make_net(
    exact: bool = False,
    padding_mode: PaddingMode = PaddingMode.CIRCULAR,
    head: bool = False,
    axes: int = 0,
) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        LAYERS,
        rectifier=SmoothReLU(0.25, exact),
        padding_mode=padding_mode,
        image_size=(16, 24) if head else None,
        lattice_axes=axes,
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


def lattice(axes: int) -> PhaseField:
    """Slanted waves of which whole numbers fit 16x24."""
    waves = torch.tensor([[2 / 16, 1 / 24], [-1 / 16, 3 / 24]], dtype=torch.float64)
    return PhaseField(waves[:axes], torch.tensor([0.3, -0.1], dtype=torch.float64)[:axes])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("padding_mode", MODES)
@pytest.mark.parametrize("head", [False, True])
def test_basis_is_the_gradient_of_the_score(
    exact: bool, padding_mode: PaddingMode, head: bool, images: Images
) -> None:
    model = NoiseLevelModel(make_net(exact, padding_mode, head), 0.4, torch.float64)
    x = images(2, 3, 16, 24)
    torch.testing.assert_close(model.basis(x), autograd_gradient(model.score)(x))


@pytest.mark.parametrize(("head", "axes"), [(False, 0), (True, 0), (False, 1), (False, 2)])
def test_the_denoiser_follows_tweedies_formula(head: bool, axes: int, images: Images) -> None:
    phases = lattice(axes) if axes else None
    model = NoiseLevelModel(make_net(head=head, axes=axes), 0.7, torch.float64, phases)
    x = images(2, 3, 16, 24)
    log_density_gradient = -energy_gradient(model.sigma, model.basis)(x)
    mean = make_denoiser(Cascade([model.net]), torch.float64, phases=phases)(x, model.noise)
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
@pytest.mark.parametrize(
    ("head", "axes", "seen"), [(False, 0, 0), (True, 0, 0), (False, 1, 1), (False, 2, 3)]
)
def test_double_backward_equals_autograd(
    padding_mode: PaddingMode, head: bool, axes: int, seen: int, images: Images
) -> None:
    """seen: numbers of different phases, 1 for all images."""
    net = make_net(padding_mode=padding_mode, head=head, axes=axes)
    phases = images(seen, axes, 8, 12, seed=2) if seen else None
    z, direction = images(3, 3, 16, 24), images(3, 3, 16, 24, seed=1)
    log_noise = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64)
    factors = torch.tensor([0.7, -2.0, 0.1], dtype=torch.float64)
    passed = forward(pack(net, torch.float64), z, log_noise, phases, training=True)
    down = backward(passed)
    hessian = double_backward(passed, down, direction)
    both = double_backward(passed, down, direction, factors)
    weighted = potential_gradient(passed, factors)

    leaf = z.clone().requires_grad_()
    potentials = net.potential(leaf, log_noise, phases)
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


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("padding_mode", MODES)
@pytest.mark.parametrize("axes", [1, 2])
def test_with_phases_basis_is_still_the_gradient_of_the_score(
    exact: bool, padding_mode: PaddingMode, axes: int, images: Images
) -> None:
    net, x = make_net(exact, padding_mode, axes=axes), images(2, 3, 16, 24)
    model = NoiseLevelModel(net, 0.4, torch.float64, lattice(axes))
    torch.testing.assert_close(model.basis(x), autograd_gradient(model.score)(x))
    torch.testing.assert_close(model.energy_map(x).sum(dim=(1, 2)), energy(model, x))
    gates = zip(model.activation_pattern(x), model.responses(x), strict=True)
    assert all(torch.equal(gate > 0, response > 0) for gate, response in gates)


def test_features_are_cosines_and_sines_of_the_harmonics() -> None:
    phases = torch.tensor([0.1, 0.35])[None, :, None, None]
    features = phase_features(phases).flatten().tolist()
    waves = [0.1 * a + 0.35 * b for a, b in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2))]
    waves += [0.3, 1.05]
    angles = [2 * math.pi * wave for wave in waves]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    assert features == pytest.approx(expected, abs=1e-5)
    whole = phase_features(phases + torch.tensor([2.0, -1.0])[None, :, None, None])
    assert whole.flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert phase_features(phases[:, :1]).shape == (1, 2 * len(HARMONICS[1]), 1, 1)


def test_a_net_sees_phases_at_the_centers_of_its_positions(images: Images) -> None:
    """Moving an image and its lattice by a whole stride moves the basis."""
    net, x = make_net(axes=2), images(1, 3, 16, 24)
    down, across = net.phase_positions(0, 16, x.device), net.phase_positions(4, 12, x.device)
    assert down.tolist() == [0.5 + 2 * k for k in range(8)]
    assert across.tolist() == [4.5, 6.5, 8.5, 10.5]
    phases = lattice(2)
    moved = phases.window(1.0, (-4.0, -8.0))
    basis = NoiseLevelModel(net, 0.4, torch.float64, phases).basis(x)
    shifted = NoiseLevelModel(net, 0.4, torch.float64, moved).basis(x.roll((4, 8), (2, 3)))
    torch.testing.assert_close(shifted, basis.roll((4, 8), (2, 3)))
    still = NoiseLevelModel(net, 0.4, torch.float64, phases).basis(x.roll((4, 8), (2, 3)))
    assert float((still - shifted).abs().max()) > 1e-3


def test_a_net_without_a_lattice_has_no_phase_weights(images: Images) -> None:
    """The parameters are those of the same seed without the phase term."""
    plain, net = make_net(), make_net(axes=2)
    assert plain.phase_weights is None
    assert set(net.state_dict()) - set(plain.state_dict()) == {"phase_weights"}
    for name, tensor in plain.state_dict().items():
        if not name.startswith("readouts"):  # made after the phase weights, in this test
            assert torch.equal(net.state_dict()[name], tensor), name
    x = images(1, 3, 16, 24)
    without = NoiseLevelModel(net, 0.4, torch.float64).basis(x)
    model = NoiseLevelModel(net, 0.4, torch.float64)
    torch.testing.assert_close(without, autograd_gradient(model.score)(x))
