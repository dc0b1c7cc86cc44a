"""What a sample is asked to be, whatever the family of the model."""

import math
from dataclasses import dataclass
from typing import Literal

from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode

Start = Literal["noise", "chains", "picture"]
"""White noise of the reference distribution, chains kept from training, or a picture."""

Seamless = Literal["both", "x", "y", "off"]
"""In which directions a picture goes on at its own other side."""


@dataclass(frozen=True)
class SampleOptions:
    """None is what was left open: the family of the model chooses."""

    size: tuple[int, int] | None = None  # (H, W)
    seed: int = 0
    steps: int | None = None  # evaluations of B a picture
    start: Start = "noise"
    level: float | None = None  # noise put on a picture to start from, in deviations of the data
    step_size: float | None = None
    noise: bool = True  # False: noise-free descent towards a mode
    lattice: PaddingMode | None = None
    seamless: Seamless | None = None
    temperature: float = 1.0  # of Langevin's noise: under 1 calmer than the model, above wilder
    restarts: int = 0  # times chains go back up, to where things settle beside each other
    rounds: int | None = None  # times each level is taken where a part of the picture is given

    def __post_init__(self) -> None:
        for name, value in (
            ("--level", self.level),
            ("--step-size", self.step_size),
            ("--temperature", self.temperature),
        ):
            if value is not None:
                check_positive(name, value)


def check_positive(option: str, value: float) -> None:
    """Raise InputError for what is no finite number above 0."""
    if not 0 < value < math.inf:
        raise InputError(f"{option} {value}: must be a number more than 0")


def size_error(trained: tuple[int, int]) -> InputError:
    """Why a model with a head makes pictures of one size (H, W) only."""
    height, width = trained
    return InputError(f"--size: this model has a head for {width}x{height} and no other size")
