"""Recording steps: with a tape in place of a CUDA graph, which replays what a graph would."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gcn_cli.models.backprop import forward, pack, potential, potential_gradient
from gcn_cli.models.cascade import denoise_batch
from gcn_cli.models.convnet import GenerativeConvNet
from gcn_cli.models.convnet_fast import fast_basis
from gcn_cli.models.cuda_graph import GraphedFunction, image_by_image
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.training.losses import denoising_loss
from gcn_cli.training.optim import orthogonalize_each

Function = Callable[..., Any]


class Tape(TorchDispatchMode):
    """All operations on tensors, with their arguments; what Python did in between is lost."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor read into Python"
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """All of it again, into the same memory."""
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            if not any(returned.alias_info for returned in func._schema.returns):
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class OneDevice(TorchDispatchMode):
    """Refuses tensors that are not on the meta device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", func
        return out


def tape(function: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    recorded = Tape()
    with recorded:
        result = function()
    return recorded.replay, result


def ladder(head: bool) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        parse_layers("4@5,4@3/2,3@3"),
        rectifier=SmoothReLU(0.5),
        lattice=PaddingMode.REFLECT,
        head_for=(16, 24) if head else None,
    )
    net.initialize(torch.Generator().manual_seed(0))
    return net


def paper(head: bool) -> GenerativeConvNet:
    head_for = (16, 24) if head else None
    model = GenerativeConvNet(parse_layers("6@7/3+2,5@5+2"), head_for=head_for)
    model.initialize(0.1, torch.Generator().manual_seed(0))
    return model


def rearranged(model: GenerativeConvNet, x: Tensor) -> Tensor:
    return fast_basis(model)(x)


def scored(net: NoiseConditionalNet, z: Tensor, level: Tensor, shares: Tensor) -> object:
    up = forward(net, z, level.log(), pack(net, torch.float32), learning=True)
    return potential(net, up), potential_gradient(net, up, shares)


def learned(net: NoiseConditionalNet, x: Tensor, level: Tensor, times: Tensor) -> object:
    prepared = pack(net, torch.float32)
    return denoising_loss(net, x, 0.5 * x, level, lambda _: times, margin=2, prepared=prepared)


def denoised(net: NoiseConditionalNet, lattice: PaddingMode, x: Tensor, level: Tensor) -> Tensor:
    """On a torus of a size that the maps do not close on."""
    x = x[..., :-1, :-3] if lattice is PaddingMode.CIRCULAR else x
    return denoise_batch(net, x, level, replace(pack(net, torch.float32), lattice=lattice))


def work(name: str) -> tuple[torch.nn.Module, Function, int]:
    """A model, a function that steps are made of, and how many (N,) it takes after its images."""
    head = name.endswith("head")
    if name.startswith("basis"):
        model = paper(head)
        return model, partial(rearranged, model), 0
    net = ladder(head)
    if name == "orthogonalize":
        return net, lambda x: orthogonalize_each(x.flatten(1), x.flatten(2)[0]), 0
    if name.startswith("denoise"):
        lattice = PaddingMode.CIRCULAR if name.endswith("torus") else net.lattice
        return net, partial(denoised, net, lattice), 1
    if name.startswith("learn"):
        return net, partial(learned, net), 2
    return net, partial(scored, net), 2


WORKS = [
    *("basis", "basis head", "denoise", "denoise head", "denoise torus"),
    *("learn", "learn head", "score", "orthogonalize"),
]


def arguments(images: Callable[..., Tensor], extra: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    levels = [0.1 + torch.rand(2, generator=generator) for _ in range(extra)]
    return [images(2, 3, 16, 24, seed=seed).float(), *levels]


@pytest.mark.parametrize("name", WORKS)
def test_a_replay_is_the_step_with_new_images_and_new_parameters(
    name: str, images: Callable[..., Tensor]
) -> None:
    model, function, extra = work(name)
    recorded = GraphedFunction(function, record=tape)
    for seed in range(3):
        given = arguments(images, extra, seed)
        found, expected = recorded(*given), function(*given)
        for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9)


def test_other_shapes_are_recorded_anew(images: Callable[..., Tensor]) -> None:
    counted: list[int] = []

    def count(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        counted.append(1)
        return tape(function)

    recorded = GraphedFunction(lambda x: x.square() + 1, record=count)
    for shape in ((2, 3), (2, 3), (4, 3), (4, 3), (2, 3)):
        x = images(1, 1, *shape)
        torch.testing.assert_close(recorded(x), x.square() + 1)
    assert len(counted) == 3


def test_one_by_one_an_image_knows_nothing_of_its_batch(images: Callable[..., Tensor]) -> None:
    """Of a recording, too, which overwrites what it gave last."""
    recorded = GraphedFunction(lambda x, level: x / len(x) + level, record=tape)
    each = image_by_image(recorded, torch.device("cuda"))
    x, level = images(3, 1, 2, 3).float(), torch.ones(1)
    assert torch.equal(each(x, level), x + 1)
    assert torch.equal(each(x[1:2], level), x[1:2] + 1)
    assert image_by_image(recorded, torch.device("cpu")) is recorded


def test_on_a_processor_nothing_is_recorded() -> None:
    x = torch.ones(2)
    assert GraphedFunction(lambda given: given)(x) is x


@pytest.mark.parametrize("name", WORKS)
def test_a_step_touches_nothing_on_the_host(name: str) -> None:
    """On the meta device any copy from or to the host shows."""

    model, function, extra = work(name)
    model.to("meta")
    given = [torch.zeros(2, 3, 16, 24, device="meta")]
    given += [torch.ones(2, device="meta") for _ in range(extra)]
    with OneDevice():
        function(*given)
