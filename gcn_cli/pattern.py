"""Regular patterns: a lattice, the phase at every pixel of an image, and the repeated cell.

A pattern repeats along one axis (stripes, courses) or two (tiles, bricks, weaves). Its lattice is
given by waves g_k in cycles per pixel, the reciprocal basis of the vectors of repetition: the phase

    phi_k(x) = <g_k, x> + offset_k + bend_k(x)    in cycles

grows by one from one repetition to the next. bend is 0 for a strict lattice. In a photograph it
varies slowly: tiles are laid by hand, and a camera looks a little aslant.

The network sees the phase as an input (`models.noise_conditional`). In training it is that of the
exemplar where the crop was cut, in samples that of a new lattice. The bend of an exemplar is found
by registration: with T the mean cell, phi is moved to where T(phi) explains the image best, by
Gauss-Newton steps over windows of decreasing size (Lucas and Kanade 1981).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.models.gaussian import low_pass

LARGEST_STRAIN = 0.05  # by which a lattice is stretched or sheared to close on a torus
VISIBLE_STRAIN = 0.01  # below it, distortion is invisible
SHORTEST_SIDE = 16  # pixels, of a sample
GRID_STEP = 8  # pixels between the points of a bend, before any halving
WINDOWS = (3.0, 1.2, 0.6)  # deviations of the windows of registration, in periods
STEPS_PER_WINDOW = 3
LARGEST_SIDE = 320  # pixels, of a square: larger images are registered at half the resolution
GROWTH = (0.3, 0.45, 0.6, 0.8, 1.0)  # of the half side: parts on which a drift is followed
HARMONIC_STEPS = 500  # of relaxation, where a lattice is bent to close
RIDGE = 0.1  # of the mean curvature: noise does not bend the lattice
LARGEST_MOVE = 0.1  # of a period, in a step of registration
WANDER_WINDOW = 2.0  # periods: correlation length of the bend of a sample; joints run straight
CELL_SAMPLES = 64  # at most, of the cell along a period
MIN_SHARE = 0.4  # of the exemplar's share of explained variance, for a pattern in a given image


@dataclass(frozen=True)
class PhaseField:
    """The phase of the lattice of an image; a `PhaseMap`.

    waves (A, 2): down and across, in cycles per pixel. offsets (A,): in cycles. bend (A, h, w): in
    cycles, on a grid over `size` (H, W) pixels, continued periodically along the `periodic` axes,
    else as at the edge. A position p of the image is scale p + origin in the pixels of waves and
    bend.
    """

    waves: Tensor
    offsets: Tensor
    bend: Tensor | None = None
    size: tuple[int, int] = (1, 1)
    periodic: tuple[bool, bool] = (False, False)
    scale: float = 1.0
    origin: tuple[float, float] = (0.0, 0.0)

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """phi at positions down (h,) and across (w,): (1, A, h, w)."""
        y, x = (
            (self.scale * positions.to(self.waves) + start)
            for positions, start in zip((rows, columns), self.origin, strict=True)
        )
        down, across, offsets = self.waves[:, :1], self.waves[:, 1:], self.offsets[:, None, None]
        phase = (down * y)[:, :, None] + (across * x)[:, None] + offsets
        if self.bend is not None:
            bend = self._interpolate(self._interpolate(self.bend, y, 0), x, 1)
            phase = phase + bend
        return phase[None]

    def _interpolate(self, grid: Tensor, positions: Tensor, axis: int) -> Tensor:
        """Values of a grid (A, h, w) at positions in pixels along an axis."""
        count = grid.shape[axis + 1]
        place = (positions + 0.5) * (count / self.size[axis]) - 0.5
        if not self.periodic[axis]:
            place = place.clamp(0, count - 1)
        below = place.floor()
        share = (place - below).reshape((-1, 1) if axis == 0 else (-1,))
        first = below.long() % count
        second = (first + 1) % count if self.periodic[axis] else (first + 1).clamp(max=count - 1)
        return torch.lerp(
            grid.index_select(axis + 1, first), grid.index_select(axis + 1, second), share
        )

    def grid_positions(self) -> list[Tensor]:
        """Positions down and across, in pixels, of the points of the bend."""
        assert self.bend is not None
        return [
            (torch.arange(count) + 0.5) * (side / count) - 0.5
            for count, side in zip(self.bend.shape[1:], self.size, strict=True)
        ]

    def closed(self, missing: Tensor, periodic: tuple[bool, bool]) -> "PhaseField":
        """The phases bent where pixels are missing, (H, W) bool, so that the image is a torus.

        Waves are whole along the `periodic` axes; elsewhere phases stay as they are. On the missing
        part the bend is harmonic: as smooth as its border allows.
        """
        assert self.bend is not None
        height, width = missing.shape
        count = _grid_size((height, width))
        waves = closed_waves(self.waves, (height, width), periodic)
        grid = replace(
            self, waves=waves, bend=torch.zeros(len(waves), *count), size=(height, width)
        )
        positions = grid.grid_positions()
        flat = replace(grid, bend=None)
        bend = (self(*positions) - flat(*positions))[0]
        free = F.adaptive_max_pool2d(missing[None].float(), count)[0] > 0
        for _ in range(HARMONIC_STEPS):
            neighbors = [
                _shifted(bend, step, axis, periodic) for step in (1, -1) for axis in (0, 1)
            ]
            bend = torch.where(free, torch.stack(neighbors).mean(dim=0), bend)
        return replace(grid, bend=bend, periodic=periodic)

    def window(self, scale: float, origin: tuple[float, float]) -> "PhaseField":
        """The phases of another image, whose position p is scale p + origin in this one."""
        top, left = (self.scale * o + start for o, start in zip(origin, self.origin, strict=True))
        return replace(self, scale=self.scale * scale, origin=(top, left))

    def to(self, device: torch.device) -> "PhaseField":
        bend = None if self.bend is None else self.bend.to(device)
        return replace(
            self, waves=self.waves.to(device), offsets=self.offsets.to(device), bend=bend
        )

    def state(self) -> dict[str, Tensor]:
        """All values as tensors."""
        place = [*self.size, *self.periodic, self.scale, *self.origin]
        values = {"waves": self.waves, "offsets": self.offsets}
        if self.bend is not None:
            values["bend"] = self.bend
        # Cloned, since fields share tensors, which a model file must not.
        state = {name: value.clone() for name, value in values.items()}
        return {**state, "place": torch.tensor(place, dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], device: torch.device) -> "PhaseField":
        """The field that `state` described."""
        height, width, down, across, scale, top, left = state["place"].tolist()
        field = cls(
            state["waves"],
            state["offsets"],
            state.get("bend"),
            (int(height), int(width)),
            (bool(down), bool(across)),
            scale,
            (top, left),
        )
        return field.to(device)


@dataclass(frozen=True)
class Pattern:
    """The pattern of a texture: its lattice and its mean cell.

    waves (A, 2): see `PhaseField`. cell (C, n[, m]): the mean image by phase, 0 in the mean.
    wander (A,): deviation in cycles of the bend of the exemplar about its trend. share: of the
    exemplar's variance that the cell explains, 0 to 1.
    """

    waves: Tensor
    cell: Tensor
    wander: Tensor
    share: Tensor

    @property
    def axes(self) -> int:
        """Along which the pattern repeats, 1 or 2."""
        return len(self.waves)

    def vectors(self) -> list[tuple[float, float]]:
        """The repetition vectors (down, across) in pixels, one for each axis.

        With one axis, that across the stripes.
        """
        return [(float(y), float(x)) for y, x in torch.linalg.pinv(self.waves.double()).T]

    def in_words(self) -> str:
        """The repetition vectors for a person: (across, down) in pixels."""
        return " and ".join(
            f"({across + 0.0:.1f}, {down + 0.0:.1f})".replace("-0.0", "0.0")
            for down, across in sorted(self.vectors(), key=lambda vector: abs(vector[0]))
        )

    def coarser(self, stage: int) -> "Pattern":
        """The pattern in the pixels of a stage of a cascade, which are 2^stage times as large."""
        return replace(self, waves=self.waves * 2**stage)

    def on_torus(
        self,
        size: Sequence[int],
        periodic: tuple[bool, bool],
        generator: torch.Generator,
        regularity: float = 0.0,
    ) -> PhaseField:
        """The phases of a new image of `size` (H, W): a lattice at random, that closes.

        Whole waves along axes that are `periodic`. The lattice bends as the exemplar's does, by a
        smooth random field times 1 - `regularity` (0 to 1).
        """
        waves = closed_waves(self.waves, size, periodic)
        offsets = torch.rand(2, generator=generator)[: self.axes]
        deviation = (1 - regularity) * self.wander
        bend = None
        if float(deviation.max()) > 0:
            height, width = _grid_size(size)
            noise = torch.randn(self.axes, height, width, generator=generator)
            longest = max(math.hypot(*vector) for vector in self.vectors())
            spread = WANDER_WINDOW * longest
            smooth = low_pass(noise, spread, (size[0] / height, size[1] / width))
            bend = smooth / smooth.std().clamp_min(1e-6) * deviation[:, None, None]
        return PhaseField(waves, offsets, bend, (int(size[0]), int(size[1])), (True, True))


def _grid_size(size: Sequence[int]) -> list[int]:
    """Points of a bend down and across over an image (H, W)."""
    return [max(1, round(side / GRID_STEP)) for side in size]


def _shifted(grid: Tensor, step: int, axis: int, periodic: tuple[bool, bool]) -> Tensor:
    """A grid (A, h, w) moved by one point along an axis, which is periodic or repeats its end."""
    moved = grid.roll(step, axis + 1)
    if not periodic[axis]:
        end = 0 if step > 0 else grid.shape[axis + 1] - 1
        moved.select(axis + 1, end).copy_(grid.select(axis + 1, end))
    return moved


def closed_waves(
    waves: Tensor, size: Sequence[int], periodic: tuple[bool, bool] = (True, True)
) -> Tensor:
    """The waves (A, 2) nearest to the given ones of which whole numbers fit a torus (H, W)."""
    closed = waves.clone()
    for axis, side in enumerate(size):
        if periodic[axis]:
            closed[:, axis] = (waves[:, axis] * side).round() / side
    return closed


def strain(waves: Tensor, closed: Tensor) -> float:
    """By how much a lattice is stretched or sheared to have other waves: 0.05 is 5 %."""
    if len(waves) == 1:
        return float((closed - waves).norm() / waves.norm())
    change = torch.linalg.pinv(closed.double()) @ waves.double() - torch.eye(2).double()
    lost = abs(float(torch.linalg.det(closed.double()))) < 1e-12
    return math.inf if lost else float(torch.linalg.matrix_norm(change, 2))


def strain_on_torus(
    pattern: Pattern, size: Sequence[int], periodic: tuple[bool, bool] = (True, True)
) -> float:
    """The strain of the lattice on a torus (H, W) along its periodic axes."""
    return strain(pattern.waves, closed_waves(pattern.waves, size, periodic))


def fitting_sides(pattern: Pattern, size: Sequence[int], axis: int) -> list[int]:
    """The sides nearest to that of `size` (H, W), below and above, on which the lattice closes.

    Empty where none is near: waves that are nearly along the other axis close on long sides only.
    """
    waves, side = pattern.waves[:, axis], size[axis]
    farthest = max(side // 2, pattern_extent(pattern)[axis])
    sides = torch.arange(max(SHORTEST_SIDE, side - farthest), side + farthest + 1)
    turns = sides[:, None] * waves
    misfit = (turns - turns.round()).abs() / (sides[:, None] * pattern.waves.norm(dim=1))
    good = sides[misfit.amax(dim=1) <= VISIBLE_STRAIN]
    below, above = good[good <= side], good[good >= side]
    return sorted({*below[-1:].tolist(), *above[:1].tolist()})


def fitting_size(pattern: Pattern, size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) nearest to `size` on which the lattice closes without distortion."""
    height, width = (
        min(fitting_sides(pattern, size, axis) or [side], key=lambda fit: abs(fit - side))
        for axis, side in enumerate(size)
    )
    return height, width


