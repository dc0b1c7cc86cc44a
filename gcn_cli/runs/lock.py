"""One job at a time in a run's folder: a lock that a killed job does not leave behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcn_cli.errors import BusyError
from gcn_cli.runs.folder import MODEL

NAME = ".lock"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is there.

    The system takes it back when the process ends, however that comes about; the empty file stays.
    Raises BusyError where another process has it. No lock where the system has none (Windows).
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (run / NAME).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{run}: another job is training here; wait for it, or name another run with -o"
            ) from error
        yield


def refuse_newer(run: Path) -> None:
    """Raise BusyError where another job has trained in a folder since this one did not find it."""
    if (run / MODEL).exists():
        raise BusyError(
            f"{run}: another job has trained here since this one began; the same command again "
            "goes on from there, or name another run with -o"
        )
