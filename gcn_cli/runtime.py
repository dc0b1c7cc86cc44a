"""The machine: device, precision, threads and memory."""

import ctypes
import logging
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import torch

from gcn_cli.errors import InputError
from gcn_cli.processors import available_cores, free_cores
from gcn_cli.torchrun import torchrun_ranks

log = logging.getLogger(__name__)

MIN_FREE_GPU_MEMORY = 2**29  # bytes: less does not hold CUDA's libraries and a small image
# Limit and usage of a container's memory: files of control groups, version 2 and version 1.
CONTAINER_MEMORY = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
]


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU, or the process's own under torchrun.

    Raises InputError if the device does not exist, or other processes use all of its memory.
    """
    if name == "auto":
        if not _cuda_works():
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        ranks, count = torchrun_ranks(), torch.cuda.device_count()
        index = 0 if ranks is None else ranks[2]
        if index >= count:
            raise InputError(
                f"--device auto: process {index + 1} of a machine with {count} GPU(s); start one "
                "process per GPU, or use --device cpu"
            )
        return _prepare(torch.device("cuda", index))
    try:
        device = torch.device(name.lower().replace("gpu", _gpu_name(), 1))
    except RuntimeError as error:
        raise InputError(f"--device {name}: unknown; use auto, cpu, gpu, cuda:1 or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not on this machine; use auto or cpu") from error
    return _prepare(device)


def _gpu_name() -> str:
    """What PyTorch calls a GPU on this system."""
    return "mps" if sys.platform == "darwin" else "cuda"


def _cuda_works() -> bool:
    """Whether CUDA can be used; logs why a GPU that exists cannot."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        works = torch.cuda.is_available()
    if not works:
        for warning in caught:
            log.info("no GPU is used: %s", " ".join(str(warning.message).split())[:200])
    return works


def _prepare(device: torch.device) -> torch.device:
    """Make a GPU the current device, deterministic and exact in float32; log which it is."""
    if device.type != "cuda":
        return device
    torch.cuda.set_device(device if device.index is not None else 0)
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    others = torch.cuda.device_count() - 1
    more = f"; {others} more (--device cuda:N)" if others else ""
    memory = f"{free:.1f} of {total:.1f} GiB free"
    if free * 2**30 < MIN_FREE_GPU_MEMORY:
        raise InputError(
            f"--device {device}: {memory}, other processes use it{more}; choose another, or wait"
        )
    log.info("%s, %s%s", device_name(device), memory, more)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # by default convolutions round to 10 bits
    return device


def device_name(device: torch.device) -> str:
    """The device, with the product name of a GPU."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def choose_precision(name: str, device: torch.device, *, smooth_gates: bool) -> torch.dtype:
    """The number format of feature maps; images, noise and parameters are always float32.

    "auto" is bfloat16 for smooth gates on a device that is fast at it, which costs no quality.
    Exact gates stay in float32: rounding switches some of them. Raises InputError for other names.
    """
    if name not in ("auto", "float32", "bf16"):
        raise InputError(f"--precision {name}: must be one of auto, float32, bf16")
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    return torch.bfloat16 if smooth_gates and fast_bfloat16(device) else torch.float32


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        with suppress(OSError):
            text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
            return "avx512_bf16" in text
    return False


def set_threads(count: int | None) -> None:
    """Set torch's threads, and have glibc keep freed memory.

    None: OMP_NUM_THREADS, or the cores that a container grants and other processes leave free:
    threads that share a core wait for each other hundreds of times in a training step.

    Feature maps of the same sizes are allocated at every step. Returned to the system, their memory
    comes back page by page, which costs a tenth of a training step and a third of a large sample.
    """
    if count is None and "OMP_NUM_THREADS" not in os.environ:
        cores = min(available_cores(), torch.get_num_threads())
        count = min(cores, free_cores())
        if count < cores:
            log.info("%d of %d threads: other processes use the rest (--threads)", count, cores)
    if count is not None:
        torch.set_num_threads(count)
    if sys.platform != "linux":
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # mallopt(3)
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 << 20)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None if the system does not tell.

    On a CPU the least of what the machine, the container and `ulimit -v` leave.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or sys.platform != "linux":
        return None
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        free.append(1024 * int(line.split()[1]))
    for limit, usage in CONTAINER_MEMORY:
        with suppress(OSError, ValueError):  # the limit may be the word "max"
            free.append(int(Path(limit).read_text()) - int(Path(usage).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource

        address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        if address_space != resource.RLIM_INFINITY:
            free.append(address_space - pages * resource.getpagesize())
    return max(0, min(free)) if free else None


def peak_memory_mib(device: torch.device) -> float | None:
    """Peak memory in MiB: of tensors on a GPU, else of this process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
