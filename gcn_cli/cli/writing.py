"""Pictures to their paths as they come, and the paths to stdout."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from gcn_cli import images, quality
from gcn_cli.images import BANDS, Map
from gcn_cli.images.writing import TakenError
from gcn_cli.runs.folder import Target, map_path, next_target


def write_all(
    targets: Iterable[Target],
    pictures: Iterable[Tensor],
    maps: Iterable[Sequence[Map]],
    *,
    as_json: bool,
    overwrite: bool,
    grades: Sequence[dict[str, float] | None] | None = None,
) -> list[dict[str, Any]]:
    """Every picture to its path, and the path to stdout unless --json or the picture goes there.

    `maps` are those of each picture; of linked ones each has a file of its own. `grades` grows with
    the pictures. Without `overwrite` no file is replaced that came meanwhile: a default name gives
    way to the next free one, for others TakenError is raised. Returns what there is to say of every
    file.
    """
    records: list[dict[str, Any]] = []
    for place, (target, picture, own) in enumerate(zip(targets, pictures, maps, strict=False)):
        across, down = quality.seams(picture)
        parts = images.split(picture, own)
        paths = _written(target, parts, own, overwrite=overwrite)
        for one, part, path in zip(own, parts, paths, strict=True):
            if path == "-":
                continue
            height, width = part.shape[1:]
            record: dict[str, Any] = {"path": path, "seed": target.seed, "number": target.number}
            record |= {"map": one.name} if one.name else {}
            record |= {"width": width, "height": height, "seam_x": across, "seam_y": down}
            if grades is not None:
                record["quality"] = grades[place]
            records.append(record)
            if not as_json:
                click.echo(path)
    return records


def _written(
    target: Target, parts: Sequence[Tensor], maps: Sequence[Map], *, overwrite: bool
) -> list[str]:
    """The paths of a picture's linked maps, written under one name, all of them or none."""
    new = target.default or not overwrite
    paths: list[str] = []
    try:
        for one, part in zip(maps, parts, strict=True):
            path = target.path if target.path == "-" else str(map_path(target.path, one.name))
            images.write(part, path, one.depth, one.profile, new=new)
            paths.append(path)
    except TakenError:
        for path in paths:  # of this picture alone, as they were new
            Path(path).unlink(missing_ok=True)
        if not target.default:
            raise
        return _written(next_target(target), parts, maps, overwrite=overwrite)
    return paths


def as_files(maps: Sequence[Map], rasters: Sequence[images.Raster], *, bare: bool) -> list[Map]:
    """Maps that are written as the files they came from: bands, depth and profile.

    `bare` leaves transparency out that a model does not know.
    """
    return [
        Map(
            one.name,
            _bands(one.bands, raster.bands, bare=bare),
            16 if raster.depth == 16 else 8,
            profile=raster.profile,
        )
        for one, raster in zip(maps, rasters, strict=True)
    ]


def _bands(known: str, given: str, *, bare: bool) -> str:
    clear = known.endswith("A") or (given.endswith("A") and not bare)
    bands = given.rstrip("A") + ("A" if clear else "")
    assert bands in BANDS
    return bands
