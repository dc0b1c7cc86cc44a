"""Regular patterns: find the period, average the repeated cell, keep it in place while sampling.

Period. The autocorrelation r(d) of a texture of rows, tiles or strands peaks at every multiple
of its period p and drops in between. The contrast of this comb,

    mean over k of r(k p) - r((k - 1/2) p),

is largest at the period itself: for 2 p, points half way are peaks too; for p / 2, every other
multiple is none. On a torus whose side is not a multiple of p the pattern is distorted.

Cell. A regular pattern has its power in a few frequencies, the lines of the spectrum, an order of
magnitude above their neighborhood and in phase across the whole image. Filters see no further than
their receptive field: each part of a sample would place the grid where it likes. The mean of the
image over its periods has the phases of all lines,

    m(y, x) = sum over i, j of cell_ij phi_i(y / p) phi_j(x / q),

with phi the Fourier basis 1, sqrt(2) cos(2 pi n t), sqrt(2) sin(2 pi n t) and p, q the periods down
and across. It does not contain what differs between repetitions, whose variance is R.

Projection. At high noise levels s, the denoiser D is projected: each harmonic of the pattern gets
the posterior mean that it would have if it were distributed as N(m, R),

    m + K (x - m),   K = R / (R + s^2),

so that rows are straight and close on a torus of any size. A harmonic is left to the model
below the level at which noise no longer hides its R: there the model sees and decides how one
repetition differs from the next. R is largest at low frequencies, so the space between two rows
is left to the model long before their edges are.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.energy import Denoiser

Periods = tuple[float | None, float | None]
"""Periods in pixels down and across; None where the image is not periodic along an axis."""

SHORTEST_PERIOD = 6.0  # pixels
LARGEST_LAG = 0.7  # of the side: beyond it, too little of the image overlaps itself
MANY_PEAKS = 4  # combs with fewer peaks need more contrast
MIN_CONTRAST = 0.3  # of a comb of many peaks; below it distortion would be visible anyway
MIN_CONTRAST_OF_FEW = 0.4
EQUAL_CONTRAST = 0.8  # of the largest contrast: as good as it
PERIOD_STEP = 0.02  # pixels between candidates
PERIOD_TOLERANCE = 1.02  # largest over smallest period of images that agree

SHORTEST_WAVE = 4.0  # pixels: shorter wavelengths are left to the model
LARGEST_SIDE = 1024  # pixels per side used: enough for any pattern that a model can follow
LINE_RATIO = 80.0  # of a line's power to the median around it; irregular textures stay below 50
SHOULDER_RATIO = 8.0  # the same of frequencies next to a line that are part of it
MIN_CYCLES = 4  # in the image: lower frequencies have too few neighbors to compare with
MEDIAN_SIDE = 13  # frequencies per side of the neighborhood for the median
MEDIAN_CHUNK = 2**15  # frequencies whose neighborhoods are unfolded at a time: 22 MB
MIN_LINE_SHARE = 0.05  # of the power, in lines
MIN_CELL_SHARE = (
    0.5  # of the power in lines that repeats exactly; else rows are distorted in the image
)
MULTIPLES = (1, 2, 3)  # of the first period that are tried: bricks repeat every second row
EQUAL_POWER = 0.95  # of the largest power of a cell: as good as it

HIDING_NOISE = 1.4  # times the root of the mean R: noise that hides what differs
HIDING_NOISE_OF_HARMONIC = 2.8  # for a single harmonic, whose R is a noisier estimate
LARGEST_PERIOD_CHANGE = 0.1  # of a period, so that a whole number of them fits a side
LARGEST_STRETCH = 0.04  # of an image resampled so that whole periods fit
VISIBLE_STRETCH = 0.004  # below it, distortion is invisible


def find_period(image: Tensor, axis: int, known: Tensor | None = None) -> float | None:
    """Period in pixels of an image (C, H, W) along an axis; None where it is irregular.

    known: mask (H, W) of the pixels to use, by default all.
    """
    r = autocorrelation(image.double(), axis, known)
    r = r[: int(LARGEST_LAG * len(r)) + 1]
    longest = (len(r) - 1) / 2  # two repetitions are visible
    if longest < SHORTEST_PERIOD:
        return None
    candidates = torch.arange(SHORTEST_PERIOD, longest, PERIOD_STEP, dtype=r.dtype, device=r.device)
    contrast, peaks = _comb_contrast(r, candidates)
    best = float(contrast.max())
    if best < MIN_CONTRAST:
        return None
    # Three periods have as good a comb as one: take the shortest that is about as good as any.
    first = int((contrast >= EQUAL_CONTRAST * best).nonzero()[0])
    if int(peaks[first]) < MANY_PEAKS and best < MIN_CONTRAST_OF_FEW:
        return None
    near = slice(first, first + int(0.1 * float(candidates[first]) / PERIOD_STEP) + 1)
    return round(float(candidates[near][contrast[near].argmax()]), 2)


def find_periods(images: Sequence[Tensor], known: Sequence[Tensor] | None = None) -> Periods:
    """The mean period down and across of images (C, H, W); None where they do not agree.

    known: masks (H, W) of the pixels to use, by default all.
    """
    masks: Sequence[Tensor | None] = known or [None] * len(images)
    pairs = list(zip(images, masks, strict=True))
    periods: list[float | None] = []
    for axis in (-2, -1):
        found = [find_period(image, axis, mask) for image, mask in pairs]
        regular = [period for period in found if period is not None]
        agree = len(regular) == len(found) and max(regular) <= PERIOD_TOLERANCE * min(regular)
        periods.append(sum(regular) / len(regular) if agree else None)
    return periods[0], periods[1]


def autocorrelation(image: Tensor, axis: int, known: Tensor | None = None) -> Tensor:
    """Autocorrelation of an image (C, H, W) along an axis, for lags 0, 1, ...: (side,).

    Normalized by the power of the overlapping parts; 1 at lag 0. known: as in `find_period`.
    """
    centered = _centered(image, known)
    side, others = image.shape[axis], [d for d in range(3) if d != axis % 3]
    spectrum = torch.fft.rfft(centered, n=2 * side, dim=axis).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * side, dim=axis).sum(dim=others)[:side]
    power = torch.cat([covariance.new_zeros(1), centered.square().sum(dim=others).cumsum(0)])
    lags = torch.arange(side, device=image.device)
    first, last = power[side - lags], power[side] - power[lags]
    correlation: Tensor = covariance / (first * last).sqrt().clamp_min(1e-30)
    return correlation


def _comb_contrast(r: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast of the comb of every candidate period in r (lags,), and its number of peaks."""
    count = ((len(r) - 1) / candidates).long()
    multiples = torch.arange(1, int(count.max()) + 1, dtype=r.dtype, device=r.device)

    def interpolate(lags: Tensor) -> Tensor:
        below = lags.long().clamp(max=len(r) - 2)
        return torch.lerp(r[below], r[below + 1], (lags - below).clamp(max=1))

    peaks = interpolate(candidates[:, None] * multiples)
    valleys = interpolate(candidates[:, None] * (multiples - 0.5))
    inside = (multiples <= count[:, None]).to(r)
    return ((peaks - valleys) * inside).sum(dim=1) / count, count


