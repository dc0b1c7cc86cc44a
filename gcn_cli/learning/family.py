"""What differs between families of models, and is asked of the family, never of its type."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gcn_cli.config import Config
from gcn_cli.learning.batches import Batches
from gcn_cli.learning.trainer import Learner
from gcn_cli.model.energy import GenerativeModel
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.paper.network import GenerativeConvNet
from gcn_cli.model.pattern import Pattern
from gcn_cli.ranks import Ranks
from gcn_cli.sampling.annealed import Denoiser
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.conditional import Given
from gcn_cli.sampling.langevin import Callback
from gcn_cli.sampling.request import Request

Network = GenerativeConvNet | LadderNet


class Family(Protocol):
    """A network and the config it was made from. Images are (N, C, H, W) in model units."""

    @property
    def config(self) -> Config: ...

    @property
    def net(self) -> Network: ...

    @property
    def stride(self) -> int:
        """What sides of pictures that are evaluated at all levels are multiples of."""
        ...

    def fitting(self, height: int, width: int, level: float | None = None) -> tuple[int, int]:
        """The largest (H, W) within that can be evaluated at a level, by default the usual one."""
        ...

    def octaves(self) -> list[dict[str, float | str]]:
        """Of every network: resolution, the noise above which it answers, pixels it looks at."""
        ...

    def receptive_fields(self, level: float | None = None) -> list[int]:
        """Side in pixels that a filter response of each layer looks at, at a level."""
        ...

    def with_config(self, config: Config) -> "Family":
        """The same network under another config of its kind."""
        ...

    def learner(
        self,
        observed: Batches,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
        *,
        pattern: Pattern | None,
    ) -> Learner:
        """What trains the network, which moves to `device`; `ranks` share the work.

        `pattern` is that of the observed pictures, None where they have none.
        """
        ...

    def density(self, level: float | None, dtype: torch.dtype) -> GenerativeModel:
        """The generative ConvNet to evaluate, at a noise level where there are several."""
        ...

    def canvas(self, request: Request, trained: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that chains run at; `trained` is the default size of samples.

        Raises InputError for what the family cannot do or would ignore.
        """
        ...

    def closed(self, request: Request) -> tuple[bool, bool]:
        """Whether pictures go on at their own other side, down and across."""
        ...

    def steps(self, request: Request) -> int:
        """Evaluations of B that a picture takes."""
        ...

    def block(self, request: Request, side: int) -> tuple[int, int] | None:
        """A block of at least `side` pixels, and the side of what is looked at to evaluate B in it.

        None where B can only be evaluated at once.
        """
        ...

    def state_bytes(self, size: tuple[int, int]) -> int:
        """What a chain at `canvas` size keeps from one evaluation to the next, about."""
        ...

    def evaluation_bytes(self, size: tuple[int, int], dtype: torch.dtype) -> int:
        """What an evaluation of all of `size` needs beside, about."""
        ...

    def sample(
        self,
        request: Request,
        numbers: Sequence[int],
        start: Tensor | None,
        canvas: Canvas,
        dtype: torch.dtype,
        callback: Callback,
        given: Given | None = None,
        bent: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Tensor:
        """The pictures of these numbers on a canvas; `start` (N, C, H, W), None for noise.

        `given` is what is known of them, on the device of the network; `bent` wraps D. Raises
        InputError where the family can do neither.
        """
        ...

    def denoiser(self, request: Request, canvas: Canvas, dtype: torch.dtype) -> Denoiser:
        """D, a level outside of those learned taken for the nearest. Raises InputError if none."""
        ...
