"""Two jobs that begin at once in one run, whose folder neither of them finds."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import gcn_cli as gcn
from gcn_cli.errors import BusyError
from gcn_cli.runs import job
from gcn_cli.runs.folder import locked, make_folder
from gcn_cli.runs.session import Session, TrainingJob, begin
from tests.small import LADDER, picture


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExitStack]:
    """Another job, which makes the folder and takes its lock while the first one begins."""
    run = tmp_path / "run"
    with ExitStack() as held:

        def overtaken(work: TrainingJob) -> Session:
            training = begin(work)
            run.mkdir()
            held.enter_context(locked(run))
            (run / "model.safetensors").write_bytes(b"the other's")
            return training

        monkeypatch.setattr(job, "begin", overtaken)
        yield held


def test_the_later_one_is_refused_while_the_other_trains(other: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(BusyError, match="another job is training here"):
        gcn.train(picture(), output=tmp_path / "run", iterations=2, **LADDER)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == b"the other's"


def test_nor_does_it_write_over_what_the_other_has_learned(
    other: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def later(run: Path) -> None:  # the lock is taken after it
        make_folder(run)
        other.close()

    monkeypatch.setattr(job, "make_folder", later)
    with pytest.raises(BusyError, match="another job has trained here since"):
        gcn.train(picture(), output=tmp_path / "run", iterations=2, **LADDER)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == b"the other's"