def pattern_extent(pattern: Pattern) -> list[int]:
    """The height and width in pixels of the repetition vectors together."""
    return [math.ceil(sum(abs(v[axis]) for v in pattern.vectors())) for axis in (0, 1)]


def _blur_image(x: Tensor, deviation: float) -> Tensor:
    """Blur (N, H, W) with zeros beyond its border."""
    border = int(min(3 * deviation, 2 * max(x.shape[-2:])))
    padded = F.pad(x, (0, border, 0, border))
    return low_pass(padded, deviation)[:, : x.shape[-2], : x.shape[-1]]


def mean_cell(image: Tensor, known: Tensor, phases: Tensor) -> Tensor:
    """The mean by phase of the known pixels of an image (C, H, W): (C, n[, m]).

    known: mask (H, W). phases: (A, H, W) in cycles. Cells have a value about every pixel.
    """
    counts = [_cell_samples(phase) for phase in phases]
    total = _fold(torch.cat([image, torch.ones_like(image[:1])]), known, phases, counts)
    cell = total[:-1] / total[-1].clamp_min(1)
    return cell - cell.mean(dim=tuple(range(1, cell.ndim)), keepdim=True)


def _fold(image: Tensor, known: Tensor, phases: Tensor, counts: Sequence[int]) -> Tensor:
    """The sum of the known pixels by phase, in a cell of `counts` values: (C, n[, m])."""
    index = _cell_index(phases, counts)[known]
    total = image.new_zeros(len(image), math.prod(counts))
    return total.index_add_(1, index, image[:, known]).view(-1, *counts)


