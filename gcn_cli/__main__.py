"""The process of the command `gcn`; `python -m gcn_cli` is the same.

Signals, standard streams and waiting threads are set up before click and torch are loaded.
"""

import io
import os
import sys
from typing import Any

import gcn_cli.processors  # noqa: F401  measures the load from here on
from gcn_cli.signals import exit_while_loading, ignore_signals

SPINNING = {
    "GOMP_SPINCOUNT": "3000",  # of GNU OpenMP, in PyTorch for Linux
    "KMP_BLOCKTIME": "1",  # of LLVM and Intel OpenMP, in milliseconds
}
"""How long a thread that waits for others spins before it sleeps, unless the environment says it.

By default, some 10 and 200 milliseconds: once other processes run too, waiting threads take the
cores from the threads that they wait for, and all is five times as slow (docs/experiments.md). On a
free machine a short spin costs less than a tenth of the speed.
"""


class LogFile(io.FileIO):
    """A log that may lose its reader or its disk: what cannot be written is dropped."""

    def write(self, data: Any) -> int:
        """Write bytes; claims to have written all of them if there is an error."""
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written  # None: the reader is slow


def main() -> None:
    """Run the command line in a process of its own; exit with its code."""
    exit_while_loading()
    prepare_streams()
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in SPINNING.items():
            os.environ.setdefault(name, value)
    from gcn_cli.cli.app import main as run_command_line

    try:
        run_command_line()
    finally:
        ignore_signals()


def prepare_streams() -> None:
    """Open closed streams on the null device, and let stderr drop what cannot be written.

    A file that is opened while stderr is closed gets its number, and the messages.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if os.name == "posix" and sys.stderr is not None:
        buffer = io.BufferedWriter(LogFile(2, "w", closefd=False))
        encoding = sys.stderr.encoding
        sys.stderr = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=True)


if __name__ == "__main__":
    main()