@dataclass(frozen=True)
class Pattern:
    """The repeated cell of a texture and its periods; a period is None where nothing repeats.

    `cell` (C, I, J) has the coefficients of `pattern_basis` down and across, mean 0. `variance`
    (C, I, J) is R, the variance between repetitions of an orthonormal harmonic about the cell.
    """

    periods: Periods
    cell: Tensor
    variance: Tensor


def find_pattern(images: Sequence[Tensor], known: Sequence[Tensor] | None = None) -> Pattern | None:
    """The pattern of images (C, H, W) of one texture, of the first one's phase.

    None where an image has no pattern, or periods differ. known: masks (H, W) of the pixels to use,
    by default all; the others are replaced by the mean color.
    """
    masks: Sequence[Tensor | None] = known or [None] * len(images)
    centered = [_centered(image, mask).cpu() for image, mask in zip(images, masks, strict=True)]
    patterns = [_find_pattern(image) for image in centered]
    first = patterns[0]
    if first is None or any(p is None or p.periods != first.periods for p in patterns):
        return None
    return first


def pattern_basis(period: float | None, positions: Tensor) -> Tensor:
    """phi at positions in pixels (n,): (I, n). Only the constant 1 without a period."""
    ones = torch.ones_like(positions)[None]
    if period is None:
        return ones
    harmonics = torch.arange(1, max(1, int(period / SHORTEST_WAVE)) + 1).to(positions)
    return torch.cat([ones, _cosine_sine_pairs(harmonics / period, positions)])


