"""The period of a regular pattern, found in its autocorrelation; and tori that it fits on.

A texture of courses, tiles or strands has correlation r(d) with itself moved by d that rises at
every multiple of the period p and falls half way between. The contrast of that comb,

    mean over k of r(k p) - r((k - 1/2) p),

is highest at the period itself: of 2 p the places half way are peaks too, of p / 2 every other
multiple is none. On a torus whose side is no multiple of p the pattern has to bend.

What repeats itself exactly in a regular texture: its cell, the mean over all repetitions.

Courses, tiles and grids have power in a few waves, the lines of the spectrum, an order of magnitude
above what lies about them, in phase from one end of a picture to the other. Filters see no further
than their field: each place would put a grid where it likes. The mean of the picture over its
periods has the phases of all lines at once,

    m(y, x) = sum over i, j of cell_ij phi_i(y / p) phi_j(x / q),

phi being 1 and sqrt(2) times cos and sin of 2 pi n times the place, p and q the periods down and
across, so that a chain can be told where the pattern lies (`sampling/pattern.py`). What differs
from one repetition to the next is not in it.

Chains that are told where a regular pattern lies: its waves are held while layout is settled.

At high levels a wave of the pattern has for its mean, given a noisy image x, what it would have if
it were drawn about the pattern m with the variance R of what differs between repetitions,

    m + K (x - m),   K = R / (R + s^2),   in place of what D says,

so that courses are straight and close on a torus however large it is. Waves of no pattern are left
to the model, and each of the pattern below the level where the noise no longer hides its R: there
the model sees, and decides, how one repetition differs from the next. Long waves differ most; what
lies between two courses is handed to the model long before their edges are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.samplers.annealed import Denoiser

Periods = tuple[float | None, float | None]
"""Pixels from one repetition to the next, down and across; None where there is no regular one."""

SHORTEST = 6.0  # pixels
LONGEST_LAG = 0.7  # of the side: beyond, little of the picture lies over itself
CONTRAST = 0.3  # of a comb of MANY teeth, from which on a bend would be seen
MANY = 4
CONTRAST_OF_FEW = 0.4
SAME = 0.8  # of the highest contrast is as good as it
FINENESS = 0.02  # pixels
MOST_STRETCH = 0.04  # by which a picture may be resampled so that whole periods fit
LEAST_STRETCH = 0.004  # under which a pattern bends unseen


def find_period(picture: Tensor, axis: int) -> float | None:
    """Pixels from one repetition to the next along an axis of (C, H, W); None if irregular.

    What is NaN is left out.
    """
    r = autocorrelation(picture.double(), axis)
    r = r[: int(LONGEST_LAG * len(r)) + 1]
    longest = (len(r) - 1) / 2  # which is seen twice
    if longest < SHORTEST:
        return None
    candidates = torch.arange(SHORTEST, longest, FINENESS, dtype=r.dtype, device=r.device)
    contrast, count = _combs(r, candidates)
    best = float(contrast.max())
    if best < CONTRAST:
        return None
    # Three periods make as good a comb as one: the first that is about as good as any.
    first = int((contrast >= SAME * best).nonzero()[0])
    if int(count[first]) < MANY and best < CONTRAST_OF_FEW:
        return None
    near = slice(first, first + int(0.1 * float(candidates[first]) / FINENESS) + 1)
    return round(float(candidates[near][contrast[near].argmax()]), 2)


def autocorrelation(picture: Tensor, axis: int) -> Tensor:
    """Correlation of a picture (C, H, W) with itself moved along an axis: lags 0, 1, ... (side,).

    Of the part that lies over itself; 1 at lag 0.
    """
    known = picture.isfinite()
    mean = picture.nan_to_num().sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp_min(1)
    centered = torch.where(known, picture - mean[:, None, None], 0.0)
    side, others = picture.shape[axis], [d for d in range(3) if d != axis % 3]
    waves = torch.fft.rfft(centered, n=2 * side, dim=axis).abs().square()
    together = torch.fft.irfft(waves, n=2 * side, dim=axis).sum(dim=others)[:side]
    power = torch.cat([together.new_zeros(1), centered.square().sum(dim=others).cumsum(0)])
    lags = torch.arange(side, device=picture.device)
    first, last = power[side - lags], power[side] - power[lags]
    correlation: Tensor = together / (first * last).sqrt().clamp_min(1e-30)
    return correlation


def _combs(r: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast of the comb of every candidate, and how many multiples are in r (lags,)."""
    count = ((len(r) - 1) / candidates).long()
    multiples = torch.arange(1, int(count.max()) + 1, dtype=r.dtype, device=r.device)

    def heights(places: Tensor) -> Tensor:
        below = places.long().clamp(max=len(r) - 2)
        return torch.lerp(r[below], r[below + 1], (places - below).clamp(max=1))

    peaks = heights(candidates[:, None] * multiples)
    valleys = heights(candidates[:, None] * (multiples - 0.5))
    counted = (multiples <= count[:, None]).to(r)
    return ((peaks - valleys) * counted).sum(dim=1) / count, count


