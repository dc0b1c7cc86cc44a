"""From the fields of option classes to Click options, and how the help prints them by group."""

import dataclasses
import logging
import os
import re
import shlex
import types
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from gcn_cli.config import OWN_OPTIONS, SETTINGS, option_name
from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode
from gcn_cli.options import flag_of
from gcn_cli.presets import PRESET_NOTES, RENAMED, check_names

MAX_SEEDS = 1_000_000
LONGEST_COMMAND = 500  # characters in metadata

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Kind(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """How the text of an option's value is read."""

    def __init__(self, metavar: str, parse: Callable[[str], Any], words: str) -> None:
        """`parse` raises ValueError for a text that is not `words`, as "a size such as 512"."""
        self.name, self.parse, self.words = metavar, parse, words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError:
            self.fail(f"{value!r} is not {self.words}", param, ctx)


class Choice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """One of several words, in any case; a mistyped one is refused with the word meant."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(list(words), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            similar = get_close_matches(str(value).lower(), map(str, self.choices), 1)
            if not similar:
                raise
            words = ", ".join(map(str, self.choices))
            message = f"{value!r} is not one of {words}; did you mean {similar[0]}?"
            raise click.BadParameter(message, ctx, param) from error


class InputFile(Kind):
    """A file that must exist, "-" (stdin), or one of the words in the option's metavar."""

    def __init__(self) -> None:
        super().__init__("FILE", str, "a file")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value itself. Raises InputError, which names the option, if there is no such file."""
        if isinstance(value, str) and isinstance(param, click.Option):
            words, path = ["-", *(param.metavar or "").split("|")], value
            if "=" in value and words[-1].startswith("[KIND=]"):
                from gcn_cli.images.materials import split_kind

                _, path = split_kind(value)
            if path not in words and not os.path.exists(path):
                raise InputError(f"{param.opts[-1]} {value}: no such file")
        return value


def _match(pattern: str, text: str) -> list[str | None]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError
    return list(match.groups())


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels, from "512" or "WIDTHxHEIGHT"."""
    width, height = _match(r"([1-9]\d*)(?:[xX\u00d7*]([1-9]\d*))?", text)
    return int(width or 0), int(height or width or 0)


def parse_sample_size(text: str) -> tuple[int, int] | str:
    """(width, height) in pixels, or "auto"."""
    return text if text == "auto" else parse_size(text)


def parse_time(text: str) -> float:
    """Seconds, from "90", "90s", "5m30s" or "1.5h"."""
    number = r"(\d+(?:\.\d+)?)"
    plain, hours, minutes, rest = _match(
        f"{number}|(?:{number}h)?(?:{number}m(?:in)?)?(?:{number}s)?", text
    )
    seconds = float(plain or rest or 0) + 60 * float(minutes or 0) + 3600 * float(hours or 0)
    if seconds == 0:
        raise ValueError
    return seconds


def parse_extension(text: str) -> tuple[int | None, float | None]:
    """(iterations, None) from "500", or (None, seconds) from "90s", "5m", "1.5h"."""
    if text.isdecimal() and int(text) > 0:
        return int(text), None
    if text[-1:].isdecimal():
        raise ValueError
    return None, parse_time(text)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from "5", "0,3-7" or "1..3"; each once, in order."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, last = _match(r"(\d+)(?:(?:-|\.\.)(\d+))?", part.strip())
        values = range(int(first or 0), int(last or first or 0) + 1)
        if not 1 <= values.stop - values.start <= MAX_SEEDS:  # `len` of huge ranges overflows
            raise ValueError
        seeds |= dict.fromkeys(values)
    return tuple(seeds)


def parse_tile(text: str) -> int | str:
    """The side of blocks in pixels, "auto" or "off"."""
    if text in ("auto", "off"):
        return text
    (side,) = _match(r"([1-9]\d*)", text)
    return int(side or 0)


def parse_sides(text: str) -> tuple[int, ...]:
    """Pixels at the left, top, right and bottom."""
    return tuple(int(side or 0) for side in _match(r"(\d+),(\d+),(\d+),(\d+)", text))


def parse_sigma(text: str) -> float | str:
    """A standard deviation in gray levels, or "auto"."""
    sigma = 0.0 if text == "auto" else float(text)
    if text != "auto" and not 0 < sigma < 256:
        raise ValueError
    return sigma or text


def parse_count(text: str) -> int:
    """A number of threads or processes."""
    (count,) = _match(r"([1-9]\d{0,3})", text)
    return int(count or 0)


def parse_point(text: str) -> tuple[int, int]:
    """(x, y) in pixels from the upper left."""
    x, y = _match(r"(\d+),(\d+)", text)
    return int(x or 0), int(y or 0)


def parse_assignment(text: str) -> tuple[str, str]:
    """(key, value) from "KEY=VALUE"."""
    key, value = _match(r"\s*([\w-]+)\s*=\s*(.*?)\s*", text)
    return (key or "").replace("-", "_"), value or ""


KINDS: dict[str, click.ParamType] = {  # type: ignore[type-arg]
    "file": Kind("FILE", str, "a file"),
    "input": InputFile(),
    "folder": Kind("FOLDER", str, "a folder"),
    "size": Kind("WIDTHxHEIGHT", parse_size, "a size such as 512 or 640x480"),
    "sample size": Kind(
        "WIDTHxHEIGHT|auto", parse_sample_size, "a size such as 512 or 640x480, or auto"
    ),
    "time": Kind("TIME", parse_time, "a time such as 90s, 5m or 1.5h, more than 0"),
    "extension": Kind("N|TIME", parse_extension, "iterations, as 500, or a time, as 2m"),
    "seeds": Kind("N,N-N", parse_seeds, "seeds such as 5 or 0,3-7, rising"),
    "tile": Kind("auto|off|N", parse_tile, "auto, off or a number of pixels, as 1024"),
    "sides": Kind(
        "LEFT,TOP,RIGHT,BOTTOM",
        parse_sides,
        "LEFT,TOP,RIGHT,BOTTOM in pixels with commas, no spaces, as 0,0,256,0",
    ),
    "sigma": Kind("auto|SIGMA", parse_sigma, "auto or gray levels, more than 0, as 12.5"),
    "count": Kind("N", parse_count, "a number from 1 to 9999"),
    "point": Kind("X,Y", parse_point, "X,Y in pixels from the upper left, as 120,80"),
    "assignment": Kind("KEY=VALUE", parse_assignment, "KEY=VALUE, as crop=96"),
    "preset": Choice(PRESET_NOTES),
}


class GroupedOption(click.Option):
    """An option that the help shows under the heading of its group."""

    def __init__(self, *args: Any, group: str = "Other", **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


def grouped(group: str, *flags: str, **about: Any) -> Callable[[F], F]:
    """`click.option` for a group of the help."""
    return click.option(*flags, cls=GroupedOption, group=group, **about)


def options_of(kind: type) -> Callable[[F], F]:
    """A Click option for every field of a dataclass that `gcn_cli.options.option` made."""

    def decorate(command: F) -> F:
        for spec in reversed(dataclasses.fields(kind)):
            if "group" in spec.metadata:
                command = _click_option(spec)(command)
        return command

    return decorate


def collect(kind: Callable[..., T], given: dict[str, Any], **more: Any) -> T:
    """An object of an option class from a command's parameters, which are taken from `given`."""
    names = [spec.name for spec in dataclasses.fields(kind)]  # type: ignore[arg-type]
    taken = {name: given.pop(name) for name in names if name in given}
    return kind(**taken | more)


def _click_option(spec: dataclasses.Field[Any]) -> Callable[[F], F]:
    about, default = spec.metadata, spec.default
    inner: Any = spec.type
    if get_origin(inner) in (Union, types.UnionType):  # X | None
        inner = next(kind for kind in get_args(inner) if kind is not type(None))
    more: dict[str, Any] = {"default": default, "help": about["help"]}
    if about["kind"] is not None:
        more |= {"type": KINDS[about["kind"]], "multiple": default == ()}
    elif inner is bool:
        more |= {"is_flag": True}
    elif get_origin(inner) is Literal:
        more |= {"type": Choice(get_args(inner))}
    elif inner in (int, float):
        more |= {"type": inner, "metavar": "N" if inner is int else "X"}
    if about["metavar"] is not None:
        more["metavar"] = about["metavar"]
    if default not in (None, False, ()) and "[default" not in about["help"]:
        shown = f"{default:g}{'s' * (about['kind'] == 'time')}" if inner is float else default
        more["help"] += f"  [default: {shown}]"
    flags = about["flags"] or (flag_of(spec),)
    return grouped(about["group"], *flags, spec.name, **more)


def typed_arguments(ctx: click.Context, without: Iterable[str] = ()) -> list[str]:
    """What was typed after the name of the command: arguments, then options in the order of help.

    `without`: names of parameters that are left out.
    """
    values, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["gcn.arguments"]))
    words: list[str] = []
    for param in sorted(ctx.command.params, key=lambda param: isinstance(param, click.Option)):
        value = values.get(param.name or "")
        if not isinstance(value, str | bool | list | tuple) or param.name in without:
            continue  # not typed
        for text in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(param, click.Option):
                words.append(str(text))
            elif param.is_flag:
                words.append(param.opts[-1] if text else param.secondary_opts[0])
            else:
                words += [param.opts[-1], str(text)]
    return words


