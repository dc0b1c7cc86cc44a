"""The processes that torchrun started, by its environment variables (no torch needed)."""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


def torchrun_ranks() -> tuple[int, int, int] | None:
    """Rank, world size and rank on this machine; None without torchrun."""
    if not all(name in os.environ for name in VARIABLES):
        return None
    try:
        rank, world_size, local_rank = (int(os.environ[name]) for name in VARIABLES[:3])
    except ValueError:
        return None
    return rank, world_size, local_rank


def is_main_process() -> bool:
    """Whether this process writes messages: rank 0, or the only one."""
    ranks = torchrun_ranks()
    return ranks is None or ranks[0] == 0
