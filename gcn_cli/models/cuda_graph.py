"""CUDA graphs: all kernels of a function in one launch.

A sampling step is about a hundred small kernels on a GPU, and launching them one by one takes
longer than they run. A CUDA graph captures them once and replays them with one launch.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

Output = TypeVar("Output")
Capture = Callable[[Callable[[], Output]], tuple[Callable[[], object], Output]]
"""Runs a function once. Returns (replay, output). Each replay overwrites output."""

_capturing = threading.Lock()

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
        # Other threads may train meanwhile, but not capture.
        with _capturing, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = function()
    except RuntimeError as error:
        # After an error, ending the capture raises a second one; callers handle the first.
        if isinstance(error.__context__, torch.OutOfMemoryError):
            raise error.__context__ from None
        raise
    return graph.replay, output


class SideStream:
    """A second stream of a GPU, for work beside that of the first; elsewhere work is in turn.

    What the branch uses and makes must be referenced until `join`: freed memory is used again.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Run the body beside what comes after it, until `join`."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Wait on the present stream for all branches."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)


class GraphedFunction(Generic[Output]):
    """A function of CUDA tensors, captured at its first call and replayed at later ones.

    Each call overwrites the output of the last: clone what must be kept. A call with other shapes
    captures again and frees the last graph. The function must not read tensor values into Python.
    Tensors that it closes over, as parameters, may change in place between calls. On other devices
    the function is called directly.
    """

    def __init__(
        self,
        function: Callable[..., Output],
        capture: Capture[Output] | None = None,
        *,
        state: Callable[[], Iterable[Tensor]] = tuple,
    ) -> None:
        """state: returns the tensors that the function changes in place; a capture leaves them.

        `capture`, where given, replaces `capture_graph` and is used on every device.
        """
        self.function, self.state = function, state
        self.capture = capture
        self._shapes: list[torch.Size] = []
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], object] | None = None
        self._output: Output

    @property
    def captured(self) -> bool:
        """Whether there is a graph, so that the next call overwrites the last output."""
        return self._replay is not None

    @torch.no_grad()
    def __call__(self, *inputs: Tensor | float) -> Output:
        """The output of the function. The first input is a tensor, all tensors are on its device.

        Numbers among the inputs are tensors () in a graph, so that replays use new ones.
        """
        device = cast(Tensor, inputs[0]).device
        if self.capture is None and device.type != "cuda":
            return self.function(*inputs)
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        numbers = [x for x in inputs if not isinstance(x, Tensor)]
        if numbers:
            tensors.append(from_host(numbers, device))
        shapes = [x.shape for x in tensors]
        if self._replay is None or shapes != self._shapes:
            self._replay = None  # frees the memory of the last graph before the next capture
            self._shapes, self._inputs = shapes, [x.clone() for x in tensors]
            scalars = iter(self._inputs[-1].unbind() if numbers else ())
            images = iter(self._inputs)
            arguments = [next(images if isinstance(x, Tensor) else scalars) for x in inputs]
            capture: Capture[Output] = self.capture or capture_graph
            before = [(tensor, tensor.clone()) for tensor in self.state()]
            self._replay, self._output = capture(lambda: self.function(*arguments))
            for tensor, saved in before:  # the calls that warm up have changed it
                tensor.copy_(saved)
        torch._foreach_copy_(self._inputs, tensors)
        self._replay()
        return self._output


def from_host(values: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> Tensor:
    """Numbers as a float32 tensor on a device, which is not waited for."""
    tensor = torch.tensor(values, dtype=torch.float32)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
