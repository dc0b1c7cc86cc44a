"""gcn: train generative ConvNets on images and synthesize from them.

    import gcn_cli as gcn

    model = gcn.train("texture.png", preset="quick", output="runs/texture")
    images = gcn.load("runs/texture").synthesize(size=(512, 256), count=2, seed=7)

`gcn.research` has the building blocks: densities, energies, Langevin dynamics. Importing the
package takes milliseconds: torch is loaded with the first use of a function.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from gcn_cli.errors import (
    BusyError,
    DivergedError,
    GcnError,
    InputError,
    InterruptedRunError,
    LostProcessError,
)

if TYPE_CHECKING:
    from gcn_cli import research
    from gcn_cli.api import compare, forecast, train
    from gcn_cli.model import Model, load

__all__ = [
    "BusyError",
    "DivergedError",
    "GcnError",
    "InputError",
    "InterruptedRunError",
    "LostProcessError",
    "Model",
    "__version__",
    "compare",
    "forecast",
    "load",
    "research",
    "train",
]

__version__ = "1.0.0.dev0"

logging.getLogger("gcn_cli").addHandler(logging.NullHandler())

_LAZY = {"Model": "model", "load": "model", "compare": "api", "forecast": "api", "train": "api"}


def __getattr__(name: str) -> Any:
    """The names that need torch, imported on first use."""
    if name == "research":
        return importlib.import_module("gcn_cli.research")
    if name in _LAZY:
        return getattr(importlib.import_module(f"gcn_cli.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'gcn_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, for completion in notebooks."""
    return [*__all__]