def _cosine_sine_pairs(frequencies: Tensor, positions: Tensor) -> Tensor:
    """sqrt(2) cos and sin of frequencies (n,) in cycles per pixel, in pairs: (2 n, positions)."""
    angles = 2 * math.pi * frequencies[:, None] * positions
    return math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1).flatten(0, 1)


def _centered(image: Tensor, known: Tensor | None) -> Tensor:
    """An image (C, H, W) less its mean color; 0 where it is not known."""
    known = torch.ones_like(image[0], dtype=torch.bool) if known is None else known
    count = known.sum().clamp_min(1)
    mean = torch.where(known, image, 0.0).sum(dim=(1, 2), keepdim=True) / count
    return torch.where(known, image - mean, 0.0)


def _find_pattern(image: Tensor) -> Pattern | None:
    """The pattern of one image (C, H, W) of mean 0."""
    image = image[:, :LARGEST_SIDE, :LARGEST_SIDE]
    height, width = image.shape[1:]
    if min(height, width) < MEDIAN_SIDE:
        return None
    lines, share = _spectral_lines(image)
    if share < MIN_LINE_SHARE:
        return None
    tried = itertools.product(
        _multiples(find_period(lines, 1), height), _multiples(find_period(lines, 2), width)
    )
    cells = [_average_cell(lines, periods) for periods in tried]
    power = float(lines.square().mean(dim=(1, 2)).sum())
    shares = [float(cell.cell.square().sum()) / power for cell in cells]
    if not shares or max(shares) < MIN_CELL_SHARE:
        return None
    smallest = next(k for k, share in enumerate(shares) if share >= EQUAL_POWER * max(shares))
    return _average_cell(image, _with_second_period(lines, cells[smallest]))


def _multiples(period: float | None, side: int) -> list[float | None]:
    """Multiples of a period that an image shows twice."""
    if period is None:
        return [None]
    return [count * period for count in MULTIPLES if 2 * count * period <= side]


def _with_second_period(lines: Tensor, pattern: Pattern) -> Periods:
    """Periods with that of the other axis, where it only shows once the first is removed.

    Long narrow tiles have many joints along one axis, which hide the few along the other.
    """
    if None not in pattern.periods:
        return pattern.periods
    rows, columns = (
        pattern_basis(period, torch.arange(side).to(lines))
        for period, side in zip(pattern.periods, lines.shape[1:], strict=True)
    )
    remainder = lines - rows.T @ pattern.cell @ columns
    axis = pattern.periods.index(None)
    period = find_period(remainder, axis + 1)
    if period is None:
        return pattern.periods
    periods = (period, pattern.periods[1]) if axis == 0 else (pattern.periods[0], period)
    gain = _average_cell(lines, periods).cell.square().sum() - pattern.cell.square().sum()
    left = remainder.square().mean(dim=(1, 2)).sum()
    return periods if float(gain) >= MIN_CELL_SHARE * float(left) else pattern.periods


def _average_cell(image: Tensor, periods: Periods) -> Pattern:
    """The mean of an image (C, H, W) over as many whole periods as it shows."""
    height, width = (
        side if period is None else round(int(side / period) * period)
        for side, period in zip(image.shape[1:], periods, strict=True)
    )
    part = image[:, :height, :width]
    rows, columns = (
        pattern_basis(period, torch.arange(side).to(part)) / side
        for period, side in zip(periods, (height, width), strict=True)
    )
    cell = rows @ part @ columns.T
    cell[:, 0, 0] = 0
    return Pattern(periods, cell, _variance_between(part, periods))


