"""Coarser ladders: one density with the finer one, exact in float64, on any torus."""

import pytest
import torch

from gcn_cli.models.cascade import (
    CoarseStageModel,
    NoiseLevelModel,
    add_upsampled_,
    downsample,
    make_denoiser,
    model_at,
    remove_lowpass_,
)
from gcn_cli.models.energy import GenerativeModel, autograd_gradient, energy
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU

LEVELS = (1.0, 2.0, 6.0)  # answered by the ladder itself, the next coarser one, the one after that


def ladder(
    lattice: PaddingMode = PaddingMode.CIRCULAR, octaves: int = 3, coarser_layers: int | None = None
) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        parse_layers("6@3,6@3/2"),
        lattice=lattice,
        rectifier=SmoothReLU(0.5),
        octaves=octaves,
        coarser_layers=coarser_layers,
    )
    for number, one in enumerate(net.octaves()):
        generator = torch.Generator().manual_seed(number)
        one.initialize(generator)
        one.spectrum.power.copy_(0.1 + torch.rand(one.spectrum.power.shape, generator=generator))
    if net.contrasts is not None and net.handovers is not None:
        net.contrasts.copy_(torch.tensor([1.3, 1.1][: octaves - 1]))
        net.handovers.fill_(1.5)
    return net.double().requires_grad_(False)


def images(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return 3 * torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def at(net: NoiseConditionalNet, noise: float) -> GenerativeModel:
    return model_at(net, noise, torch.float64)


def test_which_ladder_answers() -> None:
    net = ladder()
    assert isinstance(at(net, 1.5), NoiseLevelModel)
    second = at(net, 2.0)
    assert isinstance(second, CoarseStageModel)
    assert isinstance(second.above, NoiseLevelModel)
    assert second.above.noise == pytest.approx(2.0 * 1.3 / 2)
    third = at(net, 6.0)
    assert isinstance(third, CoarseStageModel)
    assert isinstance(third.above, CoarseStageModel)


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("lattice", [PaddingMode.CIRCULAR, PaddingMode.REFLECT])
@pytest.mark.parametrize("noise", LEVELS)
def test_b_is_the_gradient_of_f_and_the_map_is_the_energy(
    noise: float, lattice: PaddingMode, layers: int | None
) -> None:
    density, x = at(ladder(lattice, coarser_layers=layers), noise), images(32, 48)
    assert torch.allclose(density.basis(x), autograd_gradient(density.score)(x), atol=1e-12)
    assert torch.allclose(density.energy_map(x).sum(dim=(1, 2)), energy(density, x))


@pytest.mark.parametrize("noise", LEVELS)
def test_d_is_tweedies(noise: float) -> None:
    """D(I) = I + s^2 grad log p_s(I), with grad log p_s = B - I / sigma^2."""
    net, x = ladder(), images(32, 48)
    density = at(net, noise)
    expected = x + noise**2 * (density.basis(x) - x / density.sigma**2)
    assert torch.allclose(make_denoiser(net, torch.float64)(x, noise), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(32, 48), (31, 48), (32, 47), (31, 47)])
def test_details_and_block_means_are_all_there_is(size: tuple[int, int]) -> None:
    x = images(*size)
    details = remove_lowpass_(x.clone())
    assert torch.allclose(add_upsampled_(details.clone(), downsample(x)), x)
    if not (size[0] % 2 or size[1] % 2):
        assert float(downsample(details).abs().max()) < 1e-14


@pytest.mark.parametrize("noise", LEVELS)
def test_a_pattern_moved_on_the_torus_by_whole_blocks_gives_d_moved(noise: float) -> None:
    net, x = ladder(), images(32, 48)
    denoise = make_denoiser(net, torch.float64)
    assert torch.allclose(
        denoise(x.roll((16, -16), (2, 3)), noise),
        denoise(x, noise).roll((16, -16), (2, 3)),
        atol=1e-12,
    )


@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
@pytest.mark.parametrize("noise", LEVELS)
def test_blocks_make_no_difference_and_are_counted(noise: float, size: tuple[int, int]) -> None:
    net, x, ticks = ladder(), images(*size), []
    whole = make_denoiser(net, torch.float64)(x, noise)
    block = net.total_stride * 4
    denoise = make_denoiser(net, torch.float64, None, block, on_block=lambda: ticks.append(1))
    assert torch.allclose(denoise(x, noise), whole, atol=1e-12)
    assert len(ticks) == -(-size[0] // block) * -(-size[1] // block)


def test_coarser_ladders_may_have_fewer_layers_and_then_ask_for_less_of_a_size() -> None:
    assert [len(net.layers) for net in ladder().octaves()] == [2, 2, 2]
    fewer = ladder(coarser_layers=1)
    assert [len(net.layers) for net in fewer.octaves()] == [2, 1, 1]
    assert (ladder().whole_stride, fewer.whole_stride) == (4 << 2, 2 << 2)
    assert [len(net.layers) for net in ladder(coarser_layers=9).octaves()] == [2, 2, 2]


def test_without_coarser_ladders_there_is_one() -> None:
    net = ladder(octaves=1)
    assert net.handed_over() == []
    assert isinstance(at(net, 50.0), NoiseLevelModel)
    assert not any(name.startswith(("coarser", "contrasts")) for name in net.state_dict())
