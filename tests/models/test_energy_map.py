"""The energy of every pixel adds up to the energy."""

import pytest
import torch

from gcn_cli.models.cascade import NoiseLevelModel
from gcn_cli.models.energy import energy, spread_over_pixels
from gcn_cli.models.layers import LayerSpec, PaddingMode
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from tests.conftest import MakeModel


def test_of_a_published_model(make_model: MakeModel) -> None:
    model = make_model("4@5/3+2", "3@3+1")
    x = torch.randn(2, 3, 20, 17, dtype=torch.float64)
    found = model.energy_map(x)
    assert found.shape == (2, 20, 17)
    torch.testing.assert_close(found.sum(dim=(1, 2)), energy(model, x))


@pytest.mark.parametrize("level", [0.1, 3.0])
def test_of_a_ladder(level: float) -> None:
    layers = [LayerSpec.parse(text) for text in ("4@5", "6@3/2")]
    net = NoiseConditionalNet(
        layers, channels=3, depth=2, lattice=PaddingMode.REFLECT, rectifier=SmoothReLU(0.5, False)
    )
    net.initialize(torch.Generator().manual_seed(0))
    net.spectrum.fit([torch.randn(3, 32, 32)], 16)
    density = NoiseLevelModel(net, level)
    x = torch.randn(2, 3, 16, 24)
    whole = energy(density, x).detach()
    torch.testing.assert_close(density.energy_map(x).sum(dim=(1, 2)), whole, rtol=1e-4, atol=1e-2)
    responses = density.responses(x)
    assert [tuple(one.shape) for one in responses] == [(2, 4, 8, 12), (2, 6, 4, 6)]


def test_spreading_keeps_sums_of_maps_that_do_not_divide() -> None:
    counted = torch.rand(2, 3, 5)
    torch.testing.assert_close(
        spread_over_pixels(counted, (7, 11)).sum(dim=(1, 2)), counted.sum(dim=(1, 2))
    )
