"""Cores: of the affinity mask and of containers, and those that others leave free."""

import os
from pathlib import Path

import pytest

from gcn_cli import processors
from gcn_cli.processors import Usage, available_cores, free_cores

COLUMNS = "user nice system idle iowait irq softirq steal guest guest_nice"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, without a container."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(processors, "CONTAINER_CPU", [])


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("quota", "cores_granted"),
    [("150000 100000", 2), ("max 100000", 8), ("-1 100000", 8), ("1 1", 1)],
)
def test_a_container_grants_fewer_cores(
    quota: str, cores_granted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("both", "quota", "period"), (quota, *quota.split()), strict=True):
        (tmp_path / name).write_text(f"{value}\n")
    for files in (("both",), ("quota", "period"), ("absent",)):
        monkeypatch.setattr(processors, "CONTAINER_CPU", [[tmp_path / name for name in files]])
        assert available_cores() == (8 if "absent" in files else cores_granted)


@pytest.mark.usefixtures("cores")
def test_usage_counts_what_keeps_own_cores_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not time of other cores, idle time, or that of processes with a nice value."""
    own = dict(zip(COLUMNS.split(), (100, 5000, 20, 9000, 9000, 3, 4, 5, 0, 0), strict=True))
    rows = [("cpu", 7777), ("cpu0", None), ("cpu9", 7777), ("intr", 7777)]
    lines = []
    for name, value in rows:
        columns = own.values() if value is None else [value] * len(own)
        lines.append(" ".join([name, *map(str, columns)]))
    (tmp_path / "stat").write_text("\n".join(lines))
    monkeypatch.setattr(processors, "STATISTICS", str(tmp_path / "stat"))
    usage = Usage.now()
    assert usage is not None
    assert usage.everyone == pytest.approx(132 / os.sysconf("SC_CLK_TCK"))
    monkeypatch.setattr(processors, "STATISTICS", str(tmp_path / "absent"))
    assert Usage.now() is None
    assert free_cores() == 8


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("seconds", "everyone", "own", "free"),
    [
        (2.0, 2.0, 2.0, 8),  # nobody else
        (2.0, 4.0, 2.0, 7),
        (2.0, 9.0, 2.0, 4),  # 3.5 cores
        (2.0, 30.0, 2.0, 4),  # never less than half
        (2.0, 1.9, 2.0, 8),  # clocks differ
        (0.1, 0.8, 0.1, 8),  # too short to tell
    ],
)
def test_free_cores_are_those_that_others_have_not_used(
    seconds: float, everyone: float, own: float, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Usage(100 + seconds, 500 + everyone, 3 + own)
    monkeypatch.setattr(processors, "FIRST_USAGE", Usage(100.0, 500.0, 3.0))
    monkeypatch.setattr(Usage, "now", classmethod(lambda _: later))
    assert free_cores() == free