def typed_command(ctx: click.Context) -> str:
    """The command as typed, for metadata: paths without their folders, at most 500 characters."""
    from gcn_cli.images.provenance import without_folders

    words = ["=".join(map(without_folders, word.split("="))) for word in typed_arguments(ctx)]
    text = shlex.join(["gcn", ctx.info_name or "", *words])
    return text if len(text) <= LONGEST_COMMAND else f"{text[: LONGEST_COMMAND - 4]} ..."


def setting_option(name: str, group: str) -> Callable[[F], F]:
    """An option for one setting of a training; its text is parsed with all other settings."""
    spec, flag = SETTINGS[name], option_name(name)
    about = spec.metadata["help"]
    if spec.type is bool:
        return grouped(group, f"{flag}/--no-{flag[2:]}", name, default=None, help=about)
    if spec.default is not None:
        about += f"  [default: {spec.default}]"
    words = "|".join(spec.metadata.get("choices", ()))
    metavar = words or ("LATTICE" if name == "pattern" else "N")
    return grouped(group, flag, name, metavar=metavar, help=about)


def merge_settings(
    assignments: Iterable[tuple[str, str]], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a training from --set, the last of each key, and from their own options.

    `named` are the latter, None where not given. Raises InputError for an unknown key, and for one
    that is given in both ways.
    """
    settings = {name: value for name, value in named.items() if value is not None}
    for key, value in assignments:
        check_names("--set", [key])
        if named.get(key) is not None:
            raise InputError(f"--set {key}={value}: is given as {option_name(key)} too; give one")
        settings[key] = value
    return settings


def set_option(text: str, group: str = "Training") -> Callable[[F], F]:
    """--set KEY=VALUE, which may be repeated; the command gets `assignments`."""
    return grouped(
        group, "--set", "assignments", type=KINDS["assignment"], multiple=True, help=text
    )


def combined(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def device_option(default: str) -> Callable[[F], F]:
    """--device."""
    about = f"auto, cpu, gpu, cuda:1 or mps.  [default: {default}]"
    return grouped("Hardware", "--device", default=default, metavar="NAME", help=about)


threads_option: Callable[[F], F] = grouped(
    "Hardware", "--threads", type=KINDS["count"],
    help="CPU threads.  [default: the free cores, at least half]",
)  # fmt: skip
hardware_options: Callable[[F], F] = combined(
    device_option("auto"),
    grouped(
        "Hardware", "--precision", type=Choice(["auto", "float32", "bf16"]), default="auto",
        help="Number format of feature maps; auto takes bf16 where it is fast.  [default: auto]",
    ),
    threads_option,
)  # fmt: skip
"""--device, --precision and --threads."""


def _set_level(ctx: click.Context, _: click.Parameter, quiet: bool | None) -> None:
    given = set(ctx.meta.get("gcn.arguments", ()))
    if given & {"-q", "--quiet"} and given & {"-v", "--verbose"}:
        raise click.UsageError("--quiet, --verbose: give one of them")
    if quiet is not None:
        logging.getLogger("gcn_cli").setLevel(logging.ERROR if quiet else logging.DEBUG)


output_options: Callable[[F], F] = combined(
    grouped(
        "Output format", "--json", "as_json", is_flag=True,
        help="Print one JSON object to stdout at the end.",
    ),
    grouped(
        "Output format", "-q/-v", "--quiet/--verbose", default=None, expose_value=False,
        callback=_set_level,
        help="Print errors only, or saved files and warnings of libraries too.",
    ),
)  # fmt: skip
"""--json, -q and -v."""

model_option: Callable[[F], F] = grouped(
    "Input",
    "-m",
    "--model",
    metavar="RUN",
    help="Run folder, model file, or name of a run in runs/.  [default: the newest]",
)
overwrite_option: Callable[[F], F] = grouped(
    "Output", "--overwrite", is_flag=True, help="Replace files that exist."
)
dry_run_option: Callable[[F], F] = grouped(
    "Output",
    "--dry-run",
    is_flag=True,
    help="Write nothing; print all settings, and the time and memory to expect.",
)

PADDING_MODES = "|".join(SETTINGS["padding_mode"].metadata["choices"])
REMOVED = {
    "train": {"--size": "--resize N", "--with": "--map FILE"},
    "synthesize": {
        "--with": "--map FILE",
        "--seeds": "--seed 0,3-7",
        "--preview-tiled": "--sheet FILE",
        "--level": "--noise-level X",
        "--exemplar": "--set exemplar=FILE",
        "--step-size": "--set step_size=X",
        "--noise": "--set noise=true",
        "--no-noise": "--set noise=false",
        "--lattice": f"--set padding_mode={PADDING_MODES}",
        "--padding-mode": f"--set padding_mode={PADDING_MODES}",
    },
    "reconstruct": {
        "--with": "--map FILE",
        "--extend": "--outpaint LEFT,TOP,RIGHT,BOTTOM",
        "--level": "--noise-level X",
    },
    "inspect": {
        "--picture": "gcn inspect image IMAGE",
        "--report": "gcn inspect report FOLDER",
        "--levels": "gcn inspect levels",
        "--compare": "gcn inspect compare IMAGE RUN RUN...",
        "--map": "gcn inspect image IMAGE --unusual FILE, or a folder of linked maps as IMAGE",
        "--at": "gcn inspect image IMAGE --at X,Y --filters FILE",
        "--filters": "gcn inspect filters FILE",
        "--level": "gcn inspect image IMAGE --noise-level X",
    },
}
"""Options of earlier versions, and what replaces them."""
GUESSES = {
    "--width": ("--size", "--resize"),
    "--height": ("--size", "--resize"),
    "--resolution": ("--size", "--resize"),
    "--sigma": ("--denoise",),
    "--epochs": ("--iterations",),
    "--out": ("--output",),
    "--number": ("--count",),
    "--samples": ("--count",),
    "--gpu": ("--device",),
    "--force": ("--overwrite",),
}
"""Options that a person may expect, and the options meant: the first that a command has."""


def replacement(command: str, flag: str) -> str | None:
    """What replaces an option of an earlier version; None for one that never was."""
    if flag in REMOVED.get(command, {}):
        return REMOVED[command][flag]
    name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    name = RENAMED.get(name, name)
    if name not in SETTINGS or name in OWN_OPTIONS:
        return None
    placeholders: dict[Any, str] = {
        bool: str(not flag.startswith("--no-")).lower(),
        int: "N",
        int | None: "N",
        float: "X",
        PaddingMode: PADDING_MODES,
    }
    option = f"--set {name}={placeholders.get(SETTINGS[name].type, '...')}"
    return option if command == "train" else f"gcn train {option}"


class GroupedCommand(click.Command):
    """A command that prints its options by group, and names the successors of removed ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:  # --help goes with the last group
                group = getattr(param, "group", next(reversed(groups), "Options"))
                groups.setdefault(group, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=26)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["gcn.arguments"] = list(args)  # for --each, which repeats them
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag, command = error.option_name, ctx.command_path.split()[1]
            known = {name for param in self.params for name in param.opts}
            guesses = [guess for guess in GUESSES.get(flag, ()) if guess in known]
            if guesses:
                raise click.UsageError(
                    f"No such option: {flag}; did you mean {guesses[0]}?", ctx
                ) from error
            new = replacement(command, flag)
            if new is None:
                raise
            raise click.UsageError(f"{flag}: is now {new}", ctx) from error
