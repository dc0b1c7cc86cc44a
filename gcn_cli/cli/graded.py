"""Quality of what `gcn synthesize` makes: what it is measured by, the best of several, in sum."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images import open_picture
from gcn_cli.quality import Yardstick
from gcn_cli.runs.grading import median, rounded
from gcn_cli.runs.library import Model


def yardstick(loaded: Model, exemplar: str | None, *, needed: bool) -> Yardstick | None:
    """What pictures are measured by: an exemplar's file, or what the run keeps.

    None where there is nothing to measure by, as of an object's model or a file that came without
    its run. Raises InputError in its place where it is `needed`.
    """
    try:
        return loaded.yardstick(None if exemplar is None else open_picture(exemplar))
    except InputError:
        if needed:
            raise
        return None


def best_of(
    tries: int,
    pictures: Iterator[Tensor],
    loaded: Model,
    by: Yardstick,
    grades: list[dict[str, float]],
) -> Iterator[Tensor]:
    """The best of every so many pictures (C, H, W); what each was graded goes to `grades`."""
    while tried := list(islice(pictures, tries)):
        graded = [by.measure(one[: loaded.maps[0].channels]) for one in tried]
        best = min(range(len(tried)), key=lambda place: graded[place]["quality"])
        grades.append(graded[best])
        yield tried[best]


def told_of_all(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The quality of all files in the median, where it was measured; that of each is rounded."""
    grades = [one["quality"] for one in files if "quality" in one]
    for one in files:
        if "quality" in one:
            one["quality"] = rounded(one["quality"])
    return {"quality": rounded(median(grades))} if grades else {}
