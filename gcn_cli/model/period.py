"""The period of a regular pattern, found in its autocorrelation; and tori that it fits on.

A texture of courses, tiles or strands has correlation r(d) with itself moved by d that rises at
every multiple of the period p and falls half way between. The contrast of that comb,

    mean over k of r(k p) - r((k - 1/2) p),

is highest at the period itself: of 2 p the places half way are peaks too, of p / 2 every other
multiple is none. On a torus whose side is no multiple of p the pattern has to bend.
"""

import torch
from torch import Tensor

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


def period(picture: Tensor, axis: int) -> float | None:
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
    centred = torch.where(known, picture - mean[:, None, None], 0.0)
    side, others = picture.shape[axis], [d for d in range(3) if d != axis % 3]
    waves = torch.fft.rfft(centred, n=2 * side, dim=axis).abs().square()
    together = torch.fft.irfft(waves, n=2 * side, dim=axis).sum(dim=others)[:side]
    power = torch.cat([together.new_zeros(1), centred.square().sum(dim=others).cumsum(0)])
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


def stretched(image: Tensor, size: tuple[int, int]) -> Tensor:
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