def fitting_side(side: int, repeats: float | None) -> tuple[int, bool]:
    """The side of a torus on which a pattern keeps its period, near `side`, and whether it does.

    The side itself where nothing repeats, where bending is not seen, or where no whole number of
    periods is near enough.
    """
    if repeats is None:
        return side, True
    whole = max(1, round(side / repeats)) * repeats
    stretch = abs(side / whole - 1)
    if stretch < LEAST_STRETCH:
        return side, True
    return (round(whole), True) if stretch <= MOST_STRETCH else (side, False)


def resampled_torus(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A torus (C, H, W) at another size, by its waves: nothing is blurred, no border shows."""
    for axis, wanted in zip((-2, -1), size, strict=True):
        side = image.shape[axis]
        if side == wanted:
            continue
        bands = []
        for band in image:  # of a large picture there is no room for all waves
            waves = torch.fft.rfft(band, dim=axis)
            kept = (min(side, wanted) - 1) // 2 + 1  # without the one that has no direction
            waves = waves.narrow(axis, 0, kept)
            bands.append(torch.fft.irfft(waves, n=wanted, dim=axis) * (wanted / side))
        image = torch.stack(bands)
    return image


LINE = 80.0  # times the median about it: irregular textures have no wave of more than 50
SHOULDER = 8.0  # times it: beside a line, a part of it
LONGEST = 4  # waves in the picture, which have too few about them to be told
ABOUT = 13  # waves a side of which the median is taken
LEAST_SHARE = 0.05  # of the power, in lines
LEAST_HELD = 0.5  # of the lines' power that repeats itself exactly, or courses bend in the exemplar
LARGEST_SIDE = (
    1024  # pixels a side that are looked at: enough for any pattern that a model can follow
)
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

    Holes (NaN) are taken for the mean color.
    """
    whole = [_without_holes(picture) for picture in pictures]
    found = [_pattern(picture) for picture in whole]
    first = found[0]
    if first is None or any(one is None or one.periods != first.periods for one in found):
        return None
    return first


def pattern_basis(periods: Periods, axis: int, places: Tensor) -> Tensor:
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
    picture = picture[:, :LARGEST_SIDE, :LARGEST_SIDE]
    if min(picture.shape[1:]) < ABOUT:
        return None
    lines, share = _lines(picture)
    if share < LEAST_SHARE:
        return None
    down, across = (find_period(lines, axis) for axis in (1, 2))
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
        pattern_basis(found.periods, axis, torch.arange(side).to(lines))
        for axis, side in enumerate(lines.shape[1:])
    )
    rest = lines - up.T @ found.cell @ along
    axis = found.periods.index(None)
    repeats = find_period(rest, axis + 1)
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
    up, along = (
        pattern_basis(periods, k, torch.arange(n).to(part)) / n for k, n in enumerate(used)
    )
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
            count = (len(pattern_basis(periods, axis, places[:1])) + 1) // 2
            waves = (torch.arange(count).to(part) + 0.5) / repeats
            between.append(_turning(waves, places) / math.sqrt(side))
    power = (between[0] @ part @ between[1].T).square()
    for axis, repeats in enumerate(periods):
        if repeats is not None:
            power = _of_neighbors(power.transpose(axis + 1, 0)).transpose(axis + 1, 0)
    return power


