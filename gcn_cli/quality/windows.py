"""Nearest neighbours: are things whole and in their places, and were they copied?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.quality.crops import mean_ratio, squared
from gcn_cli.quality.features import Seen, halved

CELLS = 4  # a side, of a window's description
STEP = 8  # pixels from one window of the exemplar to the next
SIDES = (48, 80)
PATCH = 8  # pixels a side of a patch that may be a copy, of pictures at half their size
NEAR = 0.35  # of the usual distance to the nearest: from here a patch is a copy
MOST = 600  # patches that are looked for


def structure(exemplar: Seen, sample: Seen) -> float:
    """Distance of windows of a sample to the nearest of the exemplar, layout and all, over its own.

    Its own are windows of the exemplar and the nearest that do not overlap them. 1 is as whole as
    another part; more, things are broken or merged; under 1, copied. NaN for small pictures.
    """
    found = []
    for side in SIDES:
        if min(*exemplar.size, *sample.size) < 2 * side:
            continue
        real, made = _described(exemplar, side), _described(sample, side)
        found += [_fidelity(a, b, side) for a, b in zip(real, made, strict=True)]
    return mean_ratio(found) if found else float("nan")


def _described(picture: Seen, side: int) -> list[Tensor]:
    """Windows on a grid, (rows, columns, values) a map: its means in CELLS x CELLS parts."""
    found = []
    tops, lefts = (range(0, length - side + 1, STEP) for length in picture.size)
    for stride, maps in picture.by_stride():
        cell = max(1, side // CELLS // stride)
        pooled = F.avg_pool2d(maps, cell, 1)[0]
        reach = min(side // stride, min(maps.shape[2:]) - 1) - cell
        places = [round(k * reach / (CELLS - 1)) for k in range(CELLS)]
        rows = [min(top // stride, pooled.shape[1] - 1 - reach) for top in tops]
        columns = [min(left // stride, pooled.shape[2] - 1 - reach) for left in lefts]
        cells = [
            pooled[:, [row + down for row in rows]][:, :, [one + over for one in columns]]
            for down in places
            for over in places
        ]
        found.append(torch.cat(cells).permute(1, 2, 0))
    return found


def _fidelity(real: Tensor, made: Tensor, side: int) -> float:
    """Mean distance to the nearest of as many candidates, made windows over real ones."""
    rows, columns = real.shape[:2]
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    at = torch.stack(grid, dim=-1).flatten(0, 1)
    scale = real.flatten(0, 1).std(dim=0) + 1e-6
    flat = real.flatten(0, 1) / scale
    asked = ((at % 2) == 0).all(dim=1).nonzero()[:, 0]
    apart = (at[asked, None] - at[None]).abs().amax(dim=2) * STEP >= side
    asked, apart = asked[apart.any(dim=1)], apart[apart.any(dim=1)]
    own = squared(flat[asked], flat).masked_fill(~apart, torch.inf).amin(dim=1).sqrt()
    candidates = int(apart.sum(dim=1).float().mean())
    queries = made[::2, ::2].flatten(0, 1) / scale
    chosen = torch.linspace(0, len(flat) - 1, candidates).long()
    theirs = squared(queries, flat[chosen]).amin(dim=1).sqrt()
    return float(theirs.mean() / own.mean())


class Originals:
    """An exemplar's patches, which a sample's may be copies of."""

    def __init__(self, exemplar: Tensor) -> None:
        """`exemplar` is (C, H, W); how like its own parts are is found once."""
        self.real = _half(exemplar)
        own, moves, shape = _nearest(self.real, self.real, apart=PATCH)
        self.near = NEAR * own.median().clamp_min(1e-6)
        self.repeated = float((own < self.near).float().mean())
        self.coherent = _coherent(moves, shape)

    def copying(self, sample: Tensor) -> tuple[float, float]:
        """Share of patches that are copies, and of neighbours that come from the same place.

        Both over what the exemplar itself shows of other parts of it, subtracted: 0 is nothing
        copied.
        """
        distances, moves, shape = _nearest(_half(sample), self.real, apart=0)
        copied = float((distances < self.near).float().mean())
        coherent = _coherent(moves, shape)
        return max(0.0, copied - self.repeated), max(0.0, coherent - self.coherent)

    def origins(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Where the nearest patch lies, as colours (3, H, W) in 0..255; how far it is, (H, W).

        Of every patch on a grid, enlarged to the sample's size; distances in grey levels.
        """
        made = _half(sample)
        distances, moves, shape = _nearest(made, self.real, apart=0)
        steps = [torch.linspace(0, 1, count) for count in shape]
        at = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        there = at * _room(made) + moves.view(*shape, 2)
        share = there / _room(self.real).clamp_min(1)
        middle = torch.full(shape, 0.5)
        colours = torch.stack([share[..., 1], share[..., 0], middle]).clamp(0, 1) * 255
        both = torch.cat([colours, distances.view(1, *shape) / PATCH])
        large = F.interpolate(both[None], size=sample.shape[1:], mode="nearest")[0]
        return large[:3], large[3]


def _half(picture: Tensor) -> Tensor:
    return halved(picture[None])[0]


def _room(picture: Tensor) -> Tensor:
    """Places of a patch down and across a picture (C, H, W), less one."""
    return torch.tensor([side - PATCH for side in picture.shape[1:]])


def _nearest(
    sample: Tensor, exemplar: Tensor, apart: int
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Of patches on a grid: distance to the nearest of the exemplar, how far it lies, the grid.

    With `apart` the pictures are one, and the nearest is to be so far from the patch itself.
    """
    step = PATCH // 2
    while (sample.shape[1] // step) * (sample.shape[2] // step) > MOST:
        step += 1
    rows, columns = (range(0, length - PATCH + 1, step) for length in sample.shape[1:])
    at = torch.tensor([(row, column) for row in rows for column in columns])
    asked = torch.stack([sample[:, r : r + PATCH, c : c + PATCH] for r, c in at.tolist()])
    known = F.unfold(exemplar[None], PATCH)[0].T  # (places, values)
    width = exemplar.shape[2] - PATCH + 1
    place = torch.arange(len(known))
    where = torch.stack([place // width, place % width], dim=1)
    distances, moves = [], []
    for first in range(0, len(at), 64):
        some, own = asked[first : first + 64].flatten(1), at[first : first + 64]
        found = squared(some, known)
        if apart:
            near = (own[:, None] - where[None]).abs().amax(dim=2) < apart
            found = found.masked_fill(near, torch.inf)
        best = found.min(dim=1)
        distances.append(best.values.sqrt())
        moves.append(where[best.indices] - own)
    return torch.cat(distances), torch.cat(moves), (len(rows), len(columns))


def _coherent(moves: Tensor, shape: tuple[int, int]) -> float:
    """Share of neighbours on a grid whose nearest lie in the same place next to one another."""
    grid = moves.view(*shape, 2)
    pairs = [(grid[1:] - grid[:-1]).flatten(0, 1), (grid[:, 1:] - grid[:, :-1]).flatten(0, 1)]
    same = torch.cat([(pair.abs().amax(dim=1) <= 1) for pair in pairs])
    return float(same.float().mean()) if len(same) else 0.0
