"""Where a picture is unlike what a model learned: its energy, place by place, and the exemplar's.

An energy means something beside another only. So a pixel's, averaged over what lies about it, is
said in deviations of the same over the picture that the model learned from.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.errors import InputError
from gcn_cli.model.energy import GenerativeModel
from gcn_cli.runs.checkpoint import Checkpoint
from gcn_cli.runs.grading import kept_exemplar
from gcn_cli.runs.pictures import Linked
from gcn_cli.runs.reconstruction import fitted, fitted_to_scale

ABOUT = 17  # pixels a side that are averaged over: a filter's energy lies about its middle
LIMIT = 4.0  # deviations from which a place counts as unusual


class Unusual(NamedTuple):
    """Deviations of the energy from the exemplar's own, (H, W), and what to say of them.

    (H, W) are those of the picture as the model sees it, which may be smaller than the one given.
    """

    deviations: Tensor
    share: float  # of the pixels above LIMIT
    most: float
    place: tuple[int, int]  # (x, y) of the most unusual pixel, in the picture as given


@torch.no_grad()
def unusual(
    loaded: Checkpoint,
    run: Path | None,
    density: GenerativeModel,
    picture: Linked,
    level: float | None = None,
) -> Unusual:
    """Every place of a picture, as the model sees pictures, beside the exemplar of its run.

    `level` is that of the density. Raises InputError where the run keeps no exemplar, or one that
    is only a part of what was learned.
    """
    kept = kept_exemplar(run)
    if kept is None:
        raise InputError("--map: the run keeps no exemplar to compare with; train it again")
    if len(loaded.maps) > 1:
        raise InputError("--map: of linked maps the run keeps the first only; one map is needed")
    own = _energies(density, loaded.seen(fitted(loaded, kept, level)))
    pixels, scale = fitted_to_scale(loaded, picture, level)
    here = _energies(density, loaded.seen(pixels))
    deviations = (here - own.mean()) / own.std()
    most = int(deviations.argmax())
    width = deviations.shape[1]
    share = float((deviations > LIMIT).float().mean())
    place = scale.outward((most % width, most // width))
    return Unusual(deviations, share, float(deviations.max()), place)


def _energies(density: GenerativeModel, x: Tensor) -> Tensor:
    """Energy of every pixel in the mean over its surroundings, (H, W)."""
    found = density.energy_map(x)
    side = min(ABOUT, *(2 * length - 1 for length in found.shape[1:]))
    edges = (side // 2,) * 4
    return F.avg_pool2d(F.pad(found[:, None], edges, mode="reflect"), side, stride=1)[0, 0].cpu()
