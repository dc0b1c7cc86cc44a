"""Quality of what `gcn synthesize` makes: what it is measured by, the best of several, in sum."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images import open_picture
from gcn_cli.quality import SMALLEST, Yardstick
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


def refuse_ungradable(tries: int, size: tuple[int, int]) -> None:
    """Raise InputError where samples of `size` (width, height) are too small to choose among."""
    if min(size) < SMALLEST:
        raise InputError(
            f"--best-of {tries}: samples of {size[0]}x{size[1]} pixels are too small to grade; "
            f"give a --size of {SMALLEST} a side or more, or leave --best-of out"
        )


def best_of(
    tries: int,
    pictures: Iterator[Tensor],
    loaded: Model,
    by: Yardstick,
    grades: list[dict[str, float] | None],
) -> Iterator[Tensor]:
    """The best of every so many pictures (C, H, W); what each was graded goes to `grades`.

    None is the grade of a picture that is too small for it. Raises InputError where there are
    several of that size to choose among.
    """
    while tried := list(islice(pictures, 1)):
        height, width = tried[0].shape[1:]
        if min(height, width) < SMALLEST:
            if tries > 1:  # a picture to start from may be small, whatever the model's size is
                refuse_ungradable(tries, (width, height))
            grades.append(None)
            yield tried[0]
            continue
        tried += islice(pictures, tries - 1)
        graded = [by.measure(one[: loaded.maps[0].channels]) for one in tried]
        best = min(range(len(tried)), key=lambda place: graded[place]["quality"])
        grades.append(graded[best])
        yield tried[best]


def told_of_all(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The quality of all files in the median, where it was measured; that of each is rounded.

    It is None where all files are too small to grade.
    """
    graded = [one for one in files if "quality" in one]
    grades = [one["quality"] for one in graded if one["quality"] is not None]
    for one in graded:
        one["quality"] = None if one["quality"] is None else rounded(one["quality"])
    if not graded:
        return {}
    return {"quality": rounded(median(grades)) if grades else None}
