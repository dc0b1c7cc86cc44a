"""CUDA graphs: all kernels of a function in one launch.

A sampling step is about a hundred small kernels on a GPU, and launching them one by one takes
longer than they run. A CUDA graph captures them once and replays them with one launch.
"""

import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

Output = TypeVar("Output")
Capture = Callable[[Callable[[], Output]], tuple[Callable[[], object], Output]]
"""Runs a function once. Returns (replay, output). Each replay overwrites output."""

WARM_UP = 2  # calls before the capture, in which cuDNN and cuBLAS choose their kernels


class GpuThreads:
    """Threads that share a GPU: while one captures a CUDA graph, no other may use the GPU.

    Loading a kernel, allocating or waiting for the device makes a capture invalid, from another
    thread too. Threads wait at their next `pause`.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._working = 0  # threads that may use the GPU now
        self._is_capturing = False
        self._own = threading.local()  # count: 1 in a thread that is counted

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count this thread among those that use the GPU."""
        with self._change:
            self._change.wait_for(lambda: not self._is_capturing)
            self._working += 1
        self._own.count = 1
        try:
            yield
        finally:
            self._own.count = 0
            self._leave(1)

    def pause(self) -> None:
        """Wait while another thread captures."""
        count = getattr(self._own, "count", 0)
        if count and self._is_capturing:
            self._leave(count)
            with self._change:
                self._change.wait_for(lambda: not self._is_capturing)
                self._working += count

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Wait until no other thread uses the GPU; keep it until the end of the body."""
        count = getattr(self._own, "count", 0)
        self._leave(count)
        with self._change:
            self._change.wait_for(lambda: not self._is_capturing)
            self._is_capturing = True
            self._change.wait_for(lambda: self._working == 0)
        try:
            yield
        finally:
            with self._change:
                self._is_capturing = False
                self._working += count
                self._change.notify_all()

    def _leave(self, count: int) -> None:
        with self._change:
            self._working -= count
            self._change.notify_all()


GPU_THREADS = GpuThreads()


def capture_graph(
    function: Callable[[], Output], stream: torch.cuda.Stream
) -> tuple[Callable[[], object], Output]:
    """Capture a function on the current GPU. Returns (replay, output).

    stream: on which it is captured. Graphs that run at the same time need streams of their own,
    since cuBLAS has a work space for each. Each replay overwrites output. Raises
    torch.OutOfMemoryError where memory does not suffice.
    """
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with (
            GPU_THREADS.capturing(),
            no_garbage_collection(),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            output = function()
    except RuntimeError as error:
        # After an error, ending the capture raises a second one; callers handle the first.
        if isinstance(error.__context__, torch.OutOfMemoryError):
            raise error.__context__ from None
        raise
    return graph.replay, output


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep unused objects until the end: freeing an old CUDA graph makes a capture invalid."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
        self._stream: torch.cuda.Stream | None = None
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
        GPU_THREADS.pause()
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
            capture: Capture[Output] = self.capture or self._capture_on_gpu
            before = [(tensor, tensor.clone()) for tensor in self.state()]
            self._replay, self._output = capture(lambda: self.function(*arguments))
            for tensor, saved in before:  # the calls that warm up have changed it
                tensor.copy_(saved)
        torch._foreach_copy_(self._inputs, tensors)
        self._replay()
        return self._output

    def _capture_on_gpu(
        self, function: Callable[[], Output]
    ) -> tuple[Callable[[], object], Output]:
        """Capture on a stream of this function's own, the same for every shape."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return capture_graph(function, self._stream)


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
