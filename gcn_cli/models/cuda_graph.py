"""CUDA graphs: all kernels of a function in one launch.

A sampling step is about a hundred small kernels on a GPU, and launching them one by one takes
longer than they run. A CUDA graph captures them once and replays them with one launch.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output")
Capture = Callable[[Callable[[], Output]], tuple[Callable[[], object], Output]]
"""Runs a function once. Returns (replay, output). Each replay overwrites output."""

WARM_UP = 2  # calls before the capture, in which cuDNN and cuBLAS choose their kernels


def capture_graph(function: Callable[[], Output]) -> tuple[Callable[[], object], Output]:
    """Capture a function on the current GPU. Returns (replay, output).

    Each replay overwrites output. Raises torch.OutOfMemoryError where memory does not suffice.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = function()
    except RuntimeError as error:
        # After an error, ending the capture raises a second one; callers handle the first.
        if isinstance(error.__context__, torch.OutOfMemoryError):
            raise error.__context__ from None
        raise
    return graph.replay, output


class GraphedFunction(Generic[Output]):
    """A function of CUDA tensors, captured at its first call and replayed at later ones.

    Each call overwrites the output of the last: clone what must be kept. A call with other shapes
    captures again and frees the last graph. The function must not read tensor values into Python.
    Tensors that it closes over, as parameters, may change in place between calls. On other devices
    the function is called directly.
    """

    def __init__(
        self, function: Callable[..., Output], capture: Capture[Output] | None = None
    ) -> None:
        """`capture`, where given, replaces `capture_graph` and is used on every device."""
        self.function = function
        self.capture = capture
        self._shapes: list[torch.Size] = []
        self._inputs: tuple[Tensor, ...] = ()
        self._replay: Callable[[], object] | None = None
        self._output: Output

    @property
    def captured(self) -> bool:
        """Whether there is a graph, so that the next call overwrites the last output."""
        return self._replay is not None

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Output:
        """The output of the function; all inputs are on one device."""
        if self.capture is None and inputs[0].device.type != "cuda":
            return self.function(*inputs)
        shapes = [x.shape for x in inputs]
        if self._replay is None or shapes != self._shapes:
            self._replay = None  # frees the memory of the last graph before the next capture
            self._shapes, self._inputs = shapes, tuple(x.clone() for x in inputs)
            capture: Capture[Output] = self.capture or capture_graph
            self._replay, self._output = capture(lambda: self.function(*self._inputs))
        for static, x in zip(self._inputs, inputs, strict=True):
            static.copy_(x)
        self._replay()
        return self._output


def image_by_image(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """A function of images (N, ...) and shared arguments, called for each image separately.

    cuDNN chooses its kernels by batch size, and these round differently; image by image, a sample
    does not depend on its batch. Each output is copied at once, so that `function` may be a
    GraphedFunction. On a CPU samples never depend on their batch: `function` is returned as it is.
    """
    if device.type == "cpu":
        return function

    def each(x: Tensor, *shared: object) -> Tensor:
        if len(x) == 1:
            return function(x, *shared)
        outputs = torch.empty_like(x)
        for index in range(len(x)):
            outputs[index : index + 1] = function(x[index : index + 1], *shared)
        return outputs

    return each
