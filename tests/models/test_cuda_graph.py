"""CUDA graphs, with a tape in their place that replays operations as a graph would."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from gcn_cli.models.cuda_graph import GpuThreads, GraphedFunction, image_by_image
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.training.losses import denoising_loss
from gcn_cli.training.optim import orthogonalize_batch

Images = Callable[..., Tensor]
Function = Callable[..., Any]


class Tape(TorchDispatchMode):
    """Records tensor operations and their arguments, but nothing that Python does in between."""

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
        """Run the operations again, into the same memory."""
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            if not any(returned.alias_info for returned in func._schema.returns):
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class MetaDeviceOnly(TorchDispatchMode):
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


def capture_tape(function: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    tape = Tape()
    with tape:
        output = function()
    return tape.replay, output


def noise_conditional_net(head: bool) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        parse_layers("4@5,4@3/2,3@3"),
        rectifier=SmoothReLU(0.5),
        padding_mode=PaddingMode.REFLECT,
        image_size=(16, 24) if head else None,
    )
    net.initialize(torch.Generator().manual_seed(0))
    return net


def paper_net(head: bool) -> GenerativeConvNet:
    image_size = (16, 24) if head else None
    model = GenerativeConvNet(parse_layers("6@7/3+2,5@5+2"), image_size=image_size)
    model.initialize(0.1, torch.Generator().manual_seed(0))
    return model


def basis(model: GenerativeConvNet, x: Tensor) -> Tensor:
    return fast_basis(model)(x)


def potentials(net: NoiseConditionalNet, z: Tensor, level: Tensor, weights: Tensor) -> object:
    fwd = forward(pack(net, torch.float32), z, level.log(), training=True)
    return potential(fwd), potential_gradient(fwd, weights)


def learn(net: NoiseConditionalNet, x: Tensor, level: Tensor, weights: Tensor) -> object:
    packed = pack(net, torch.float32)
    return denoising_loss(packed, x, 0.5 * x, level, lambda _: weights, margin=2)


def denoise(
    net: NoiseConditionalNet, padding_mode: PaddingMode, x: Tensor, level: Tensor
) -> Tensor:
    """On a torus, of a size that is no multiple of the stride."""
    x = x[..., :-1, :-3] if padding_mode is PaddingMode.CIRCULAR else x
    return denoise_batch(
        net, x, level, replace(pack(net, torch.float32), padding_mode=padding_mode)
    )


def task(name: str) -> tuple[torch.nn.Module, Function, int]:
    """A model, a function of images, and how many further arguments (N,) the function takes."""
    head = name.endswith("head")
    if name.startswith("basis"):
        model = paper_net(head)
        return model, partial(basis, model), 0
    net = noise_conditional_net(head)
    if name == "orthogonalize":
        return net, lambda x: orthogonalize_batch([x.flatten(1), x.flatten(2)[0]]), 0
    if name.startswith("denoise"):
        padding_mode = PaddingMode.CIRCULAR if name.endswith("torus") else net.padding_mode
        return net, partial(denoise, net, padding_mode), 1
    return net, partial(learn if name.startswith("learn") else potentials, net), 2


TASKS = [
    *("basis", "basis head", "denoise", "denoise head", "denoise torus"),
    *("learn", "learn head", "potentials", "orthogonalize"),
]


def arguments(images: Images, extra: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    levels = [0.1 + torch.rand(2, generator=generator) for _ in range(extra)]
    return [images(2, 3, 16, 24, seed=seed).float(), *levels]


@pytest.mark.parametrize("name", TASKS)
def test_a_replay_uses_new_images_and_new_parameters(name: str, images: Images) -> None:
    model, function, extra = task(name)
    graphed = GraphedFunction(function, capture=capture_tape)
    for seed in range(3):
        inputs = arguments(images, extra, seed)
        outputs, expected = tree_leaves(graphed(*inputs)), tree_leaves(function(*inputs))
        for output, other in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, other, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9)


def test_other_shapes_are_captured_again(images: Images) -> None:
    captures: list[int] = []

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        captures.append(1)
        return capture_tape(function)

    graphed = GraphedFunction(lambda x: x.square() + 1, capture=capture)
    for shape in ((2, 3), (2, 3), (4, 3), (4, 3), (2, 3)):
        x = images(1, 1, *shape)
        torch.testing.assert_close(graphed(x), x.square() + 1)
    assert len(captures) == 3


def test_image_by_image_an_output_does_not_depend_on_the_batch(images: Images) -> None:
    """Also with a graph, which overwrites its last output."""
    graphed = GraphedFunction(lambda x, level: x / len(x) + level, capture=capture_tape)
    each = image_by_image(graphed, torch.device("cuda"))
    x, level = images(3, 1, 2, 3).float(), torch.ones(1)
    assert torch.equal(each(x, level), x + 1)
    assert torch.equal(each(x[1:2], level), x[1:2] + 1)
    assert image_by_image(graphed, torch.device("cpu")) is graphed


def test_on_a_cpu_the_function_is_called_directly() -> None:
    x = torch.ones(2)
    assert GraphedFunction(lambda y: y)(x) is x


@pytest.mark.parametrize("name", TASKS)
def test_functions_copy_nothing_from_or_to_the_host(name: str) -> None:
    """On the meta device such a copy is an error."""
    model, function, extra = task(name)
    model.to("meta")
    inputs = [torch.zeros(2, 3, 16, 24, device="meta")]
    inputs += [torch.ones(2, device="meta") for _ in range(extra)]
    with MetaDeviceOnly():
        function(*inputs)


def test_no_thread_works_while_another_captures() -> None:
    threads, inside, overlaps = GpuThreads(), [0], []

    def train() -> None:
        with threads.working():
            for step in range(30):
                threads.pause()
                inside[0] += 1
                time.sleep(0.0005)
                inside[0] -= 1
                if step % 10 == 0:
                    with threads.capturing():
                        overlaps.append(inside[0])
                        time.sleep(0.001)
                        overlaps.append(inside[0])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(train) for _ in range(4)]:
            future.result(timeout=20)
    with threads.capturing():  # a thread that is not counted
        assert overlaps == [0] * 24
