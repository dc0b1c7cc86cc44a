"""The processors of this machine: how many there are, and how many are free. No torch is needed."""

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Processor time of a container per period, version 2 (one file) and version 1, in microseconds.
CONTAINER_CPU = [
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
]
STATISTICS = "/proc/stat"
# Columns of STATISTICS that keep a core from other work: processes with a nice value wait for it.
USER, SYSTEM, INTERRUPTS, SOFT_INTERRUPTS, STOLEN = 0, 2, 5, 6, 7
SHORTEST = 0.5  # seconds in which the load can be measured


def available_cores() -> int:
    """The cores that this process may use: of its affinity mask, and of its container's quota."""
    cores = len(_own_cores()) or os.cpu_count() or 1
    for files in CONTAINER_CPU:
        with suppress(OSError, ValueError):  # the quota may be the word "max"
            quota, period = map(int, " ".join(Path(file).read_text() for file in files).split())
            if quota > 0 and period > 0:  # version 1 has -1 for none
                cores = min(cores, math.ceil(quota / period))
    return cores


def _own_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@dataclass(frozen=True)
class Usage:
    """Processor time in seconds since the machine or the process started."""

    clock: float
    everyone: float  # on the cores that this process may use
    own: float  # of this process

    @classmethod
    def now(cls) -> "Usage | None":
        """None if the system does not tell."""
        if not hasattr(os, "sysconf") or not Path(STATISTICS).exists():
            return None
        ticks = 0
        names = {f"cpu{core}" for core in _own_cores()}
        with suppress(OSError, ValueError, IndexError):
            for line in Path(STATISTICS).read_text(encoding="ascii").splitlines():
                name, *columns = line.split()
                if name in names:
                    used = (USER, SYSTEM, INTERRUPTS, SOFT_INTERRUPTS, STOLEN)
                    ticks += sum(int(columns[column]) for column in used)
            own = os.times()
            seconds = ticks / os.sysconf("SC_CLK_TCK")
            return cls(time.monotonic(), seconds, own.user + own.system)
        return None

    def others_since(self, before: "Usage") -> float:
        """Mean number of cores that other processes have used since an earlier reading."""
        elapsed = self.clock - before.clock
        if elapsed < SHORTEST:
            return 0.0
        others = (self.everyone - before.everyone) - (self.own - before.own)
        return max(0.0, others / elapsed)


FIRST_USAGE = Usage.now()
"""At the start of the process, where this module is imported first."""


def free_cores() -> int:
    """The available cores that other processes have left free since the start, at least half.

    Busy cores are shared too: where none is free, half of them do more than one.
    """
    cores, now = available_cores(), Usage.now()
    if now is None or FIRST_USAGE is None:
        return cores
    return max(1, cores // 2, cores - round(now.others_since(FIRST_USAGE)))
