"""A guided ladder is a generative ConvNet: the same identities, and no guidance at strength 0."""

import math
from collections.abc import Callable

import pytest
import torch

from gcn_cli.model.energy import autograd_gradient, energy
from gcn_cli.model.guided import GuidedLadder
from gcn_cli.model.ladder import LadderNet, Rectifier
from gcn_cli.model.spec import Lattice, parse_layers

LEVELS = (8.0, 2.0, 0.5, 0.125)


def guided(*strengths: float) -> GuidedLadder:
    net = LadderNet(parse_layers("6@5,5@3/2"), rectifier=Rectifier(0.25))
    net.initialise(torch.Generator().manual_seed(0))
    model = GuidedLadder(net, LEVELS)
    model.early.initialise(torch.Generator().manual_seed(1))
    model.strengths.copy_(torch.tensor(strengths or (0.0,) * 4))
    return model.double()


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_basis_and_mean_follow_from_the_score(
    strength: float, images: Callable[..., torch.Tensor]
) -> None:
    level = guided(*(strength,) * 4).at(0.6, torch.float64)
    x = images(2, 3, 16, 16)
    torch.testing.assert_close(level.basis(x), autograd_gradient(level.score)(x))
    slope = autograd_gradient(lambda y: energy(level, y))(x)
    torch.testing.assert_close(level.denoise(x), x - level.noise**2 * slope)


def test_the_score_is_tilted_by_the_contrast(images: Callable[..., torch.Tensor]) -> None:
    level, plain = (guided(*(g,) * 4).at(1.0, torch.float64) for g in (0.5, 0.0))
    x = images(2, 3, 16, 16)
    expected = plain.score(x) + 0.5 * level.contrast(x)
    torch.testing.assert_close(level.score(x), expected)
    torch.testing.assert_close(plain.denoise(x), plain.now.denoise(x))


def test_strength_is_linear_in_the_logarithm_of_noise() -> None:
    model = guided(0.0, 1.0, 0.5, 0.25)
    assert [model.strength(level) for level in LEVELS] == [0.0, 1.0, 0.5, 0.25]
    assert model.strength(4.0) == pytest.approx(0.5)
    assert model.strength(math.sqrt(2.0 * 0.5)) == pytest.approx(0.75)
    assert model.strength(100.0) == 0.0
    assert model.strength(0.01) == 0.25


def test_both_ladders_see_one_lattice() -> None:
    model = guided()
    model.lattice = Lattice.REFLECT
    assert model.net.lattice is model.early.lattice is Lattice.REFLECT
