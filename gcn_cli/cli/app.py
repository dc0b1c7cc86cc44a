"""The command `gcn`: a group that loads a subcommand only when it is called, and one error edge."""

import importlib
import os
import re
import sys
import traceback
from typing import NoReturn

import click

from gcn_cli import __version__ as VERSION
from gcn_cli.cli.console import show_messages
from gcn_cli.errors import GcnError
from gcn_cli.torchrun import torchrun_ranks

COMMANDS = {
    "train": "Learn a model from one picture, several, or a folder.",
    "synthesize": "Make new pictures from a model.",
    "reconstruct": "Show what the model's auto-encoder makes of pictures.",
    "inspect": "Show a model, a preset, or what a model makes of a picture.",
}


OUT_OF_MEMORY = "out of memory; use a smaller --size, --batch-size or --crop, or fewer filters"


class LazyGroup(click.Group):
    """Help for the group reads the table above; torch is imported by the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"gcn_cli.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "--version", prog_name="gcn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Learn a texture from one picture, synthesize as much of it as you like.

    Exit codes: 0 done, 1 failed, 2 usage, 3 diverged, 75 interrupted and saved, 130 Ctrl-C.
    """


def main() -> None:
    """Run the command line; every error leaves here as one line and its exit code."""
    debug = "--debug" in sys.argv[1:]
    show_messages()
    try:
        code = cli.main(prog_name="gcn", standalone_mode=False)
        sys.stdout.flush()
    except GcnError as error:
        code = _fail(str(error), error.exit_code, debug)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted", 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.strerror is None:
            code = _fail(f"{type(error).__name__}: {error}", 1, debug)
        else:
            where = f"{error.filename}: " if error.filename else ""
            code = _fail(f"{where}{error.strerror}; what was saved before is whole", 1, debug)
    except MemoryError:
        code = _fail(OUT_OF_MEMORY, 1, debug)
    except Exception as error:
        if "allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError":
            _leave(_fail(OUT_OF_MEMORY, 1, debug))
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        code = _fail(f"{text} (gcn --debug {' '.join(sys.argv[1:2])} ... shows where)", 1, debug)
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End with an exit code.

    Under torchrun at once: there, threads of torch now and then abort a process as it winds up
    ("terminate called without an active exception"), and torchrun takes that for a failure.
    """
    if torchrun_ranks() is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    # One line, whatever characters a file's name has.
    line = re.sub(r"[\x00-\x1f\x7f]", lambda found: repr(found[0])[1:-1], message)
    started = torchrun_ranks()
    who = f" (process {started[0]})" if started is not None and started[0] else ""
    click.echo(f"gcn: error{who}: {line}", err=True)
    return code
