"""Config values: their rules, and how they are written in an option, a file or a checkpoint."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, cast

from gcn_cli.errors import InputError
from gcn_cli.model.spec import Lattice, LayerSpec, parse_layers


def value(default: Any, text: str, **rule: Any) -> Any:
    """A dataclass field with its help; `low`, `above`, `high`, `choices` are rules to keep."""
    return field(default=default, metadata={"help": text, **rule})


def option_name(field_name: str) -> str:
    """learning_rate -> --learning-rate."""
    return "--" + field_name.replace("_", "-")


def check(name: str, given: Any, rule: Mapping[str, Any]) -> None:
    """Raise InputError where a value breaks a rule of its field."""
    option = option_name(name)
    if "choices" in rule and given not in rule["choices"]:
        raise InputError(f"{option} {given}: must be one of {', '.join(map(str, rule['choices']))}")
    if given is None:
        return
    if "low" in rule and given < rule["low"]:
        raise InputError(f"{option} {given}: must be {rule['low']} or more")
    if "above" in rule and not given > rule["above"]:
        raise InputError(f"{option} {given}: must be more than {rule['above']}")
    if "high" in rule and not given <= rule["high"]:
        raise InputError(f"{option} {given}: must be {rule['high']} or less")


def parse(name: str, kind: Any, written: Any) -> Any:
    """A written value in its field's own type. Raises InputError where it is none."""
    try:
        return _typed(name, kind, written)
    except (TypeError, ValueError) as error:
        raise InputError(f"{option_name(name)} {written}: {error}") from error


def as_written(name: str, given: Any) -> str | None:
    """What `parse` makes a value of; None: it is left open by leaving the option out."""
    if given is not None:
        return ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
    if name in _NEVER_ZERO:
        return None
    return "own" if name == "mean_color" else "0"


def _typed(name: str, kind: Any, written: Any) -> Any:
    if name in _WRITTEN:
        return _WRITTEN[name](written)
    if isinstance(written, bool) != (kind is bool):
        raise ValueError("must be true or false" if kind is bool else "must be a number")
    if kind in (int, int | None):
        number = None if written is None else _number(written, int, "a whole number")
        left_open = number == 0 and kind == (int | None) and name not in _NEVER_ZERO
        return None if left_open else number
    if kind is float:
        return _number(written, float, "a number")
    return {bool: bool, str: str}[cast(Any, kind)](written)


def _number(written: Any, kind: type[int] | type[float], words: str) -> Any:
    """A number of a kind; a whole one may be written 12.0, not 1.5."""
    try:
        found = kind(written)
        if not isinstance(written, str) and found != written:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"must be {words}") from error
    return found


def _mean_color(written: Any) -> tuple[float, ...] | None:
    if written is None or written == "own":
        return None
    parts = written if isinstance(written, list | tuple) else str(written).split(",")
    return tuple(float(part) for part in parts)


def _layers(written: Any) -> tuple[LayerSpec, ...]:
    return written if isinstance(written, tuple) else parse_layers(str(written))


_NEVER_ZERO = {"iterations"}  # left open by leaving it out: 0 would say that there are none

_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "layers": _layers,
    "mean_color": _mean_color,
    "lattice": Lattice,
}


def read_file(path: str) -> dict[str, Any]:
    """A TOML file of config values, flat. Raises InputError with the place of an error."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not a TOML file: {error}") from error