def _of_neighbors(power: Tensor) -> Tensor:
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


HIDING_NOISE = 1.4  # times the deviation of what differs between repetitions: noise that hides it
HIDING_NOISE_OF_WAVE = 2.8  # the same of one wave, whose own is known less well
MOST_STRETCH_OF_PERIOD = (
    0.1  # of a period that it may be made shorter or longer, so that whole ones fit
)


class PatternProjection:
    """A pattern on a torus of `size` (H, W), moved by a share of its cell for every image."""

    def __init__(self, pattern: Pattern, size: tuple[int, int], moves: Tensor) -> None:
        """`moves` (N, 2) in 0..1, down and across. Raises ValueError where `pattern_fits` says no."""
        if not pattern_fits(pattern, size):
            raise ValueError("no whole number of periods is near the size")
        self.up, self.along = (
            _projection_waves(pattern, axis, side, moves[:, axis]) for axis, side in enumerate(size)
        )
        self.wanted = pattern.cell.to(moves.device) * math.sqrt(size[0] * size[1])
        self.spread = pattern.spread.to(moves.device)
        levels = lowest_levels(pattern)
        self.levels, self.lowest = levels.to(moves.device), float(levels.min())

    def holding(self, denoise: Denoiser) -> Denoiser:
        """D with the waves of the pattern held, each above its own of `levels`."""

        def held(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            self.hold_(x, mean, noise)
            return mean

        return held

    def hold_(self, x: Tensor, mean: Tensor, noise: float) -> None:
        """Give D of noisy images, both (N, C, H, W), those waves of the pattern that are held."""
        if noise <= self.lowest:
            return
        held = noise > self.levels
        kept = self.spread / (self.spread + noise**2)
        for noisy, image, up, along in zip(x, mean, self.up, self.along, strict=True):
            own = torch.lerp(self.wanted, up @ noisy @ along.T, kept)
            missing = held * (own - up @ image @ along.T)
            missing[:, 0, 0] = 0  # the mean color is not the pattern's
            for channel, waves in zip(image, missing, strict=True):
                channel.addmm_(up.T, waves @ along)


def lowest_levels(pattern: Pattern) -> Tensor:
    """The noise deviation down to which every wave of a pattern is held: (I, J).

    HIDDEN_ALONE times the root of its spread, at most HIDDEN times that of the mean over waves,
    weighted by the pattern's own power.
    """
    power, spread = pattern.cell.square().sum(dim=0), pattern.spread.sum(dim=0)
    mean = (power * spread).sum() / power.sum()
    return torch.minimum(HIDING_NOISE_OF_WAVE * spread.sqrt(), HIDING_NOISE * mean.sqrt())


def pattern_fits(
    pattern: Pattern, size: Sequence[int], most_bent: float = MOST_STRETCH_OF_PERIOD
) -> bool:
    """Whether sides (H, W) hold whole periods that differ by less than a share from their own."""
    return all(
        repeats is None
        or (side >= repeats and abs(_whole(side, repeats) / repeats - 1) < most_bent)
        for side, repeats in zip(size, pattern.periods, strict=True)
    )


def _whole(side: int, repeats: float) -> float:
    """The period nearest to `repeats` of which a side holds whole ones."""
    return side / max(1, round(side / repeats))


def _projection_waves(pattern: Pattern, axis: int, side: int, moves: Tensor) -> Tensor:
    """Orthonormal waves of the pattern along an axis, moved for every image: (N, I, side)."""
    repeats, places = pattern.periods[axis], torch.arange(side).to(moves)
    if repeats is None:
        return (pattern_basis(pattern.periods, axis, places) / math.sqrt(side)).expand(
            len(moves), -1, -1
        )
    # In units of the pattern's own period, so that as many waves are taken as its cell has.
    places = places * repeats / _whole(side, repeats)
    own = [pattern_basis(pattern.periods, axis, places + repeats * float(move)) for move in moves]
    return torch.stack(own) / math.sqrt(side)
