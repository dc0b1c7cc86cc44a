"""A clock that the test turns, for what is planned by time."""

import pytest

from gcn_cli.runs import job as course


class Clock:
    """Moves by what an iteration is said to take, and by nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, denoising: float, refining: float) -> None:
        self.now, self.costs = 1000.0, (denoising, refining)
        monkeypatch.setattr(course.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]

    def note(self, _: int, __: int, measures: dict[str, float]) -> None:
        self.now += self.costs[bool(measures["likelihood"])]