def _cell_samples(phase: Tensor) -> int:
    """Values of a cell along an axis whose phases are (H, W)."""
    slope = torch.stack([phase.diff(dim=axis).median() for axis in (0, 1)]).norm()
    return max(4, min(CELL_SAMPLES, round(1 / float(slope.clamp_min(1e-3)))))


def _cell_index(phases: Tensor, counts: Sequence[int]) -> Tensor:
    """The flat index of the value of a cell of `counts` nearest to phases (A, H, W): (H, W)."""
    index = torch.zeros(phases.shape[1:], dtype=torch.long, device=phases.device)
    for phase, count in zip(phases, counts, strict=True):
        index = index * count + (phase * count).round().long() % count
    return index


def _render(cell: Tensor, phases: Tensor) -> Tensor:
    """The cell (C, n[, m]) at phases (A, H, W), interpolated: (C, H, W)."""
    grid = cell if cell.ndim == 3 else cell[:, None]
    grid = F.pad(grid[None], (0, 1, 0, 1), mode="circular")  # from 0 to 1, both included
    places = [2 * (phase % 1) - 1 for phase in reversed(phases)]
    if len(places) == 1:
        places.append(torch.zeros_like(places[0]))
    points = torch.stack(places, dim=-1)[None]
    return F.grid_sample(grid, points, mode="bilinear", align_corners=True)[0]


