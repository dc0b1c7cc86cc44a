"""The command `gcn`: its subcommands, and the exit code and message of every error."""

import errno
import importlib
import io
import os
import platform
import re
import sys
import traceback
from difflib import get_close_matches

import click

from gcn_cli import __version__ as VERSION
from gcn_cli.cli.console import is_loading, notice, show_messages
from gcn_cli.errors import GcnError, InterruptedRunError, SignalExit
from gcn_cli.torchrun import torchrun_ranks

COMMANDS = {
    "train": "Train a model on an image, several images, or a folder.",
    "synthesize": "Synthesize images from a model.",
    "reconstruct": "Reconstruct, repair, extend or denoise images.",
    "inspect": "Describe a model, a preset, or an image as a model sees it.",
}
OUT_OF_MEMORY = (
    "out of memory; use a smaller --size, --resize, --batch-size or --set crop, or fewer filters "
    "in --set layers"
)
WRITE_ERRORS = {errno.EBADF, errno.EDQUOT, errno.EIO, errno.ENOSPC}


IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
REPAIR, LIST = "gcn reconstruct IMAGE --mask MASK", "gcn inspect"
GUESSES = {
    "denoise": "gcn reconstruct IMAGE --denoise auto",
    "extend": "gcn reconstruct IMAGE --outpaint LEFT,TOP,RIGHT,BOTTOM",
    "generate": "gcn synthesize",
    "help": "gcn --help",
    "info": LIST,
    "inpaint": REPAIR,
    "learn": "gcn train IMAGE",
    "list": LIST,
    "ls": LIST,
    "outpaint": "gcn reconstruct IMAGE --outpaint LEFT,TOP,RIGHT,BOTTOM",
    "repair": REPAIR,
    "report": "gcn inspect report FOLDER",
    "sample": "gcn synthesize",
    "show": LIST,
}
"""Commands that a person may expect, and what is meant."""


def _meant(name: str) -> str | None:
    """What a person may have meant by a command that does not exist."""
    similar = get_close_matches(name, COMMANDS, 1)
    if similar or name in GUESSES:
        return GUESSES.get(name) or similar[0]
    return f"gcn synthesize {name}" if name.lower().endswith(IMAGES) else None


class LazyGroup(click.Group):
    """Imports the module of a command when the command is called; help needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"gcn_cli.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            meant = _meant(args[0])
            if meant is not None:
                ctx.fail(f"No such command '{args[0]}'; did you mean {meant}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def print_version(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    """Print the versions, the build of PyTorch and the device that --device auto takes; exit."""
    if not given or ctx.resilient_parsing:
        return
    click.echo(f"gcn, version {VERSION}")
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        import torch

        from gcn_cli.runtime import choose_device, device_name
    except (ImportError, OSError) as error:
        raise GcnError(f"torch: cannot be loaded ({error}); install it again") from None
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    try:
        device = device_name(choose_device("auto"))
    except GcnError as error:  # a GPU without free memory
        device = error.message
    click.echo(f"torch {torch.__version__} ({build}), device {device}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the versions of gcn, PyTorch and Python, and the device.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Learn a texture from one image and synthesize as much of it as you like.

    \b
    gcn train texture.jpg
    gcn synthesize --size 1024

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 diverged, 75 interrupted and saved,
    130 Ctrl-C.
    """


def main() -> None:
    """Run the command line; print every error as one line and exit with its code."""
    show_messages()
    print_any_path()
    try:
        with notice("loading PyTorch ...", lambda: is_loading("torch")):
            code = cli.main(prog_name="gcn", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        code = 0
    except (Exception, KeyboardInterrupt, SignalExit) as error:
        message, code = describe(error)
        _print_error(message, "" if code == 130 else "error")
    except SystemExit:  # of click, for which a reader of stdout that left is an error
        code = 0
    code = code if isinstance(code, int) else 0
    try:
        sys.stdout.flush()
    except OSError:  # what is left goes nowhere; the interpreter would fail to write it too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if torchrun_ranks() is not None:
        # Threads of torch sometimes abort a process of torchrun as the interpreter shuts down
        # ("terminate called without an active exception"), which torchrun takes for a failure.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def print_any_path() -> None:
    """Let stdout take every path: bytes that are no text come out as they are."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        same = sys.stdout.encoding.lower() == sys.getfilesystemencoding()
        sys.stdout.reconfigure(errors="surrogateescape" if same else "backslashreplace")


def describe(error: BaseException) -> tuple[str, int]:
    """The message and the exit code of an error."""
    if isinstance(error, GcnError):
        return error.message, error.exit_code
    if isinstance(error, SignalExit):
        return error.message, InterruptedRunError.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):  # Click makes the second of the first
        return str(error) or str(error.__cause__ or "") or "interrupted", 130
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
    ):
        return OUT_OF_MEMORY, 1
    if isinstance(error, OSError) and error.strerror is not None:
        nameless = "standard output or a temporary file" if error.errno in WRITE_ERRORS else ""
        where = f"{file}: " if (file := error.filename or nameless) else ""
        return f"{where}{error.strerror}; files saved before are complete", 1
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"{text} (gcn --debug {' '.join(sys.argv[1:2])} ... shows where)", 1


def _print_error(message: str, kind: str = "error") -> None:
    if "--debug" in sys.argv[1:]:
        traceback.print_exc()
    # File names may hold control characters; the message stays one line.
    line = re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match[0])[1:-1], message)
    ranks = torchrun_ranks()
    process = f" (process {ranks[0]})" if ranks is not None and ranks[0] else ""
    click.echo(f"gcn: {kind}{process}{': ' if kind else ''}{line}", err=True)
