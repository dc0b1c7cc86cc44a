"""A clock for tests of time budgets."""

import time

import pytest


class Clock:
    """Replaces `time.monotonic`; moves only by the cost of iterations, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *costs: float) -> None:
        """`costs` of an iteration of denoising, and of one with likelihood training."""
        self.now, self.costs = 1000.0, costs
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def note(self, _: int, __: int, metrics: dict[str, float]) -> None:
        """Called after an iteration: advance by its cost."""
        self.now += self.costs[bool(metrics["likelihood"])]
