"""D block by block: the same as at once, in other memory; the spectrum in strips."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models import gaussian as spectral
from gcn_cli.models.cascade import make_denoiser
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU

LAYERS = parse_layers("64@5,64@3,96@3/2,96@3")
CHANNELS_LAST = torch.channels_last


@pytest.fixture
def net() -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        LAYERS, rectifier=SmoothReLU(0.5, False), lattice=PaddingMode.CIRCULAR
    )
    net.initialize(torch.Generator().manual_seed(0))
    waves = torch.arange(float(len(net.spectrum.power[0])))
    net.spectrum.power.copy_(4 / (1 + (waves[:, None] / 20) ** 2 + (waves / 40) ** 2))
    return net


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def repeatable(net: NoiseConditionalNet, sides: list[int]) -> bool:
    """Whether the library's own convolutions have the same bits whatever the size of the map."""
    for weight, spec in zip(net.weights, net.layers, strict=True):
        for backwards in (False, True) if spec.stride > 1 else (False,):
            found = []
            x = drawn(1, weight.shape[0 if backwards else 1], max(sides), max(sides))
            for side in sides:
                own = x[:, :, :side, :side].contiguous(memory_format=CHANNELS_LAST)
                filters = weight.detach().contiguous(memory_format=CHANNELS_LAST)
                turn = F.conv_transpose2d if backwards else F.conv2d
                found.append(turn(own, filters, stride=spec.stride)[:, :, 8:20, 8:20])
            if not all(torch.equal(found[0], other) for other in found):
                return False
    return True


@pytest.mark.parametrize("size", [(96, 128), (70, 101)])
@pytest.mark.parametrize("block", [32, 48, 64])
def test_blocks_are_the_whole_to_the_bit(
    net: NoiseConditionalNet, size: tuple[int, int], block: int
) -> None:
    x = drawn(2, 3, *size)
    whole = make_denoiser(net, lattice=PaddingMode.CIRCULAR)(x, 0.7)
    done = []
    run = make_denoiser(
        net, lattice=PaddingMode.CIRCULAR, block=block, on_block=lambda: done.append(1)
    )
    found = run(x, 0.7)
    assert len(done) == -(-size[0] // block) * -(-size[1] // block)
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-6)
    if not repeatable(net, [48, 70, 104, 128]):
        pytest.skip("this processor's convolutions round by the size of the map")
    assert torch.equal(found, whole)


def test_what_lies_beyond_the_reach_does_not_count_and_within_it_does(
    net: NoiseConditionalNet,
) -> None:
    """The margin is enough, and no whole stride too wide on both sides."""
    reach, stride, side = net.reach(), net.total_stride, 96
    x = drawn(1, 3, side, side).double()
    denoise = make_denoiser(net.double(), torch.float64, PaddingMode.CIRCULAR)
    net.spectrum.power.fill_(1.0)  # of white noise: no pixel says anything of another
    before = denoise(x, 0.7)
    first = 48 // stride * stride

    def moved(place: int) -> Tensor:
        other = x.clone()
        other[:, :, :, place] += 1
        return (denoise(other, 0.7) - before)[:, :, :, first : first + stride].abs()

    assert float(moved(first - reach - 1).max()) < 1e-12
    assert float(moved(first + stride + reach).max()) < 1e-12
    sides = (moved(first - reach + stride - 1), moved(first + stride + reach - stride))
    assert max(float(side.max()) for side in sides) > 1e-9


def test_state_is_laid_where_it_is_told(
    net: NoiseConditionalNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "LARGEST", 1)
    asked = []

    def room(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        asked.append(tuple(shape))
        return torch.empty(tuple(shape), dtype=dtype)

    x = drawn(1, 3, 64, 64)
    make_denoiser(net, lattice=PaddingMode.CIRCULAR, block=32, room=room)(x, 0.7)
    assert asked == [(1, 3, 64, 64), (1, 64, 33)]


@pytest.mark.parametrize("size", [(40, 64), (33, 57)])
def test_waves_in_strips_are_the_waves_at_once(
    net: NoiseConditionalNet, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spectrum, x = net.double().spectrum, drawn(2, 3, *size).double()
    axes, _ = torch.linalg.qr(drawn(3, 3).double())
    spectrum.axes.copy_(axes)
    noise = torch.tensor([0.3, 2.0], dtype=torch.float64)
    whole = spectrum.mean(x, noise, PaddingMode.CIRCULAR)
    monkeypatch.setattr(spectral, "LARGEST", 1)
    monkeypatch.setattr(spectral, "strips", lambda n, _: [slice(0, 7), slice(7, n)])
    torch.testing.assert_close(spectrum.mean(x, noise, PaddingMode.CIRCULAR), whole)
