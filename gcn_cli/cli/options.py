"""Options that commands share, and the options made from the fields of the config."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gcn_cli.config import LadderConfig, PaperConfig, fields
from gcn_cli.values import option_name, parse

F = TypeVar("F", bound=Callable[..., Any])


class FieldType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A config value as text; parsed by the config's own rules."""

    def __init__(self, field: str, metavar: str) -> None:
        self.field = field
        self.name = metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            # None is a value here ("all", "own"), so it travels in a box past click's defaults.
            return (parse(self.field, fields()[self.field].type, value),)
        return value


def config_options(command: F) -> F:
    """An option for every field of the config. Only those given reach the command."""
    for spec in reversed(fields().values()):
        shown = f"{spec.metadata['help']}  [{_defaults(spec.name)}]"
        name = option_name(spec.name)
        if spec.type is bool:
            declaration = f"{name}/--no-{name[2:]}"
            command = click.option(declaration, spec.name, default=None, help=shown)(command)
        else:
            kind = FieldType(spec.name, "VALUE")
            command = click.option(name, spec.name, type=kind, default=None, help=shown)(command)
    return command


def given_config(options: dict[str, Any]) -> dict[str, Any]:
    """Take the config options that were given out of all of a command's options."""
    given = {}
    for name in fields():
        value = options.pop(name)
        if value is not None:
            given[name] = value[0] if isinstance(value, tuple) else value
    return given


def _defaults(name: str) -> str:
    """Defaults by learner, as far as a value means something to it."""
    shown = []
    for family, learner in ((LadderConfig, "denoise"), (PaperConfig, "mle")):
        own = {spec.name: spec.default for spec in dataclasses.fields(family)}
        if name in own:
            shown.append((learner, _shown(own[name])))
    if name == "learner":
        return f"default: {LadderConfig().learner}"
    if len({text for _, text in shown}) == 1 and len(shown) == 2:
        return f"default: {shown[0][1]}"
    return "; ".join(f"{learner}: {text}" for learner, text in shown)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def machine_options(command: F) -> F:
    """--device, --precision and --threads."""
    for option in (
        click.option("--threads", type=click.IntRange(1, 1024), help="processor threads"),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bf16"]),
            default="auto",
            show_default=True,
            help="format of the maps; auto: bf16 for ladders where that is fast, else float32",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps"
        ),
    ):
        command = option(command)
    return command


def model_option(command: F) -> F:
    """--model, by default the newest run."""
    return click.option(
        "--model",
        metavar="RUN",
        help="a run's folder or model file  [default: the newest under runs/]",
    )(command)


def linked_option(command: F) -> F:
    """--with, once for every linked map beside the first."""
    return click.option(
        "--with",
        "linked",
        multiple=True,
        metavar="MAP",
        help="a map linked to the picture, as its normals; once for each, in the same order as in "
        "training",
    )(command)


def output_options(command: F) -> F:
    """--json, and how much is said on stderr: -q, -v."""
    for option in (
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_speak(logging.DEBUG),
            help="say more: what is saved, warnings of libraries",
        ),
        click.option(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=_speak(logging.ERROR),
            help="say nothing but errors",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="one JSON object on stdout, at the end"
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _speak(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def settle(ctx: click.Context, param: click.Parameter, given: bool) -> None:
        if given:
            if ctx.meta.setdefault("gcn.level", level) != level:
                raise click.UsageError("--quiet, --verbose: give one of them")
            logging.getLogger("gcn_cli").setLevel(level)

    return settle


def dry_run_option(command: F) -> F:
    """--dry-run."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="write nothing: print the settled values, and the memory and time to expect",
    )(command)


def overwrite_option(command: F) -> F:
    """--overwrite."""
    return click.option("--overwrite", is_flag=True, help="replace files that exist")(command)
