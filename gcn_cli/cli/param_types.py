"""What an option's value may be: durations, sizes, seeds, sides, levels of noise, as text."""

import re
from typing import Any, cast

import click

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
    """A deviation in grey levels, or "auto"."""

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
            self.fail(f"{value!r} is not auto or grey levels, more than 0, as 12.5", param, ctx)
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