def _with_slopes(cell: Tensor) -> Tensor:
    """A cell and its derivatives by phase: (C, n[, m]) -> (C (1 + A), n[, m])."""
    slopes = [
        (cell.roll(-1, axis) - cell.roll(1, axis)) * (cell.shape[axis] / 2)
        for axis in range(1, cell.ndim)
    ]
    return torch.cat([cell, *slopes])


def _centered(image: Tensor, known: Tensor) -> Tensor:
    """An image (C, H, W) less its mean color; 0 where it is not known."""
    return torch.where(known, image - image[:, known].mean(dim=1)[:, None, None], 0.0)


def explained_share(image: Tensor, known: Tensor, cell: Tensor, phases: Tensor) -> float:
    """The share of the variance of an image (C, H, W) that a cell at phases (A, H, W) explains."""
    centered = _centered(image, known)
    left = (centered - _render(cell, phases))[:, known].square().sum()
    return 1 - float(left / centered[:, known].square().sum().clamp_min(1e-12))


def _grid(field: PhaseField, size: tuple[int, int]) -> Tensor:
    """The phases (A, H, W) of all pixels of an image."""
    rows, columns = (torch.arange(side, device=field.waves.device) for side in size)
    return field(rows, columns)[0]


def register(
    image: Tensor, known: Tensor, start: PhaseField, cell: Tensor | None = None
) -> tuple[PhaseField, Tensor]:
    """The phases of an image (C, H, W), from those of `start`, and the mean cell (C, n[, m]).

    cell: of another image of the texture, kept as it is; by default that of the image itself, which
    becomes sharper with the phases. known: mask (H, W) of the pixels to use.
    """
    size = (image.shape[1], image.shape[2])
    if math.prod(size) > LARGEST_SIDE**2 and min(size) > 2 * GRID_STEP:
        coarse, mask = (
            F.avg_pool2d(image[None], 2)[0],
            -F.max_pool2d(-known[None].float(), 2)[0] > 0,
        )
        field, _ = register(coarse, mask, start.window(2, (0.5, 0.5)), cell)
        field = replace(start, bend=field.bend, size=size)
        phases = _grid(field, size)
        return field, mean_cell(image, known, phases) if cell is None else cell
    centered = _centered(image, known)
    straight = _grid(replace(start, bend=None), size)
    bend = _grid(start, size) - straight
    period = 1 / float(start.waves.norm(dim=1).min())
    fixed = cell
    for window in WINDOWS:
        for _ in range(STEPS_PER_WINDOW):
            phases = straight + bend
            cell = mean_cell(centered, known, phases) if fixed is None else fixed
            rendered = torch.where(known, _render(_with_slopes(cell), phases), 0.0)
            model, *slopes = torch.split(rendered, len(image))
            error = centered - model
            bend = bend + _moves(slopes, error, window * period)
            # The mean bend belongs to the lattice; a cell of the image itself may not drift.
            if fixed is None:
                bend = bend - bend.mean(dim=(1, 2), keepdim=True)
        bend = _blur_edges(bend, min(window, 1.0) * period / 4)
    grid = F.interpolate(bend[None], _grid_size(size), mode="area")
    field = replace(start, bend=grid[0], size=size)
    phases = _grid(field, size)
    return field, mean_cell(centered, known, phases) if fixed is None else fixed


