"""Geometry, growth and the score."""

import pytest
import torch

from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.layers import LayerSpec, PaddingMode, parse_layers
from tests.conftest import MakeModel

PAPER = parse_layers("100@15/3+2,64@5+2,30@3+2")


def test_the_published_net_has_the_published_geometry() -> None:
    model = GenerativeConvNet(PAPER)
    assert model.map_sizes(224, 224) == [(72, 72), (72, 72), (74, 74)]
    assert model.receptive_fields() == [15, 27, 33]
    assert sum(p.numel() for p in model.parameters()) == 244974


def test_the_score_is_the_sum_of_the_top_maps_of_a_hand_made_net() -> None:
    model = GenerativeConvNet([LayerSpec(1, 1)], channels=1)
    model.weights[0].data.fill_(2.0)
    model.biases[0].data.fill_(-1.0)
    x = torch.tensor([[[[1.0, 0.0], [3.0, -5.0]]]])
    assert model.score(x).tolist() == [1.0 + 5.0]


def test_a_head_weighs_places_and_may_be_negative(make_model: MakeModel) -> None:
    model = make_model("2@3", lattice=PaddingMode.VALID, channels=1, head_for=(5, 5))
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    top = torch.relu(model.pre_activations(x)[-1])
    assert model.head is not None
    expected = torch.einsum("nkhw,khw->n", top, model.head)
    torch.testing.assert_close(model.score(x), expected)


def test_growing_keeps_the_layers_below_and_draws_the_new_one(make_model: MakeModel) -> None:
    model = make_model("4@3+1", head_for=(8, 8))
    below = model.weights[0].clone()
    model.grow(LayerSpec(5, 3, 1, 0), 0.01, torch.Generator().manual_seed(1))
    assert torch.equal(model.weights[0], below)
    assert model.weights[1].dtype == below.dtype
    assert 0.005 < float(model.weights[1].detach().std()) < 0.02
    assert model.head is not None
    assert model.head.shape == (5, 6, 6)


def test_a_stationary_score_does_not_change_when_the_torus_is_turned(
    make_model: MakeModel,
) -> None:
    model = make_model("4@5/2", "3@3", lattice=PaddingMode.CIRCULAR)
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(model.score(x.roll((2, 4), (2, 3))), model.score(x))


def test_sides_that_do_not_fit_are_refused(make_model: MakeModel) -> None:
    torus = make_model("4@5/3", lattice=PaddingMode.CIRCULAR)
    with pytest.raises(ValueError, match="multiples of 3"):
        torus.map_sizes(10, 12)
    with pytest.raises(ValueError, match="receptive field"):
        make_model("4@9", lattice=PaddingMode.VALID).map_sizes(8, 20)


def test_a_net_needs_layers_and_a_positive_sigma() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        GenerativeConvNet([])
    with pytest.raises(ValueError, match="positive"):
        GenerativeConvNet(PAPER, sigma=0)
