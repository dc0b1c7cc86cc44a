"""The canvas of a sample: its size, and how one that is huge is gone through."""

from collections.abc import Callable
from dataclasses import dataclass

from gcn_cli.model.rooms import Room


@dataclass(frozen=True)
class Canvas:
    """What chains run at: `size` (H, W) in pixels."""

    size: tuple[int, int]
    block: int | None = None  # B is evaluated block by block of this side; None takes all at once
    room: Room | None = None  # where the state is laid; None is memory
    on_block: Callable[[], None] | None = None  # called after every block

    @property
    def blocks(self) -> int:
        """How many an evaluation takes."""
        if self.block is None:
            return 1
        return (-(-self.size[0] // self.block)) * (-(-self.size[1] // self.block))
