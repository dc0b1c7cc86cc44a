"""What an option's value may be: durations, sizes, seeds, sides, levels of noise, as text.

Options that commands share, and the options made from the fields of the config.
"""

import dataclasses
import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from gcn_cli.config import (
    NoiseConditionalConfig,
    PublishedConfig,
    config_fields,
    option_name,
    parse_value,
)

MOST_SEEDS = 1_000_000


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, from "90", "90s", "5m" or "1.5h"."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is not a time such as 90s, 5m or 1.5h, more than 0", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


class More(click.ParamType):  # type: ignore[type-arg]
    """Iterations, from "500", or seconds, from "90s", "5m" or "1.5h": one of the two."""

    name = "iterations|duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, float | None]:
        if isinstance(value, tuple):
            return value
        text = str(value)
        if text.isdigit():
            if int(text) == 0:
                self.fail("0 more iterations are none; give 1 or more", param, ctx)
            return int(text), None
        if text[-1:] not in ("s", "m", "h"):
            self.fail(f"{text!r} is neither iterations, as 500, nor a time, as 2m", param, ctx)
        return None, Duration().convert(text, param, ctx)


class Size(click.ParamType):  # type: ignore[type-arg]
    """(width, height) in pixels, from "512" or "WIDTHxHEIGHT"."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value))
        if match is None or int(match[1]) < 1 or int(match[2] or 1) < 1:
            self.fail(f"{value!r} is not a size such as 512 or 640x480", param, ctx)
        return int(match[1]), int(match[2] or match[1])


class Tile(click.ParamType):  # type: ignore[type-arg]
    """The side of blocks in pixels, "auto" or "off"."""

    name = "auto|off|pixels"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value in ("auto", "off") or isinstance(value, int):
            return cast(int | str, value)
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is not auto, off or a number of pixels, as 1024", param, ctx)
        return int(value)


class Noise(click.ParamType):  # type: ignore[type-arg]
    """A deviation in gray levels, or "auto"."""

    name = "auto|sigma"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "auto" or isinstance(value, float):
            return cast(float | str, value)
        try:
            found = float(value)
        except ValueError:
            found = 0.0
        if not 0 < found < 256:
            self.fail(f"{value!r} is not auto or gray levels, more than 0, as 12.5", param, ctx)
        return found


class Seeds(click.ParamType):  # type: ignore[type-arg]
    """Several seeds, from "0,3-7"; each once, in order."""

    name = "0,3-7"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found: dict[int, None] = {}
        for part in str(value).split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
            if match is None or int(match[2] or match[1]) - int(match[1]) not in range(MOST_SEEDS):
                self.fail(f"{value!r} is not seeds such as 5 or 0,3-7, rising", param, ctx)
            found |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(found)


class Sides(click.ParamType):  # type: ignore[type-arg]
    """Pixels at the left, top, right and bottom, from "LEFT,TOP,RIGHT,BOTTOM"."""

    name = "left,top,right,bottom"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", str(value))
        if match is None:
            self.fail(f"{value!r} is not LEFT,TOP,RIGHT,BOTTOM in pixels, as 0,0,256,0", param, ctx)
        left, top, right, bottom = map(int, match.groups())
        return left, top, right, bottom


F = TypeVar("F", bound=Callable[..., Any])


class FieldType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A config value as text; parsed by the config's own rules."""

    def __init__(self, field: str, metavar: str) -> None:
        self.field = field
        self.name = metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            # None is a value here ("all", "own"), so it travels in a box past click's defaults.
            return (parse_value(self.field, config_fields()[self.field].type, value),)
        return value


def config_options(command: F) -> F:
    """An option for every field of the config. Only those given reach the command."""
    for spec in reversed(config_fields().values()):
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
    for name in config_fields():
        value = options.pop(name)
        if value is not None:
            given[name] = value[0] if isinstance(value, tuple) else value
    return given


def _defaults(name: str) -> str:
    """Defaults by learner, as far as a value means something to it."""
    shown = []
    for family, learner in ((NoiseConditionalConfig, "denoise"), (PublishedConfig, "mle")):
        own = {spec.name: spec.default for spec in dataclasses.fields(family)}
        if name in own:
            shown.append((learner, _shown(own[name])))
    if name == "learner":
        return f"default: {NoiseConditionalConfig().learner}"
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
