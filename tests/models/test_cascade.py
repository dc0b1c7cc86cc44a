"""The resolution cascade: one density with the finest stage, exact in float64, on any torus."""

from dataclasses import replace

import pytest
import torch

from gcn_cli.models.cascade import (
    Cascade,
    CoarseStageModel,
    NoiseLevelModel,
    add_upsampled_,
    downsample,
    make_denoiser,
    model_at,
    remove_lowpass_,
    stage_phases,
)
from gcn_cli.models.energy import GenerativeModel, autograd_gradient, energy
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, PhaseMap, SmoothReLU
from gcn_cli.pattern import PhaseField

LEVELS = (1.0, 2.0, 6.0)  # in charge of: the finest stage, the next coarser one, the coarsest


def make_cascade(
    padding_mode: PaddingMode = PaddingMode.CIRCULAR,
    stages: int = 3,
    coarser_layers: str = "6@3,6@3/2",
    axes: int = 0,
) -> Cascade:
    nets = [
        NoiseConditionalNet(
            parse_layers(coarser_layers if stage else "6@3,6@3/2"),
            padding_mode=padding_mode,
            rectifier=SmoothReLU(0.5),
            lattice_axes=axes,
        )
        for stage in range(stages)
    ]
    for stage, net in enumerate(nets):
        generator = torch.Generator().manual_seed(stage)
        net.initialize(generator)
        net.spectrum.power.copy_(0.1 + torch.rand(net.spectrum.power.shape, generator=generator))
    cascade = Cascade(nets)
    cascade.gains.copy_(torch.tensor([1.3, 1.1][: stages - 1]))
    cascade.transitions.fill_(1.5)
    return cascade.double().requires_grad_(False)