def _variance_between(part: Tensor, periods: Periods) -> Tensor:
    """R, estimated from the power at frequencies half way between the harmonics."""
    bases = []
    for period, side in zip(periods, part.shape[1:], strict=True):
        positions = torch.arange(side).to(part)
        if period is None:
            basis = torch.ones_like(positions)[None]
        else:
            count = (len(pattern_basis(period, positions[:1])) + 1) // 2
            halfway = (torch.arange(count).to(part) + 0.5) / period
            basis = _cosine_sine_pairs(halfway, positions)
        bases.append(basis / math.sqrt(side))
    power = (bases[0] @ part @ bases[1].T).square()
    for axis, period in enumerate(periods, start=1):
        if period is not None:
            power = _interpolate_harmonics(power.transpose(axis, 0)).transpose(axis, 0)
    return power


def _interpolate_harmonics(power: Tensor) -> Tensor:
    """From pairs at 1/2, 3/2 ... to the constant and pairs at 1, 2 ..., along the first axis."""
    halfway = (power[0::2] + power[1::2]) / 2
    pairs = ((halfway[1:] + halfway[:-1]) / 2).repeat_interleave(2, dim=0)
    return torch.cat([halfway[:1], pairs])


def _spectral_lines(image: Tensor) -> tuple[Tensor, float]:
    """The part of an image (C, H, W) of mean 0 in spectral lines, and its share of the power."""
    height, width = image.shape[1:]
    window = torch.outer(*(torch.hann_window(n, periodic=False) for n in (height, width)))
    power = torch.fft.fft2(image * window.to(image)).abs().square().sum(dim=0)
    median = _local_median(power)
    down, across = (torch.fft.fftfreq(n).to(image) * n for n in (height, width))
    usable = torch.hypot(down[:, None], across) >= MIN_CYCLES
    ratio = power / median.clamp_min(1e-12 * float(power.max()))
    lines = ((ratio > LINE_RATIO) & usable).to(power)[None, None]
    near = F.max_pool2d(F.pad(lines, (1, 1, 1, 1), mode="circular"), 3, stride=1)[0, 0] > 0
    response = torch.where(near & usable & (ratio > SHOULDER_RATIO), 1 - 1 / ratio, 0.0)
    share = float((power * response)[usable].sum() / power[usable].sum().clamp_min(1e-30))
    return torch.fft.ifft2(torch.fft.fft2(image) * response).real, share


