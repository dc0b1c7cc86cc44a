"""B by automatic differentiation, by the reference, and by the fast rearrangement."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gcn_cli.models.convnet_fast import FastNet, fast_basis
from gcn_cli.models.energy import autograd_gradient, energy
from gcn_cli.models.layers import PaddingMode
from gcn_cli.runtime import fast_bfloat16
from tests.conftest import MakeModel

Images = Callable[..., Tensor]

# Without bfloat16 units, the library also rounds the partial sums.
BF16_ERROR = 2e-2 if fast_bfloat16(torch.device("cpu")) else 5e-2
STACKS = [("5@3+1",), ("6@7/3+2", "4@3+1"), ("6@5/2+1", "5@4/2+1", "4@2")]
STRIDES = [1, 3, 4]
SIZES = [(24, 24), (25, 31), (36, 24)]
CASES = [
    pytest.param(mode, stack, size, id=f"{mode}-{len(stack)}-{size[0]}x{size[1]}")
    for mode in PaddingMode
    for stack, stride in zip(STACKS, STRIDES, strict=True)
    for size in SIZES
    if mode is not PaddingMode.CIRCULAR or all(side % stride == 0 for side in size)
]


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.detach()).norm() / b.detach().norm())


@pytest.mark.parametrize(("padding_mode", "stack", "size"), CASES)
def test_reference_and_fast_basis_are_the_gradient_of_the_score(
    padding_mode: PaddingMode,
    stack: tuple[str, ...],
    size: tuple[int, int],
    make_model: MakeModel,
    images: Images,
) -> None:
    model = make_model(*stack, padding_mode=padding_mode)
    x = images(2, 3, *size)
    basis = model.basis(x)
    gradient = autograd_gradient(model.score)(x)
    torch.testing.assert_close(basis, gradient, rtol=1e-12, atol=1e-12)
    assert relative_error(fast_basis(model, torch.float64)(x), basis) < 1e-13
    assert relative_error(fast_basis(model, torch.float32)(x.float()), basis) < 1e-5


@pytest.mark.parametrize("seed", range(40))
def test_fast_basis_of_random_nets(seed: int, make_model: MakeModel, images: Images) -> None:
    """Random filters, strides, paddings (also wider than filters) and sides, in three dtypes."""
    draw = random.Random(seed)
    padding_mode = draw.choice(list(PaddingMode))
    stack = []
    for _ in range(draw.randint(1, 3)):
        stride = draw.randint(1, 3)
        size = draw.randint(stride, 7)
        stack.append(f"{draw.randint(1, 9)}@{size}/{stride}+{draw.randint(0, size)}")
    channels = draw.randint(1, 4)
    model = make_model(*stack, padding_mode=padding_mode, channels=channels, scale=0.1, seed=seed)
    step = model.total_stride if padding_mode is PaddingMode.CIRCULAR else 1
    height, width = (draw.randint(72, 100) // step * step for _ in range(2))
    x = images(2, channels, height, width, seed=seed)
    basis = model.basis(x)
    assert relative_error(fast_basis(model, torch.float64)(x), basis) < 1e-12
    assert relative_error(fast_basis(model, torch.float32)(x.float()), basis) < 1e-5
    for layer, bias in enumerate(model.biases):
        bias.data.fill_(5.0 * 30**layer)  # far from every kink, so that only rounding differs
    basis = model.basis(x)
    assert relative_error(fast_basis(model, torch.bfloat16)(x.float()), basis) < BF16_ERROR


@pytest.mark.parametrize("size", [(24, 24), (17, 20)])
def test_fast_basis_with_a_head(
    size: tuple[int, int], make_model: MakeModel, images: Images
) -> None:
    model = make_model("6@5/2+1", "4@3+1", image_size=size)
    x = images(2, 3, *size)
    torch.testing.assert_close(fast_basis(model, torch.float64)(x), model.basis(x))


def test_a_fast_net_is_the_net_with_the_fast_basis(make_model: MakeModel, images: Images) -> None:
    model = make_model("6@7/3+2", "4@3+1", sigma=0.5)
    x = images(2, 3, 24, 24)
    fast = FastNet(model, torch.float64)
    assert fast.weights is model.weights
    assert torch.equal(energy(fast, x), energy(model, x))
    assert torch.equal(fast.basis(x), fast_basis(model, torch.float64)(x))


def test_bfloat16_maps_stay_within_two_percent(make_model: MakeModel, images: Images) -> None:
    model = make_model("6@7/3+2", "4@3+1", scale=0.05)
    for bias in model.biases:
        bias.data.fill_(5.0)  # far from every kink, so that no gate flips
    x = images(2, 3, 24, 24)
    fast = fast_basis(model, torch.bfloat16)(x.float())
    assert relative_error(fast, model.basis(x)) < BF16_ERROR
