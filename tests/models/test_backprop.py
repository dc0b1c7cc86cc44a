"""Tiles of the denoiser: the bits of the whole image, and how far a pixel sees."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models import gaussian
from gcn_cli.models.cascade import Cascade, make_denoiser
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.pattern import PhaseField

LAYERS = parse_layers("64@5,64@3,96@3/2,96@3")
CIRCULAR = PaddingMode.CIRCULAR


@pytest.fixture
def net() -> NoiseConditionalNet:
    net = NoiseConditionalNet(LAYERS, rectifier=SmoothReLU(0.5, False), padding_mode=CIRCULAR)
    net.initialize(torch.Generator().manual_seed(0))
    index = torch.arange(float(len(net.spectrum.power[0])))
    net.spectrum.power.copy_(4 / (1 + (index[:, None] / 20) ** 2 + (index / 40) ** 2))
    return net


def lattice(height: int, width: int) -> PhaseField:
    """A lattice that bends, of whole waves on a torus."""
    waves = torch.tensor([[6 / height, 0.0], [1 / height, 7 / width]])
    bend = 0.2 * torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(2))
    return PhaseField(waves, torch.tensor([0.2, 0.7]), bend, (height, width), periodic=(True, True))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def size_invariant(net: NoiseConditionalNet, sides: list[int]) -> bool:
    """Whether the library's convolutions give the same bits for every size of the map."""
    for weight, spec in zip(net.weights, net.layers, strict=True):
        filters = weight.detach().contiguous(memory_format=torch.channels_last)
        for convolve in (F.conv2d, F.conv_transpose2d)[: 2 if spec.stride > 1 else 1]:
            channels = weight.shape[0 if convolve is F.conv_transpose2d else 1]
            x = noise(1, channels, max(sides), max(sides))
            outputs = []
            for side in sides:
                part = x[:, :, :side, :side].contiguous(memory_format=torch.channels_last)
                outputs.append(convolve(part, filters, stride=spec.stride)[:, :, 8:20, 8:20])
            if not all(torch.equal(outputs[0], output) for output in outputs):
                return False
    return True


@pytest.mark.parametrize("size", [(96, 128), (70, 101)])
@pytest.mark.parametrize(("block", "regular"), [(32, True), (48, False), (64, True)])
def test_tiles_equal_the_whole_image_to_the_bit(
    net: NoiseConditionalNet, size: tuple[int, int], block: int, regular: bool
) -> None:
    phases = lattice(*size) if regular else None
    if regular:
        net = NoiseConditionalNet(LAYERS, rectifier=SmoothReLU(0.5, False), lattice_axes=2)
        net.initialize(torch.Generator().manual_seed(0))
    x, cascade = noise(2, 3, *size), Cascade([net])
    whole = make_denoiser(cascade, padding_mode=CIRCULAR, phases=phases)(x, 0.7)
    tiles: list[int] = []
    denoise = make_denoiser(
        cascade, padding_mode=CIRCULAR, block=block, on_block=lambda: tiles.append(1), phases=phases
    )
    tiled = denoise(x, 0.7)
    assert len(tiles) == -(-size[0] // block) * -(-size[1] // block)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-6)
    if regular:  # the tiles are those of a net that sees the lattice
        unseen = make_denoiser(cascade, padding_mode=CIRCULAR, block=block)(x, 0.7)
        assert float((unseen - whole).abs().max()) > 1e-2
    if not size_invariant(net, [48, 70, 104, 128]):
        pytest.skip("the convolutions of this processor round by the size of the map")
    assert torch.equal(tiled, whole)


def test_pixels_beyond_the_reach_do_not_count_and_pixels_within_it_do(
    net: NoiseConditionalNet,
) -> None:
    """The margin is wide enough, and not a whole stride too wide on either side."""
    reach, stride, side = net.reach(), net.total_stride, 96
    x = noise(1, 3, side, side).double()
    denoise = make_denoiser(Cascade([net.double()]), torch.float64, CIRCULAR)
    net.spectrum.power.fill_(1.0)  # white: the Gaussian part does not connect pixels
    reference = denoise(x, 0.7)
    first = 48 // stride * stride

    def effect(column: int) -> float:
        """Largest change in one stride of columns when another column changes."""
        changed = x.clone()
        changed[:, :, :, column] += 1
        return float((denoise(changed, 0.7) - reference)[..., first : first + stride].abs().max())

    assert effect(first - reach - 1) < 1e-12
    assert effect(first + stride + reach) < 1e-12
    nearest = (first - reach + stride - 1, first + stride + reach - stride)
    assert max(effect(column) for column in nearest) > 1e-9


def test_the_denoiser_uses_the_given_allocator(
    net: NoiseConditionalNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian, "LARGEST_FFT", 1)
    shapes = []

    def allocator(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        shapes.append(tuple(shape))
        return torch.empty(tuple(shape), dtype=dtype)

    denoise = make_denoiser(Cascade([net]), padding_mode=CIRCULAR, block=32, allocator=allocator)
    denoise(noise(1, 3, 64, 64), 0.7)
    assert shapes == [(1, 3, 64, 64), (1, 64, 33)]
