"""Finding the lattice of a regular pattern in the autocorrelation of an image.

The correlation r(d) of an image with itself moved by d is as high at every vector of a lattice of
repetition as the share of the variance that repeats. Candidates are pairs of the shortest peaks of
r. A lattice is accepted if

- its mean of r is MIN_CORRELATION or more: peaks of irregular textures stay below half of it;
- r is lower half way between its points, in all three directions: otherwise the image does not
  change along an axis (stripes), or the cell is a multiple of a smaller one.

Of accepted lattices nearly as good as the best, that of the smallest cell is taken. Two repetitions
along each axis suffice. Images without such a lattice may repeat along one axis: for a direction
u, the mean of r over all displacements with the same part along u must form a comb.

A period that drifts across the image, as in strong perspective, is not searched for. Where a person
names it, the phases are followed from the center outwards.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.config import SHORTEST_PERIOD
from gcn_cli.errors import InputError
from gcn_cli.pattern import Pattern, PhaseField, follow_drift, learn_pattern

LARGEST_SIDE = 512  # pixels, of a square: larger images are halved for the search
LARGEST_LAG = 0.7  # of the side: beyond it, too little of the image overlaps itself
LONGEST_VECTOR = 0.55  # of the side: two repetitions
PEAK_SHARE = 0.5  # of the highest peak of r: lower ones are no vectors of the lattice
MOST_PEAKS = 20  # the shortest of them
MIN_ANGLE_SINE = 0.35  # of the angle between two reduced vectors

MIN_CORRELATION = 0.2  # mean of r over the lattice
MIN_CONTRAST = 0.12  # of that mean to the mean half way between
MIN_CONTRAST_SHARE = 0.2  # the same as a share of the mean
EQUAL_CORRELATION = 0.85  # of the highest mean: as good as it
MIN_COMB = 0.12  # contrast of the comb of a pattern along one axis
MIN_COMB_OF_FEW = 0.3  # the same of combs with fewer than MANY_PEAKS peaks
MANY_PEAKS = 4
EQUAL_COMB = 0.8  # of the largest contrast: as good as it
COMB_STEP = 0.1  # pixels between candidate periods
ANGLE_STEP = 2  # degrees between candidate directions
COMB_LINES = 64  # lines over which the mean of r is taken

REACHES = (2, 4, 8)  # lattice steps whose points are used, one after another, to refine a lattice
SMALLEST_STEP = 0.02  # pixels, of the refinement


def find_pattern(
    images: Sequence[Tensor],
    known: Sequence[Tensor] | None = None,
    vectors: Sequence[tuple[float, float]] | None = None,
) -> tuple[Pattern, list[PhaseField]] | None:
    """The pattern of images (C, H, W) of one texture and the phases of each; None without one.

    known: masks (H, W) of the pixels to use, by default all. vectors: of repetition, (down, across)
    in pixels; None searches for them in the first image, an empty list finds no pattern. Raises
    InputError if another image does not show the pattern of these vectors.
    """
    masks = known or [torch.ones_like(image[0], dtype=torch.bool) for image in images]
    pairs = [(image.cpu(), mask.cpu()) for image, mask in zip(images, masks, strict=True)]
    lattice = find_lattice(*pairs[0]) if vectors is None else torch.tensor(list(vectors))
    if lattice is None or not len(lattice):
        return None
    waves = torch.linalg.pinv(lattice.double()).T.float()
    start = PhaseField(waves, torch.zeros(len(waves)))
    starts = [start]
    if vectors:  # it is not known whether they drift
        starts.append(follow_drift(*pairs[0], start))
    everything = [image for image, _ in pairs], [mask for _, mask in pairs]
    try:
        return max((learn_pattern(*everything, start) for start in starts), key=_explained)
    except ValueError as error:
        if vectors is None:
            return None
        raise InputError(f"--pattern: {error}; leave it out, or train on one image") from error


def _explained(found: tuple[Pattern, list[PhaseField]]) -> float:
    return float(found[0].share)


def find_lattice(image: Tensor, known: Tensor | None = None) -> Tensor | None:
    """Vectors of repetition (1 or 2, 2), down and across in pixels, of an image (C, H, W).

    None if the image is irregular. known: mask (H, W) of the pixels to use, by default all.
    """
    known = torch.ones_like(image[0], dtype=torch.bool) if known is None else known
    scale = 1
    while math.prod(image.shape[1:]) > (scale * LARGEST_SIDE) ** 2:
        scale *= 2
    if min(image.shape[1:]) // scale < 2 * SHORTEST_PERIOD or not bool(known.any()):
        return None
    flat = _without_plane(image.float(), known)
    if scale > 1:
        weight = F.avg_pool2d(known[None].float(), scale)[0].clamp_min(1e-6)
        flat, known = F.avg_pool2d(flat[None], scale)[0] / weight, weight > 0.5
        flat = torch.where(known, flat, 0.0)
    r = Autocorrelation(flat, known)
    lattice = _best_lattice(r)
    if lattice is None:
        lattice = _best_comb(r)
    return None if lattice is None else scale * lattice


def _without_plane(image: Tensor, known: Tensor) -> Tensor:
    """An image (C, H, W) less the best plane of each channel; 0 where it is not known."""
    rows, columns = (torch.linspace(-1, 1, side) for side in known.shape)
    ones = torch.ones(known.shape)
    plane = torch.stack([ones, ones * rows[:, None], ones * columns])
    slopes = torch.linalg.lstsq(plane[:, known].T, image[:, known].T).solution
    return torch.where(known, image - torch.einsum("pc,phw->chw", slopes, plane), 0.0)


class Autocorrelation:
    """r(d) of an image for displacements up to its size, normalized by the power that overlaps."""

    def __init__(self, image: Tensor, known: Tensor) -> None:
        """`image` (C, H, W) has mean 0, and 0 where it is not `known`, (H, W)."""
        height, width = image.shape[1:]
        size = (2 * height, 2 * width)

        def transform(x: Tensor) -> Tensor:
            spectrum: Tensor = torch.fft.rfft2(x, s=size)
            return spectrum

        covariance = torch.fft.irfft2(transform(image).abs().square().sum(dim=0), s=size)
        power, mask = transform(image.square().sum(dim=0)), transform(known.float())
        ahead = torch.fft.irfft2(power * mask.conj(), s=size)
        behind = torch.fft.irfft2(mask * power.conj(), s=size)
        overlapping = (ahead * behind).clamp_min(0).sqrt()
        correlation = covariance / overlapping.clamp_min(1e-6 * float(overlapping.max()))
        self.values = torch.fft.fftshift(correlation)  # no displacement is at (height, width)
        self.size = torch.tensor([height, width])

    def __call__(self, displacements: Tensor) -> Tensor:
        """r at displacements (..., 2), down and across in pixels, interpolated: (...)."""
        place = displacements + self.size
        last = torch.tensor(self.values.shape) - 2
        low = torch.minimum(place.floor().clamp_min(0).long(), last)
        y, x = low.unbind(-1)
        down, across = (place - low).clamp(0, 1).unbind(-1)
        top = torch.lerp(self.values[y, x], self.values[y, x + 1], across)
        bottom = torch.lerp(self.values[y + 1, x], self.values[y + 1, x + 1], across)
        return torch.lerp(top, bottom, down)

    def peaks(self) -> Tensor:
        """The shortest of the highest local maxima in one half of the plane, (n, 2)."""
        limits = (0.6 * self.size).long()
        height, width = self.size.tolist()
        down, across = limits.tolist()
        part = self.values[height : height + down + 1, width - across : width + across + 1]
        highest = F.max_pool2d(part[None], 5, stride=1, padding=2)[0]
        rows = torch.arange(down + 1)[:, None].expand_as(part)
        columns = torch.arange(-across, across + 1).expand_as(part)
        lengths = torch.hypot(rows.float(), columns.float())
        half = (rows > 0) | (columns > 0)
        found = (part == highest) & half & (lengths >= SHORTEST_PERIOD)
        if not bool(found.any()):
            return torch.zeros(0, 2)
        found &= part >= PEAK_SHARE * part[found].max()
        vectors = torch.stack([rows[found], columns[found]], dim=1).float()
        return vectors[lengths[found].argsort()[:MOST_PEAKS]]

    def lattice_mean(self, lattices: Tensor, shift: tuple[float, float], reach: int) -> Tensor:
        """Mean of r over lattices (n, 2, 2) of two vectors, (n,), moved by a part of the vectors.

        Each point counts by the area that overlaps; points up to `reach` vectors away are used.
        """
        steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
        points = torch.cartesian_prod(steps, steps)
        points = points[points.abs().sum(dim=1) > 0] + torch.tensor(shift)
        displacements = torch.einsum("pk,nkd->npd", points, lattices)
        room = self.size - displacements.abs()
        inside = (displacements.abs() <= LARGEST_LAG * self.size).all(dim=-1)
        weights = room.clamp_min(0).prod(dim=-1) * inside
        total: Tensor = (self(displacements) * weights).sum(dim=1)
        return total / weights.sum(dim=1).clamp_min(1e-9)


def _best_lattice(r: Autocorrelation) -> Tensor | None:
    """Two vectors of repetition (2, 2), refined; None if no lattice is accepted."""
    candidates = []
    for first, second in itertools.combinations(r.peaks(), 2):
        lattice = _reduced(torch.stack([first, second]))
        lengths, area = lattice.norm(dim=1), abs(float(torch.linalg.det(lattice)))
        if float(lengths.min()) < SHORTEST_PERIOD - 1 or area < MIN_ANGLE_SINE * lengths.prod():
            continue
        if bool((lattice.abs().amax(dim=0) <= LONGEST_VECTOR * r.size).all()):
            candidates.append(lattice)
    if not candidates:
        return None
    lattices = torch.unique(torch.stack(candidates), dim=0)
    means = r.lattice_mean(lattices, (0, 0), REACHES[0])
    between = [r.lattice_mean(lattices, shift, REACHES[0]) for shift in HALFWAY]
    contrast = means - torch.stack(between).amax(dim=0)
    accepted = (means >= MIN_CORRELATION) & (contrast >= MIN_CONTRAST)
    accepted &= contrast >= MIN_CONTRAST_SHARE * means
    if not bool(accepted.any()):
        return None
    lattices, means = lattices[accepted], means[accepted]
    lattices = lattices[means >= EQUAL_CORRELATION * means.max()]
    smallest: Tensor = lattices[torch.linalg.det(lattices).abs().argmin()]
    for reach in REACHES:
        smallest = _refined(r, smallest, reach)
    return smallest


HALFWAY = ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5))  # shifts by half of the vectors


def _reduced(lattice: Tensor) -> Tensor:
    """The shortest two vectors of the same lattice, (2, 2) -> (2, 2); by Lagrange."""
    short, long = sorted(lattice, key=lambda vector: float(vector.norm()))
    while True:
        count = ((short @ long) / (short @ short).clamp_min(1e-9)).round()
        rest = long - count * short
        if float(rest.norm()) > float(long.norm()) - 1e-3:
            break
        short, long = sorted((short, rest), key=lambda vector: float(vector.norm()))
    ordered = sorted((short, long), key=lambda vector: abs(float(vector[1])))
    return torch.stack([v if float(v.sum()) >= 0 else -v for v in ordered])


def _refined(r: Autocorrelation, lattice: Tensor, reach: int) -> Tensor:
    """The lattice (2, 2) near the given one with the highest mean, by steps along each value."""
    directions = torch.cat([torch.eye(4), -torch.eye(4)]).view(8, 2, 2)
    best, step = float(r.lattice_mean(lattice[None], (0, 0), reach)), 1.0 / reach
    while step > SMALLEST_STEP:
        tried = lattice + step * directions
        means = r.lattice_mean(tried, (0, 0), reach)
        if float(means.max()) > best + 1e-6:
            best, lattice = float(means.max()), tried[int(means.argmax())]
        else:
            step /= 2
    return lattice


def _best_comb(r: Autocorrelation) -> Tensor | None:
    """The vector of repetition (1, 2) of a pattern along one axis; None if there is no comb."""
    side = float(r.size.min())
    lags = torch.arange(int(LARGEST_LAG * side) + 1)
    longest = (len(lags) - 1) / 2
    if longest <= SHORTEST_PERIOD:
        return None
    periods = torch.arange(SHORTEST_PERIOD, longest, COMB_STEP)
    aside = torch.linspace(-0.3 * side, 0.3 * side, COMB_LINES)
    needed = torch.where((len(lags) - 1) / periods >= MANY_PEAKS, MIN_COMB, MIN_COMB_OF_FEW)
    best, vector = 0.0, None
    for degrees in range(0, 180, ANGLE_STEP):
        angle = math.radians(degrees)
        along = torch.tensor([math.sin(angle), math.cos(angle)])
        across = torch.tensor([math.cos(angle), -math.sin(angle)])
        points = lags[:, None, None] * along + aside[:, None] * across
        contrast = _comb_contrast(r(points).mean(dim=1), periods)
        contrast = torch.where(contrast >= needed, contrast, 0.0)
        if float(contrast.max()) > best:
            best = float(contrast.max())
            # Three periods have as good a comb as one: take the shortest about as good as any.
            first = int((contrast >= EQUAL_COMB * best).nonzero()[0])
            near = contrast[first : first + int(0.1 * float(periods[first]) / COMB_STEP) + 1]
            vector = float(periods[first + int(near.argmax())]) * along
    return None if vector is None else vector[None]


def _comb_contrast(profile: Tensor, periods: Tensor) -> Tensor:
    """Mean of a profile (lags,) at multiples of each period less that half way between, (n,)."""
    count = ((len(profile) - 1) / periods).long()
    multiples = torch.arange(1, int(count.max()) + 1, dtype=profile.dtype)

    def interpolate(lags: Tensor) -> Tensor:
        below = lags.long().clamp(max=len(profile) - 2)
        return torch.lerp(profile[below], profile[below + 1], (lags - below).clamp(max=1))

    peaks = interpolate(periods[:, None] * multiples)
    valleys = interpolate(periods[:, None] * (multiples - 0.5))
    inside = (multiples <= count[:, None]).to(profile)
    return ((peaks - valleys) * inside).sum(dim=1) / count
