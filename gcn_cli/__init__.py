"""gcn: learn a generative ConvNet from pictures and synthesize from it.

    import gcn_cli as gcn

    model = gcn.train("texture.png", preset="quick", output="runs/texture")
    pictures = gcn.load("runs/texture").synthesize(size=(512, 256), count=2, seed=7)

Nothing is loaded until it is used: importing this package takes milliseconds.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from gcn_cli.errors import DivergedError, GcnError, InputError, InterruptedRunError

if TYPE_CHECKING:
    from gcn_cli.model import Model, load, train

__all__ = [
    "DivergedError",
    "GcnError",
    "InputError",
    "InterruptedRunError",
    "Model",
    "__version__",
    "load",
    "train",
]

__version__ = "0.3.0"

logging.getLogger("gcn_cli").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """`train`, `load` and `Model`, with torch behind them, when they are first asked for."""
    if name in ("Model", "load", "train"):
        return getattr(importlib.import_module("gcn_cli.model"), name)
    raise AttributeError(f"module 'gcn_cli' has no attribute {name!r}")
