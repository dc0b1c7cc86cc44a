"""The command as a function: what it is given, what it printed, its exit code.

It runs in this process, all the way through `main`: a process takes seconds to import torch. What
only a process shows (signals, pipes, locks, starting up) is tested by processes, and so are the
README's commands.
"""

import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from gcn_cli.cli.app import main

TEXTURE = [
    "--layers", "8@5,8@3/2", "--crop", "32", "--margin", "4", "--iterations", "20",
    "--preview-every", "0", "--device", "cpu",
]  # fmt: skip
"""Options of a ladder that learns a texture, a little, in a second; later ones win."""

Done = subprocess.CompletedProcess[bytes]


def gcn(*words: str, cwd: Path, stdin: bytes | None = None) -> Done:
    """Run `gcn WORDS` in a folder."""
    given, out, err = (
        io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", write_through=True)
        for data in (stdin or b"", b"", b"")
    )
    with (
        contextlib.chdir(cwd),
        _messages_as_they_were(),
        mock.patch.multiple(sys, argv=["gcn", *words], stdin=given, stdout=out, stderr=err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    printed = [stream.buffer.getvalue() for stream in (out, err)]
    return Done(["gcn", *words], code, printed[0], printed[1])


def gcn_process(*words: str, cwd: Path) -> Done:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "gcn_cli", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False)


@contextlib.contextmanager
def _messages_as_they_were() -> Iterator[None]:
    """A command has the library's messages go to stderr for good; other tests read them."""
    logger = logging.getLogger("gcn_cli")
    before = list(logger.handlers), logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
