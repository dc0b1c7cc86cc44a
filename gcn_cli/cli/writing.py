"""Pictures to their paths as they come, and the paths to stdout."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
from torch import Tensor

from gcn_cli import images, quality
from gcn_cli.runs.folder import Target


def write_all(targets: Iterable[Target], pictures: Iterable[Tensor], *, as_json: bool) -> None:
    """Every picture to its path, and the path to stdout unless the picture went there."""
    for target, picture in zip(targets, pictures, strict=True):
        images.write(picture, target.path)
        if target.path != "-":
            height, width = picture.shape[1:]
            record = {"path": target.path, "seed": target.seed, "number": target.number}
            record |= {"width": width, "height": height}
            record |= dict(zip(("seam_x", "seam_y"), quality.seams(picture), strict=True))
            click.echo(json.dumps(record) if as_json else str(Path(target.path)))