def images(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return 3 * torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def at(cascade: Cascade, noise: float, phases: PhaseMap | None = None) -> GenerativeModel:
    return model_at(cascade, noise, torch.float64, phases=phases)


def lattice(height: int, width: int) -> PhaseField:
    """Of whole waves on a torus, which bends."""
    waves = torch.tensor([[3 / height, 1 / width], [0.0, 4 / width]], dtype=torch.float64)
    bend = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    offsets = torch.tensor([0.2, 0.7], dtype=torch.float64)
    return PhaseField(waves, offsets, bend, (height, width), periodic=(True, True))


def test_the_stage_in_charge_of_a_noise_level() -> None:
    cascade = make_cascade()
    assert [cascade.stage_at(noise) for noise in (1.5, *LEVELS)] == [0, 0, 1, 2]
    assert isinstance(at(cascade, 1.5), NoiseLevelModel)
    second = at(cascade, 2.0)
    assert isinstance(second, CoarseStageModel)
    assert isinstance(second.coarser, NoiseLevelModel)
    assert second.coarser.noise == pytest.approx(2.0 * 1.3 / 2)
    third = at(cascade, 6.0)
    assert isinstance(third, CoarseStageModel)
    assert isinstance(third.coarser, CoarseStageModel)


@pytest.mark.parametrize("coarser_layers", ["6@3,6@3/2", "6@3"])
@pytest.mark.parametrize("padding_mode", [PaddingMode.CIRCULAR, PaddingMode.REFLECT])
@pytest.mark.parametrize("noise", LEVELS)
def test_basis_is_the_gradient_of_the_score_and_the_map_sums_to_the_energy(
    noise: float, padding_mode: PaddingMode, coarser_layers: str
) -> None:
    model = at(make_cascade(padding_mode, coarser_layers=coarser_layers), noise)
    x = images(32, 48)
    assert torch.allclose(model.basis(x), autograd_gradient(model.score)(x), atol=1e-12)
    assert torch.allclose(model.energy_map(x).sum(dim=(1, 2)), energy(model, x))


@pytest.mark.parametrize("noise", LEVELS)
@pytest.mark.parametrize("axes", [0, 2])
def test_the_denoiser_follows_tweedies_formula(noise: float, axes: int) -> None:
    """D(I) = I + s^2 grad log p_s(I), with grad log p_s = B - I / sigma^2."""
    cascade, x, phases = make_cascade(axes=axes), images(32, 48), None
    if axes:
        phases = lattice(32, 48)
    model = at(cascade, noise, phases)
    expected = x + noise**2 * (model.basis(x) - x / model.sigma**2)
    denoise = make_denoiser(cascade, torch.float64, phases=phases)
    assert torch.allclose(denoise(x, noise), expected, atol=1e-12)
    assert torch.allclose(model.basis(x), autograd_gradient(model.score)(x), atol=1e-12)
    if axes:
        unseen = make_denoiser(cascade, torch.float64)(x, noise)
        assert float((unseen - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_coarser_stages_see_the_phases_at_the_centers_of_their_pixels(stage: int) -> None:
    field, scale = lattice(32, 48), 2**stage
    rows, columns = torch.arange(32 // scale), torch.arange(48 // scale)
    seen = stage_phases(field, stage)(rows, columns)
    center = (scale - 1) / 2
    torch.testing.assert_close(seen, field.window(scale, (center, center))(rows, columns))
    fine = replace(field, bend=None)(torch.arange(32), torch.arange(48))[0]
    blocks = torch.nn.functional.avg_pool2d(fine, scale)
    straight = stage_phases(replace(field, bend=None), stage)(rows, columns)[0]
    torch.testing.assert_close(straight, blocks)  # of straight phases the mean is that of centers


@pytest.mark.parametrize("size", [(32, 48), (31, 48), (32, 47), (31, 47)])
def test_an_image_is_the_sum_of_its_details_and_block_means(size: tuple[int, int]) -> None:
    x = images(*size)
    details = remove_lowpass_(x.clone())
    assert torch.allclose(add_upsampled_(details.clone(), downsample(x)), x)
    if not (size[0] % 2 or size[1] % 2):
        assert float(downsample(details).abs().max()) < 1e-14


@pytest.mark.parametrize("noise", LEVELS)
def test_the_denoiser_commutes_with_circular_shifts_by_the_stride(noise: float) -> None:
    cascade, x = make_cascade(), images(32, 48)
    denoise = make_denoiser(cascade, torch.float64)
    assert torch.allclose(
        denoise(x.roll((16, -16), (2, 3)), noise),
        denoise(x, noise).roll((16, -16), (2, 3)),
        atol=1e-12,
    )


@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
@pytest.mark.parametrize("noise", LEVELS)
@pytest.mark.parametrize("axes", [0, 2])
def test_blocks_make_no_difference_and_are_counted(
    noise: float, size: tuple[int, int], axes: int
) -> None:
    cascade, x, calls = make_cascade(axes=axes), images(*size), []
    phases = lattice(*size) if axes else None
    whole = make_denoiser(cascade, torch.float64, phases=phases)(x, noise)
    block = cascade.stage_stride() * 4
    denoise = make_denoiser(
        cascade, torch.float64, None, block, on_block=lambda: calls.append(1), phases=phases
    )
    assert torch.allclose(denoise(x, noise), whole, atol=1e-12)
    assert len(calls) == -(-size[0] // block) * -(-size[1] // block)


def test_the_strides_of_stages_are_those_of_full_resolution() -> None:
    cascade, fewer_layers = make_cascade(), make_cascade(coarser_layers="6@3")
    assert [cascade.stage_stride(stage) for stage in range(3)] == [4, 8, 16]
    assert (cascade.total_stride, fewer_layers.total_stride) == (4 << 2, 2 << 2)
    assert (cascade.fitting(30, 47), cascade.fitting(30, 47, 2)) == ((28, 44), (16, 32))
    finest, coarsest = cascade.receptive_fields(), cascade.receptive_fields(2)
    assert coarsest == [field << 2 for field in finest]


def test_a_cascade_of_one_net_has_no_links() -> None:
    cascade = make_cascade(stages=1)
    assert cascade.links() == []
    assert isinstance(at(cascade, 50.0), NoiseLevelModel)
    assert set(cascade.state_dict()) > {"gains", "transitions", "nets.0.weights.0"}
