"""Pictures to their paths as they come, and the paths to stdout."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
from torch import Tensor

from gcn_cli import images, quality


def write_all(
    paths: Iterable[str], pictures: Iterable[Tensor], seed: int, *, as_json: bool
) -> None:
    """Every picture to its path, and the path to stdout unless the picture went there."""
    for number, (target, picture) in enumerate(zip(paths, pictures, strict=True)):
        images.write(picture, target)
        if target != "-":
            height, width = picture.shape[1:]
            record = {"path": target, "seed": seed, "number": number}
            record |= {"width": width, "height": height}
            record |= dict(zip(("seam_x", "seam_y"), quality.seams(picture), strict=True))
            click.echo(json.dumps(record) if as_json else str(Path(target)))