def _local_median(power: Tensor) -> Tensor:
    """Median of a power spectrum (H, W) around each frequency, in chunks of rows."""
    half = MEDIAN_SIDE // 2
    padded = F.pad(power[None, None], (half,) * 4, mode="circular")[0, 0]
    step = max(1, MEDIAN_CHUNK // power.shape[1])
    medians = []
    for top in range(0, len(power), step):
        rows = padded[top : min(top + step, len(power)) + 2 * half]
        windows = rows.unfold(0, MEDIAN_SIDE, 1).unfold(1, MEDIAN_SIDE, 1).flatten(2)
        medians.append(windows.median(dim=-1).values)
    return torch.cat(medians)


class PatternProjection:
    """The projection of denoisers onto a pattern, on a torus of a given size."""

    def __init__(self, pattern: Pattern, size: tuple[int, int], shifts: Tensor) -> None:
        """`size` is (H, W); `shifts` (N, 2) in 0..1 moves the pattern of each image by that share
        of its periods. Raises ValueError where the pattern does not fit (`pattern_fits`).
        """
        if not pattern_fits(pattern, size):
            raise ValueError("no whole number of periods is near the size")
        self.rows, self.columns = (
            _shifted_basis(period, side, shifts[:, axis])
            for axis, (period, side) in enumerate(zip(pattern.periods, size, strict=True))
        )
        self.target = pattern.cell.to(shifts.device) * math.sqrt(size[0] * size[1])
        self.variance = pattern.variance.to(shifts.device)
        levels = projection_levels(pattern)
        self.levels, self.lowest = levels.to(shifts.device), float(levels.min())

    def wrap(self, denoise: Denoiser) -> Denoiser:
        """D with the pattern projected into its output."""

        def projected(x: Tensor, noise: float) -> Tensor:
            mean = denoise(x, noise)
            self.project_(x, mean, noise)
            return mean

        return projected

    def project_(self, x: Tensor, mean: Tensor, noise: float) -> None:
        """Replace the harmonics of `mean`, D of the noisy images x, above their levels; in place.

        x and mean are (N, C, H, W). The mean color is kept.
        """
        if noise <= self.lowest:
            return
        replaced = noise > self.levels
        kept = self.variance / (self.variance + noise**2)
        for noisy, image, rows, columns in zip(x, mean, self.rows, self.columns, strict=True):
            wanted = torch.lerp(self.target, rows @ noisy @ columns.T, kept)
            change = replaced * (wanted - rows @ image @ columns.T)
            change[:, 0, 0] = 0
            for channel, harmonics in zip(image, change, strict=True):
                channel.addmm_(rows.T, harmonics @ columns)


def projection_levels(pattern: Pattern) -> Tensor:
    """Noise deviation down to which each harmonic of a pattern is projected: (I, J).

    HIDING_NOISE_OF_HARMONIC times the root of its R, at most HIDING_NOISE times the root of the
    mean R over harmonics, weighted by the power of the pattern.
    """
    power, variance = pattern.cell.square().sum(dim=0), pattern.variance.sum(dim=0)
    mean = (power * variance).sum() / power.sum()
    return torch.minimum(HIDING_NOISE_OF_HARMONIC * variance.sqrt(), HIDING_NOISE * mean.sqrt())


def pattern_fits(
    pattern: Pattern, size: Sequence[int], largest_change: float = LARGEST_PERIOD_CHANGE
) -> bool:
    """Whether sides (H, W) hold whole periods, each changed by less than this share."""
    return all(
        period is None
        or (side >= period and abs(_fitted_period(side, period) / period - 1) < largest_change)
        for side, period in zip(size, pattern.periods, strict=True)
    )


def _fitted_period(side: int, period: float) -> float:
    """The period nearest to `period` that divides a side."""
    return side / max(1, round(side / period))


def _shifted_basis(period: float | None, side: int, shifts: Tensor) -> Tensor:
    """Orthonormal harmonics along a side, shifted for each image: (N, I, side)."""
    positions = torch.arange(side).to(shifts)
    if period is None:
        return (pattern_basis(None, positions) / math.sqrt(side)).expand(len(shifts), -1, -1)
    # Positions in units of the pattern's own period, so that there are as many harmonics as in
    # its cell.
    positions = positions * period / _fitted_period(side, period)
    bases = [pattern_basis(period, positions + period * float(shift)) for shift in shifts]
    return torch.stack(bases) / math.sqrt(side)


def fitting_side(side: int, period: float | None) -> tuple[int, bool]:
    """The side near `side` of a torus on which a pattern keeps its period, and whether it does.

    `side` itself where there is no period, where distortion is invisible, or where no whole number
    of periods is near enough.
    """
    if period is None:
        return side, True
    whole = max(1, round(side / period)) * period
    stretch = abs(side / whole - 1)
    if stretch < VISIBLE_STRETCH:
        return side, True
    return (round(whole), True) if stretch <= LARGEST_STRETCH else (side, False)


def resample_torus(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a torus (C, H, W) to another size (H, W) in Fourier space: no blur, no border."""
    for axis, new_side in zip((-2, -1), size, strict=True):
        side = image.shape[axis]
        if side == new_side:
            continue
        channels = []
        for channel in image:  # one at a time, to save memory
            spectrum = torch.fft.rfft(channel, dim=axis)
            kept = (min(side, new_side) - 1) // 2 + 1  # without the Nyquist frequency
            spectrum = spectrum.narrow(axis, 0, kept)
            channels.append(torch.fft.irfft(spectrum, n=new_side, dim=axis) * (new_side / side))
        image = torch.stack(channels)
    return image
