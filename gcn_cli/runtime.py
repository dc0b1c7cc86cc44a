"""The machine a run lives on: device, precision, threads, wall-clock limits, signals."""

import ctypes
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch

from gcn_cli.errors import InputError, InterruptedRunError
from gcn_cli.torchrun import torchrun_ranks

log = logging.getLogger(__name__)

LEAST_GPU_MEMORY = 2**29  # bytes: less does not hold what CUDA itself loads, and a small picture
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
_GROUPS = Path("/sys/fs/cgroup")
CONTAINER_LIMITS = [  # most memory, and used memory, of both versions of control groups
    (_GROUPS / "memory.max", _GROUPS / "memory.current"),
    (_GROUPS / "memory/memory.limit_in_bytes", _GROUPS / "memory/memory.usage_in_bytes"),
]
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def choose_device(asked: str) -> torch.device:
    """`auto` takes the first GPU there is; a device asked for by name must exist.

    Of processes that torchrun started each takes a GPU of its own. Raises InputError where a
    device does not exist.
    """
    if asked == "auto":
        if _gpu_works():
            started = torchrun_ranks()
            return _settle(torch.device("cuda", 0 if started is None else _own_gpu(started[2])))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {asked}: not on this machine; use auto or cpu") from error
    return _settle(device)


def _gpu_works() -> bool:
    """Whether a GPU can be used; where there is one that cannot, the reason is said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        works = torch.cuda.is_available()
    if not works:
        for one in said:
            log.info("no GPU is used: %s", " ".join(str(one.message).split())[:200])
    return works


def _own_gpu(number: int) -> int:
    """The GPU of process `number` of this machine. Raises InputError where there are too few."""
    count = torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"--device auto: process {number + 1} of a machine with {count} GPU(s); start one "
            "process a GPU, or use --device cpu"
        )
    return number


def _settle(device: torch.device) -> torch.device:
    """Make a GPU the current one, and have it do the same again and float32 as it says."""
    if device.type == "cuda":
        torch.cuda.set_device(device if device.index is not None else 0)
        _check_gpu(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False  # torch's default rounds convolutions to 10 bits
    return device


def _check_gpu(device: torch.device) -> None:
    """Say which GPU it is. Raises InputError where others have left nothing of its memory."""
    free, whole = torch.cuda.mem_get_info(device)
    others = torch.cuda.device_count() - 1
    more = f"; {others} more (--device cuda:N)" if others else ""
    told = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
    if free < LEAST_GPU_MEMORY:
        raise InputError(
            f"--device {device}: {told}, other processes use it{more}; choose another, or wait"
        )
    log.info("%s, %s%s", device_name(device), told, more)


def choose_precision(asked: str, device: torch.device, *, smooth_gates: bool) -> torch.dtype:
    """The number format of the maps; pixels, noise and parameters are float32 in any case.

    `auto` is bfloat16 for smooth gates where the device has fast units for it: they lose nothing.
    Exact gates stay in float32, since rounding flips some of them.
    """
    if asked != "auto":
        return torch.bfloat16 if asked == "bf16" else torch.float32
    return torch.bfloat16 if smooth_gates and fast_bfloat16(device) else torch.float32


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16, and not only an emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    with suppress(OSError):
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    return False


def set_threads(asked: int | None) -> None:
    """Processor threads for torch, by default what torch finds; and memory kept for its maps."""
    if asked is not None:
        torch.set_num_threads(asked)
    _keep_memory()


def _keep_memory() -> None:
    """Have the C library keep freed memory, where it is GNU's.

    Maps of the same sizes are made and freed at every step; given back to the system they come
    back page by page, which takes a tenth of a training step and a third of a large sample.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


class StopRequest:
    """Asks a training to stop after the iteration it is in: a time limit or a signal."""

    def __init__(self, seconds: float | None = None) -> None:
        self.started = time.monotonic()
        self.seconds = seconds
        self.signal: signal.Signals | None = None

    @property
    def timed_out(self) -> bool:
        """Whether the wall-clock limit has passed."""
        return self.seconds is not None and time.monotonic() - self.started >= self.seconds

    def __call__(self) -> bool:
        return self.signal is not None or self.timed_out

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals of schedulers and terminals meanwhile; a second one leaves at once.

        Signals that were ignored (as in a shell's background) are caught all the same.
        """

        def note(number: int, _frame: object) -> None:
            if self.signal is not None:
                if number == signal.SIGINT:
                    raise KeyboardInterrupt
                # As if it had never been caught: what was saved last is whole.
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.signal = signal.Signals(number)

        with signals_to(note):
            yield


@contextmanager
def signals_to(
    handler: Callable[[int, object], None], which: Sequence[signal.Signals] = STOPPING
) -> Iterator[None]:
    """Have a handler get these signals meanwhile; what they did before, they do after."""
    before = {one: signal.signal(one, handler) for one in which}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)


def leaving_on_signals(rest: str) -> AbstractContextManager[None]:
    """Have SIGTERM and SIGUSR1 raise InterruptedRunError at once; `rest` says what is left."""

    def leave(number: int, _frame: object) -> None:
        raise InterruptedRunError(f"{signal.Signals(number).name}: what was made {rest}")

    return signals_to(leave, [one for one in STOPPING if one != signal.SIGINT])


def device_name(device: torch.device) -> str:
    """A device as a person knows it."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where that cannot be told.

    On a processor no more than what the machine, a container or `ulimit -v` leaves.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or sys.platform != "linux":
        return None
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    for most, used in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # the word "max" is no limit
            found.append(int(most.read_text()) - int(used.read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        if limit != resource.RLIM_INFINITY:
            found.append(limit - pages * resource.getpagesize())
    return max(0, min(found)) if found else None


def peak_memory_mib(device: torch.device) -> float | None:
    """The most memory held so far, in MiB: of tensors on a GPU, of this process elsewhere.

    None where that cannot be told, as of a process on Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
