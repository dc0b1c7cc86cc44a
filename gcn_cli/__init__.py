"""gcn: train generative ConvNets on images and synthesize from them.

    import gcn_cli as gcn

    model = gcn.train("texture.png", preset="quick", output="runs/texture")
    images = gcn.load("runs/texture").synthesize(size=(512, 256), count=2, seed=7)

Importing the package takes milliseconds: torch is loaded with the first use of a function.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from gcn_cli.errors import DivergedError, GcnError, InputError, InterruptedRunError

if TYPE_CHECKING:
    from gcn_cli.model import Model, compare, load, train

__all__ = [
    "DivergedError",
    "GcnError",
    "InputError",
    "InterruptedRunError",
    "Model",
    "__version__",
    "compare",
    "load",
    "train",
]

__version__ = "1.0.0.dev0"

logging.getLogger("gcn_cli").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """The names that need torch, imported on first use."""
    if name in ("Model", "compare", "load", "train"):
        return getattr(importlib.import_module("gcn_cli.model"), name)
    raise AttributeError(f"module 'gcn_cli' has no attribute {name!r}")
