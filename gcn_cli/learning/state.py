"""Saving learners: their state as tensors by dotted names."""

import torch
from torch import Tensor


def below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state whose names start with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors by parameter number and name, as "3.momentum_buffer"."""
    return {
        f"{number}.{name}": value
        for number, entries in optimiser.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what `optimiser_state` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, _, name = key.partition(".")
        entries.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
