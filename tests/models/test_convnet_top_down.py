"""B and alpha against autograd, and the rearranged pass against the written-out one."""

import random
from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.energy import autograd_gradient
from gcn_cli.models.layers import PaddingMode
from gcn_cli.runtime import fast_bfloat16
from tests.conftest import MakeModel

# Where the processor has no units for bfloat16, the library rounds on the way through a sum, too.
BF16_ERROR = 2e-2 if fast_bfloat16(torch.device("cpu")) else 5e-2
STACKS = [("5@3+1",), ("6@7/3+2", "4@3+1"), ("6@5/2+1", "5@4/2+1", "4@2")]
SIZES = [(24, 24), (25, 31), (36, 24)]


def fits(lattice: PaddingMode, size: tuple[int, int], stack: tuple[str, ...]) -> bool:
    strides = {1: 1, 2: 3, 3: 4}[len(stack)]
    return lattice is not PaddingMode.CIRCULAR or all(side % strides == 0 for side in size)


CASES = [
    pytest.param(lattice, stack, size, id=f"{lattice}-{len(stack)}-{size[0]}x{size[1]}")
    for lattice in PaddingMode
    for stack in STACKS
    for size in SIZES
    if fits(lattice, size, stack)
]


@pytest.mark.parametrize(("lattice", "stack", "size"), CASES)
def test_basis_equals_autograd(
    lattice: PaddingMode,
    stack: tuple[str, ...],
    size: tuple[int, int],
    make_model: MakeModel,
    images: Callable[..., torch.Tensor],
) -> None:
    model = make_model(*stack, lattice=lattice)
    x = images(2, 3, *size)
    slope = autograd_gradient(model.score)(x)
    torch.testing.assert_close(model.basis(x), slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("lattice", "stack", "size"), CASES)
def test_rearranged_equals_written_out(
    lattice: PaddingMode,
    stack: tuple[str, ...],
    size: tuple[int, int],
    make_model: MakeModel,
    images: Callable[..., torch.Tensor],
) -> None:
    model = make_model(*stack, lattice=lattice)
    x = images(2, 3, *size)
    exact = model.basis(x)
    assert error(fast_basis(model, torch.float64)(x), exact) < 1e-13
    assert error(fast_basis(model, torch.float32)(x.float()), exact) < 1e-5


@pytest.mark.parametrize("seed", range(40))
def test_any_shape_equals_written_out(
    seed: int, make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    """Random filters, strides, paddings (wider than filters too) and sides, in three formats."""
    draw = random.Random(seed)
    lattice = draw.choice(list(PaddingMode))
    stack = []
    for _ in range(draw.randint(1, 3)):
        stride = draw.randint(1, 3)
        size = draw.randint(stride, 7)
        stack.append(f"{draw.randint(1, 9)}@{size}/{stride}+{draw.randint(0, size)}")
    channels = draw.randint(1, 4)
    model = make_model(*stack, lattice=lattice, channels=channels, scale=0.1, seed=seed)
    step = model.total_stride if lattice is PaddingMode.CIRCULAR else 1
    height, width = (draw.randint(72, 100) // step * step for _ in range(2))
    x = images(2, channels, height, width, seed=seed)
    exact = model.basis(x)
    assert error(fast_basis(model, torch.float64)(x), exact) < 1e-12
    assert error(fast_basis(model, torch.float32)(x.float()), exact) < 1e-5
    for layer, bias in enumerate(model.biases):
        bias.data.fill_(5.0 * 30**layer)  # no gate is near its kink: only rounding is left
    exact = model.basis(x)
    assert error(fast_basis(model, torch.bfloat16)(x.float()), exact) < BF16_ERROR


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.detach()).norm() / b.detach().norm())


@pytest.mark.parametrize("size", [(24, 24), (17, 20)])
def test_heads_start_the_way_down(
    size: tuple[int, int], make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1", "4@3+1", head_for=size)
    x = images(2, 3, *size)
    slope = autograd_gradient(model.score)(x)
    torch.testing.assert_close(model.basis(x), slope)
    torch.testing.assert_close(fast_basis(model, torch.float64)(x), slope)


def test_score_is_alpha_plus_inner_product_everywhere_in_a_cell(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@5/2+1", "4@3+1")
    x = images(2, 3, 12, 12)
    gates = model.activation_pattern(x)
    basis = model.top_down(gates, (12, 12))
    alpha = model.intercept(gates, (12, 12))
    for scale in (0.0, 1e-6, 1e-5):
        moved = x + scale * images(2, 3, 12, 12, seed=3)
        same = zip(gates, model.activation_pattern(moved), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        inner = (moved * basis).sum(dim=(1, 2, 3))
        torch.testing.assert_close(model.score(moved) - inner, alpha, rtol=1e-12, atol=1e-10)


def test_the_top_is_linear_in_what_starts_it(make_model: MakeModel) -> None:
    """Ones below the top, no gates closed: the way down is the plain sum of all filters."""
    model = make_model("3@3", lattice=PaddingMode.CIRCULAR, channels=1)
    gates = [torch.ones(1, 3, 6, 6, dtype=torch.float64)]
    constant = model.top_down(gates, (6, 6))
    expected = model.weights[0].detach().sum() * torch.ones(1, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(constant.detach(), expected)


def test_bf16_maps_with_all_gates_open_stay_within_two_percent(
    make_model: MakeModel, images: Callable[..., torch.Tensor]
) -> None:
    model = make_model("6@7/3+2", "4@3+1", scale=0.05)
    for bias in model.biases:
        bias.data.fill_(5.0)  # far from every kink: only rounding is left, no gate can flip
    x = images(2, 3, 24, 24)
    exact = model.basis(x)
    assert error(fast_basis(model, torch.bfloat16)(x.float()), exact) < BF16_ERROR
