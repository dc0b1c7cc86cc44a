"""What torchrun tells the processes that it starts; nothing here needs torch."""

import os

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


def torchrun_ranks() -> tuple[int, int, int] | None:
    """Rank, count, and rank on this machine; None without torchrun."""
    if not all(name in os.environ for name in NAMES):
        return None
    try:
        rank, count, local = (int(os.environ[name]) for name in NAMES[:3])
    except ValueError:
        return None
    return rank, count, local


def is_main_process() -> bool:
    """Whether this process is the one of a job that tells people how it goes."""
    found = torchrun_ranks()
    return found is None or found[0] == 0