def _moves(slopes: list[Tensor], error: Tensor, deviation: float) -> Tensor:
    """The Gauss-Newton step of the phases, (A, H, W), over Gaussian windows of a deviation."""
    axes = len(slopes)
    pairs = [(a, b) for a in range(axes) for b in range(a, axes)]
    products = [(slopes[a] * slopes[b]).sum(dim=0) for a, b in pairs]
    products += [(slope * error).sum(dim=0) for slope in slopes]
    smooth = _blur_image(torch.stack(products), deviation)
    ridge = RIDGE * max(float(smooth[pairs.index((a, a))].mean()) for a in range(axes))
    if axes == 1:
        move = smooth[1:] / (smooth[:1] + ridge)
    else:
        first, mixed, second = smooth[0] + ridge, smooth[1], smooth[2] + ridge
        determinant = first * second - mixed.square()
        move = torch.stack(
            [
                (second * smooth[3] - mixed * smooth[4]) / determinant,
                (first * smooth[4] - mixed * smooth[3]) / determinant,
            ]
        )
    return move.clamp(-LARGEST_MOVE, LARGEST_MOVE)


def _blur_edges(x: Tensor, deviation: float) -> Tensor:
    """Blur (A, H, W), normalized at the border."""
    return _blur_image(x, deviation) / _blur_image(torch.ones_like(x), deviation)


def learn_pattern(
    images: Sequence[Tensor], known: Sequence[Tensor], start: PhaseField
) -> tuple[Pattern, list[PhaseField]]:
    """The pattern of images (C, H, W) of one texture, and their phases.

    known: masks (H, W). start: about the phases of the first image. The phases of all images are
    those of the first one's cell. Raises ValueError if the images do not share the pattern.
    """
    field, cell = register(images[0], known[0], start)
    field = _straightened(field, known[0])
    fields = [field]
    phases = _grid(field, (images[0].shape[1], images[0].shape[2]))
    share = explained_share(images[0], known[0], cell, phases)
    pattern = Pattern(field.waves, cell, _wander(field, known[0]), torch.tensor(share))
    for number, (image, mask) in enumerate(zip(images[1:], known[1:], strict=True), 2):
        found = locate(pattern, image, mask)
        if found is None:
            raise ValueError(f"image {number} does not show the pattern of the first")
        fields.append(found)
    return pattern, fields


