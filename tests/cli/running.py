"""The command as a function: arguments in, output and exit code out.

It runs `main` in this process, since a new process takes seconds to import torch. Tests of signals,
pipes, locks and imports start processes.
"""

import contextlib
import io
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from gcn_cli.cli.app import main
from tests.reading import check_json_files, strict_json

PUBLISHED = [
    "--set", "learner=mle", "--resize", "24", "--set", "layers=6@5/2+2,4@3+1", "--iterations", "4",
    "--set", "langevin_steps=2", "--threads", "1", "--device", "cpu",
]  # fmt: skip
"""Options of a small published training."""

TEXTURE = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=32", "--set", "margin=4", "--iterations", "20",
    "--preview-every", "0", "--device", "cpu",
]  # fmt: skip
"""Options of a training on a texture that takes a second; options after these override them."""

Done = subprocess.CompletedProcess[bytes]


def gcn(*arguments: str, cwd: Path, stdin: bytes | None = None) -> Done:
    """Run `gcn ARGUMENTS` in a folder. The JSON that it prints and writes must be strict."""
    started = time.time() - 0.1  # clocks of file systems are coarse
    input_, out, err = (
        io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", write_through=True)
        for data in (stdin or b"", b"", b"")
    )
    with (
        contextlib.chdir(cwd),
        restored_logging(),
        mock.patch.multiple(sys, argv=["gcn", *arguments], stdin=input_, stdout=out, stderr=err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    printed = [stream.buffer.getvalue() for stream in (out, err)]
    if code == 0 and "--json" in arguments:
        strict_json(printed[0])
    check_json_files(cwd, started)
    return Done(["gcn", *arguments], code, printed[0], printed[1])


def gcn_process(*arguments: str, cwd: Path) -> Done:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "gcn_cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False)


@contextlib.contextmanager
def restored_logging() -> Iterator[None]:
    """Undo `show_messages` after a command: other tests capture the messages."""
    logger = logging.getLogger("gcn_cli")
    before = list(logger.handlers), logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
