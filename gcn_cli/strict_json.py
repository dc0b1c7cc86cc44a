"""JSON by its standard, which has no Infinity and no NaN: such numbers become null."""

import json
import math
from typing import Any


def dumps(values: Any, indent: int | None = None) -> str:
    """Plain values as JSON; numbers that are not finite are null."""
    return json.dumps(finite(values), indent=indent, allow_nan=False)


def finite(values: Any, replaced: dict[str, str] | None = None, place: str = "") -> Any:
    """Plain values with None in place of numbers that are not finite.

    `replaced` gets the place of each, as "files.0.psnr_db", and what it was.
    """
    if isinstance(values, dict):
        prefix = f"{place}." if place else ""
        return {key: finite(value, replaced, f"{prefix}{key}") for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value, replaced, f"{place}.{k}") for k, value in enumerate(values)]
    if not isinstance(values, float) or math.isfinite(values):
        return values
    if replaced is not None:
        sign = "-" if values < 0 else ""
        replaced[place] = "not a number" if math.isnan(values) else f"{sign}infinity"
    return None