def follow_drift(image: Tensor, known: Tensor, start: PhaseField) -> PhaseField:
    """The phases of an image (C, H, W) from those about its center, which `start` has.

    known: mask (H, W). They are registered on growing parts of the image, and each time continued
    outwards by a quadratic trend.
    """
    rows, columns = (torch.linspace(-1, 1, side) for side in known.shape)
    radius, field = torch.hypot(rows[:, None], columns), start
    for reach in GROWTH:
        inside = known & (radius <= reach)
        field, _ = register(image, inside, field)
        field = replace(field, bend=_quadratic_trend(field, inside))
    return field


def _fit(field: PhaseField, known: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The weights (n, A) of functions (points, n) nearest to a bend on the known pixels.

    Returns them and the fitted bend (A, h, w).
    """
    assert field.bend is not None
    size = field.bend.shape[1:]
    weights = F.interpolate(known[None, None].float(), size, mode="area").flatten()
    # In double precision, else the last bits would depend on the alignment of the memory.
    basis, weighted = basis.double(), weights.double().sqrt()[:, None]
    bends = field.bend.double().flatten(1).T
    solution: Tensor = torch.linalg.lstsq(weighted * basis, weighted * bends).solution
    fitted = (basis @ solution).T.reshape(field.bend.shape)
    return solution.to(field.bend), fitted.to(field.bend)


def _quadratic_trend(field: PhaseField, known: Tensor) -> Tensor:
    """The quadratic polynomial nearest to a bend on the known pixels, (A, h, w)."""
    assert field.bend is not None
    y, x = (torch.linspace(-1, 1, count) for count in field.bend.shape[1:])
    y, x = (part.flatten() for part in torch.meshgrid(y, x, indexing="ij"))
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=1)
    return _fit(field, known, basis)[1]


def _straightened(field: PhaseField, known: Tensor) -> PhaseField:
    """The same phases, with the linear trend of the bend in the waves.

    known: mask (H, W). Away from known pixels the bend fades, so that the lattice goes on straight.
    """
    assert field.bend is not None
    plane = torch.stack(torch.meshgrid(*field.grid_positions(), indexing="ij")).flatten(1)
    slopes, trend = _fit(field, known, torch.cat([plane, torch.ones(1, plane.shape[1])]).T)
    shares = F.interpolate(known[None, None].float(), field.bend.shape[1:], mode="area")[0]
    rest = (field.bend - trend) * shares
    if not bool(known.all()):
        rest = _blur_image(rest, 1.0) / (_blur_image(shares, 1.0) + RIDGE)
    offsets = field.offsets + slopes[2]
    return replace(field, waves=field.waves + slopes[:2].T, offsets=offsets, bend=rest)


def _wander(field: PhaseField, known: Tensor) -> Tensor:
    """The deviation in cycles of a bend about its quadratic trend, (A,)."""
    assert field.bend is not None
    if min(field.bend.shape[1:]) < 3:
        return torch.zeros(len(field.waves))
    rest: Tensor = field.bend - _quadratic_trend(field, known)
    return rest.flatten(1).std(dim=1)


def locate(pattern: Pattern, image: Tensor, known: Tensor | None = None) -> PhaseField | None:
    """The phases of a given image (C, H, W), in model units, of the pattern's texture.

    None if the pattern is not in the image. known: mask (H, W) of the pixels to use.
    """
    if known is None:
        known = torch.ones_like(image[0], dtype=torch.bool)
    if not bool(known.any()):
        return None
    start = PhaseField(pattern.waves, torch.zeros(pattern.axes))
    size = (image.shape[1], image.shape[2])
    centered = _centered(image, known)
    counts = pattern.cell.shape[1:]
    folded = _fold(centered, known, _grid(start, size), counts)
    dims = tuple(range(1, len(counts) + 1))
    spectra = [torch.fft.fftn(part, dim=dims) for part in (folded, pattern.cell)]
    match = torch.fft.ifftn((spectra[0].conj() * spectra[1]).sum(dim=0)).real
    best = torch.unravel_index(match.argmax(), match.shape)
    offsets = torch.stack([k / n for k, n in zip(best, match.shape, strict=True)])
    field, _ = register(image, known, replace(start, offsets=offsets.float()), pattern.cell)
    field = _straightened(field, known)
    share = explained_share(image, known, pattern.cell, _grid(field, size))
    return field if share >= MIN_SHARE * float(pattern.share) else None
