"""The paper's network: geometry, score, and B against automatic differentiation."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.convnet import GenerativeConvNet, published_net
from gcn_cli.models.energy import autograd_gradient
from gcn_cli.models.layers import LayerSpec, PaddingMode
from tests.conftest import MakeModel

Images = Callable[..., torch.Tensor]


def test_the_published_net_has_the_published_geometry_and_filters() -> None:
    model = published_net(torch.Generator().manual_seed(1))
    assert model.map_sizes(224, 224) == [(72, 72), (72, 72), (74, 74)]
    assert model.receptive_fields() == [15, 27, 33]
    assert sum(p.numel() for p in model.parameters()) == 244974
    assert (model.padding_mode, model.sigma) == (PaddingMode.ZEROS, 1.0)
    again, other = published_net(torch.Generator().manual_seed(1)), published_net()
    for weights, same, different in zip(model.weights, again.weights, other.weights, strict=True):
        assert 0.009 < float(weights.detach().std()) < 0.011
        assert torch.equal(weights, same)
        assert not torch.equal(weights, different)
    assert not any(bias.any() for bias in model.biases)


def test_the_score_is_the_sum_of_the_top_maps_of_a_net_made_by_hand() -> None:
    model = GenerativeConvNet([LayerSpec(1, 1)], channels=1)
    model.weights[0].data.fill_(2.0)
    model.biases[0].data.fill_(-1.0)
    x = torch.tensor([[[[1.0, 0.0], [3.0, -5.0]]]])
    assert model.score(x).tolist() == [1.0 + 5.0]


def test_a_head_weights_positions(make_model: MakeModel, images: Images) -> None:
    model = make_model("2@3", padding_mode=PaddingMode.VALID, channels=1, image_size=(5, 5))
    x = images(3, 1, 5, 5)
    top = torch.relu(model.pre_activations(x)[-1])
    assert model.head is not None
    expected = torch.einsum("nkhw,khw->n", top, model.head)
    torch.testing.assert_close(model.score(x), expected)


def test_growing_keeps_the_layers_below_and_draws_the_new_one(make_model: MakeModel) -> None:
    model = make_model("4@3+1", image_size=(8, 8))
    first = model.weights[0].clone()
    model.grow(LayerSpec(5, 3, 1, 0), 0.01, torch.Generator().manual_seed(1))
    assert torch.equal(model.weights[0], first)
    assert model.weights[1].dtype == first.dtype
    assert 0.005 < float(model.weights[1].detach().std()) < 0.02
    assert model.head is not None
    assert model.head.shape == (5, 6, 6)


def test_the_score_is_invariant_to_circular_shifts(make_model: MakeModel, images: Images) -> None:
    model = make_model("4@5/2", "3@3", padding_mode=PaddingMode.CIRCULAR)
    x = images(1, 3, 12, 12)
    torch.testing.assert_close(model.score(x.roll((2, 4), (2, 3))), model.score(x))


def test_sides_that_do_not_fit_are_refused(make_model: MakeModel) -> None:
    torus = make_model("4@5/3", padding_mode=PaddingMode.CIRCULAR)
    with pytest.raises(ValueError, match="multiples of 3"):
        torus.map_sizes(10, 12)
    with pytest.raises(ValueError, match="receptive field"):
        make_model("4@9", padding_mode=PaddingMode.VALID).map_sizes(8, 20)


def test_a_net_needs_layers_and_a_positive_sigma() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        GenerativeConvNet([])
    with pytest.raises(ValueError, match="positive"):
        GenerativeConvNet([LayerSpec(1, 1)], sigma=0)


def test_the_score_is_alpha_plus_an_inner_product_within_a_cell(
    make_model: MakeModel, images: Images
) -> None:
    model = make_model("6@5/2+1", "4@3+1")
    x = images(2, 3, 12, 12)
    gates = model.activation_pattern(x)
    basis, alpha = model.top_down(gates, (12, 12)), model.intercept(gates, (12, 12))
    for scale in (0.0, 1e-6, 1e-5):
        moved = x + scale * images(2, 3, 12, 12, seed=3)
        same = zip(gates, model.activation_pattern(moved), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        inner = (moved * basis).sum(dim=(1, 2, 3))
        torch.testing.assert_close(model.score(moved) - inner, alpha, rtol=1e-12, atol=1e-10)


def test_with_all_gates_open_b_is_the_sum_of_the_filters(make_model: MakeModel) -> None:
    model = make_model("3@3", padding_mode=PaddingMode.CIRCULAR, channels=1)
    gates = [torch.ones(1, 3, 6, 6, dtype=torch.float64)]
    expected = model.weights[0].detach().sum() * torch.ones(1, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(model.top_down(gates, (6, 6)).detach(), expected)


@pytest.mark.parametrize("size", [(24, 24), (17, 20)])
def test_with_a_head_b_is_the_gradient_of_the_score(
    size: tuple[int, int], make_model: MakeModel, images: Images
) -> None:
    model = make_model("6@5/2+1", "4@3+1", image_size=size)
    x = images(2, 3, *size)
    torch.testing.assert_close(model.basis(x), autograd_gradient(model.score)(x))


def test_a_network_says_that_it_is_not_initialized() -> None:
    net = GenerativeConvNet([LayerSpec.parse("4@3")])
    assert "4@3; zeros, sigma 1; all parameters are 0: call initialize" in repr(net)
    net.initialize(0.01, torch.Generator().manual_seed(0))
    assert "initialize" not in repr(net)
