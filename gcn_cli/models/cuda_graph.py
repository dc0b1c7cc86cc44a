"""A function of tensors made into one launch, where launches are what takes the time: on a GPU.

A step of a chain is a hundred small kernels, and starting them one by one takes longer than they
run. A CUDA graph records them once and starts them together, the processor free meanwhile.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Capture = Callable[[Callable[[], Result]], tuple[Callable[[], object], Result]]
"""Runs a function once: how to run it again, and the result, which that overwrites."""

WARM_UP = 2  # calls before recording, in which libraries choose their kernels


def capture_graph(function: Callable[[], Result]) -> tuple[Callable[[], object], Result]:
    """Record what a function starts on the current GPU. Raises torch.OutOfMemoryError."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = function()
    except RuntimeError as error:
        # What ends the recording complains too: what went wrong first is what callers act on.
        if isinstance(error.__context__, torch.OutOfMemoryError):
            raise error.__context__ from None
        raise
    return graph.replay, result


class GraphedFunction(Generic[Result]):
    """`function`, recorded at the first call with tensors of some shapes and replayed after.

    On anything but a CUDA device it is called as it is. Recorded, it must read nothing from
    tensors into Python; what it closes over is read where it lies, so parameters may change in
    place between calls. A result is overwritten by the next call: clone what is to last.
    """

    def __init__(
        self, function: Callable[..., Result], record: Capture[Result] | None = None
    ) -> None:
        """`record` in place of `capture_graph` records on any device."""
        self.function = function
        self.record = record
        self._shapes: list[torch.Size] = []
        self._inputs: tuple[Tensor, ...] = ()
        self._replay: Callable[[], object] | None = None
        self._result: Result

    @property
    def recorded(self) -> bool:
        """Whether results are a recording's, which the next call overwrites."""
        return self._replay is not None

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Result:
        """The function's result; all inputs are on one device."""
        if self.record is None and inputs[0].device.type != "cuda":
            return self.function(*inputs)
        shapes = [x.shape for x in inputs]
        if self._replay is None or shapes != self._shapes:
            self._replay = None  # one graph at a time: its memory is freed before the next
            self._shapes, self._inputs = shapes, tuple(x.clone() for x in inputs)
            record: Capture[Result] = self.record or capture_graph
            self._replay, self._result = record(lambda: self.function(*self._inputs))
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._replay()
        return self._result


def image_by_image(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """A function of images (N, ...) on a device and what is common to them, called for each image.

    A GPU's libraries choose their kernels by the size of a batch, and these round differently; so
    an image is the same whatever batch it is in. The result of each is copied at once. On a
    processor, where that is so anyway, the function as it is.
    """
    if device.type == "cpu":
        return function

    def each(x: Tensor, *common: object) -> Tensor:
        if len(x) == 1:
            return function(x, *common)
        made = torch.empty_like(x)
        for number in range(len(x)):
            made[number : number + 1] = function(x[number : number + 1], *common)
        return made

    return each
