"""What repeats itself exactly in a regular texture: its cell, the mean over all repetitions.

Courses, tiles and grids have power in a few waves, the lines of the spectrum, an order of magnitude
above what lies about them, in phase from one end of a picture to the other. Filters see no further
than their field: each place would put a grid where it likes. The mean of the picture over its
periods has the phases of all lines at once,

    m(y, x) = sum over i, j of cell_ij phi_i(y / p) phi_j(x / q),

phi being 1 and sqrt(2) times cos and sin of 2 pi n times the place, p and q the periods down and
across, so that a chain can be told where the pattern lies (`sampling/pattern.py`). What differs
from one repetition to the next is not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.model.period import Periods, period

LINE = 80.0  # times the median about it: irregular textures have no wave of more than 50
SHOULDER = 8.0  # times it: beside a line, a part of it
LONGEST = 4  # waves in the picture, which have too few about them to be told
ABOUT = 13  # waves a side of which the median is taken
LEAST_SHARE = 0.05  # of the power, in lines
LEAST_HELD = 0.5  # of the lines' power that repeats itself exactly, or courses bend in the exemplar
LARGEST = 1024  # pixels a side that are looked at: enough for any pattern that a model can follow
STRIP = 2**15  # waves whose surroundings are laid out at a time: 22 MB
SHORTEST_WAVE = 4.0  # pixels: shorter ones are left to the model
MULTIPLES = (1, 2, 3)  # of the first period that are tried: courses are moved by half a brick
AS_GOOD = 0.95  # of the power that the best cell holds


@dataclass(frozen=True)
class Pattern:
    """A cell, its mean 0, and its periods; one is None where nothing changes that way.

    `spread` is the power of what differs from one repetition to the next: the variance of an
    orthonormal wave of the pattern about what the cell says. Both are (C, I, J).
    """

    periods: Periods
    cell: Tensor
    spread: Tensor


def find_pattern(pictures: Sequence[Tensor]) -> Pattern | None:
    """The pattern of pictures (C, H, W) of one texture; None where they have not all the same one.

    Holes (NaN) are taken for the mean colour.
    """
    whole = [_without_holes(picture) for picture in pictures]
    found = [_pattern(picture) for picture in whole]
    first = found[0]
    if first is None or any(one is None or one.periods != first.periods for one in found):
        return None
    return first


def basis(periods: Periods, axis: int, places: Tensor) -> Tensor:
    """phi of an axis at places in pixels (n,): (I, n). Only 1 where the axis has no period."""
    repeats = periods[axis]
    if repeats is None:
        return torch.ones_like(places)[None]
    waves = torch.arange(1, max(1, int(repeats / SHORTEST_WAVE)) + 1).to(places)
    return torch.cat([torch.ones_like(places)[None], _turning(waves / repeats, places)])


def _turning(waves: Tensor, places: Tensor) -> Tensor:
    """sqrt(2) cos and sin of waves (n,) in cycles a pixel at places, in turns: (2 n, places)."""
    angles = 2 * math.pi * waves[:, None] * places
    return math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1).flatten(0, 1)


def _without_holes(picture: Tensor) -> Tensor:
    mean = picture.nanmean(dim=(1, 2), keepdim=True)
    return torch.where(picture.isnan(), 0.0, picture - mean).cpu()


def _pattern(picture: Tensor) -> Pattern | None:
    """Of one picture (C, H, W) of mean 0, its first LARGEST pixels down and across."""
    picture = picture[:, :LARGEST, :LARGEST]
    if min(picture.shape[1:]) < ABOUT:
        return None
    lines, share = _lines(picture)
    if share < LEAST_SHARE:
        return None
    down, across = (period(lines, axis) for axis in (1, 2))
    tried = [
        (_times(down, i), _times(across, j))
        for i in (MULTIPLES if down else (1,))
        for j in (MULTIPLES if across else (1,))
    ]
    cells = [_cell(lines, periods) for periods in tried if _seen_twice(lines, periods)]
    power = float(lines.square().mean(dim=(1, 2)).sum())
    held = [float(one.cell.square().sum()) / power for one in cells]
    if not held or max(held) < LEAST_HELD:
        return None
    chosen = next(one for one, own in zip(cells, held, strict=True) if own >= AS_GOOD * max(held))
    return _cell(picture, _other_way_too(lines, chosen).periods)


def _other_way_too(lines: Tensor, found: Pattern) -> Pattern:
    """With the period of the other axis, where only what the first one leaves shows it.

    Of tiles that are long and narrow the joints across are few, and those down outdo them.
    """
    if None not in found.periods:
        return found
    up, along = (
        basis(found.periods, axis, torch.arange(side).to(lines))
        for axis, side in enumerate(lines.shape[1:])
    )
    rest = lines - up.T @ found.cell @ along
    axis = found.periods.index(None)
    repeats = period(rest, axis + 1)
    if repeats is None:
        return found
    down, across = (repeats if k == axis else own for k, own in enumerate(found.periods))
    both = _cell(lines, (down, across))
    gained = both.cell.square().sum() - found.cell.square().sum()
    left = rest.square().mean(dim=(1, 2)).sum()
    return both if float(gained) >= LEAST_HELD * float(left) else found


def _times(repeats: float | None, count: int) -> float | None:
    return None if repeats is None else count * repeats


def _seen_twice(picture: Tensor, periods: Periods) -> bool:
    sides = zip(picture.shape[1:], periods, strict=True)
    return all(repeats is None or 2 * repeats <= side for side, repeats in sides)


def _cell(picture: Tensor, periods: Periods) -> Pattern:
    """The mean over as many whole periods as there are."""
    used = [
        side if repeats is None else round(int(side / repeats) * repeats)
        for side, repeats in zip(picture.shape[1:], periods, strict=True)
    ]
    part = picture[:, : used[0], : used[1]]
    up, along = (basis(periods, k, torch.arange(n).to(part)) / n for k, n in enumerate(used))
    cell = up @ part @ along.T
    cell[:, 0, 0] = 0
    return Pattern(periods, cell, _spread(part, periods))


def _spread(part: Tensor, periods: Periods) -> Tensor:
    """Power at the waves of a cell but for the pattern, from waves half way between its own."""
    between = []
    for axis, repeats in enumerate(periods):
        side = part.shape[axis + 1]
        places = torch.arange(side).to(part)
        if repeats is None:
            between.append(torch.ones_like(places)[None] / math.sqrt(side))
        else:
            count = (len(basis(periods, axis, places[:1])) + 1) // 2
            waves = (torch.arange(count).to(part) + 0.5) / repeats
            between.append(_turning(waves, places) / math.sqrt(side))
    power = (between[0] @ part @ between[1].T).square()
    for axis, repeats in enumerate(periods):
        if repeats is not None:
            power = _of_neighbours(power.transpose(axis + 1, 0)).transpose(axis + 1, 0)
    return power


def _of_neighbours(power: Tensor) -> Tensor:
    """From pairs at waves 1/2, 3/2 ... to 0 and pairs at 1, 2 ...: along the first axis."""
    halves = (power[0::2] + power[1::2]) / 2
    pairs = ((halves[1:] + halves[:-1]) / 2).repeat_interleave(2, dim=0)
    return torch.cat([halves[:1], pairs])


def _median_about(power: Tensor) -> Tensor:
    """Median over ABOUT x ABOUT waves of a power spectrum (H, W), some rows at a time."""
    half = ABOUT // 2
    about = F.pad(power[None, None], (half,) * 4, mode="circular")[0, 0]
    few = max(1, STRIP // power.shape[1])
    found = []
    for top in range(0, len(power), few):
        rows = about[top : min(top + few, len(power)) + 2 * half]
        found.append(rows.unfold(0, ABOUT, 1).unfold(1, ABOUT, 1).flatten(2).median(dim=-1).values)
    return torch.cat(found)


def _lines(picture: Tensor) -> tuple[Tensor, float]:
    """What the lines alone make of a picture (C, H, W) of mean 0, and their share of its power."""
    height, width = picture.shape[1:]
    window = torch.outer(*(torch.hann_window(n, periodic=False) for n in (height, width)))
    power = torch.fft.fft2(picture * window.to(picture)).abs().square().sum(dim=0)
    median = _median_about(power)
    up, along = (torch.fft.fftfreq(n).to(picture) * n for n in (height, width))
    told = torch.hypot(up[:, None], along) >= LONGEST
    above = power / median.clamp_min(1e-12 * float(power.max()))
    out = ((above > LINE) & told).to(power)[None, None]
    near = F.max_pool2d(F.pad(out, (1, 1, 1, 1), mode="circular"), 3, stride=1)[0, 0] > 0
    passed = torch.where(near & told & (above > SHOULDER), 1 - 1 / above, 0.0)
    share = float((power * passed)[told].sum() / power[told].sum().clamp_min(1e-30))
    return torch.fft.ifft2(torch.fft.fft2(picture) * passed).real, share
