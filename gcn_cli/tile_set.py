"""Interchangeable tiles: textures with the same bands along their edges and different insides.

Tiles of a set fit each other in any order, so that a large floor does not repeat. All are sampled
from one model: the bands first, then every inside given the bands, as a repair is.

With several edge colors it is a Wang set: an edge has one of several bands, its color, and tiles
fit where their colors agree. Every combination of colors is a tile. Bands of all colors agree near
the corners, where four tiles meet.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.errors import InputError
from gcn_cli.kinds import ModelKind
from gcn_cli.models.noise_conditional import PhaseMap
from gcn_cli.options import ReconstructOptions, SampleOptions
from gcn_cli.samplers.guidance import KnownPixels
from gcn_cli.samplers.rng import named_generator
from gcn_cli.synthesis import (
    OnEvaluation,
    check_lattice,
    evaluation_counter,
    lattice,
    plan_tiling,
    requested_size,
    to_finished_pixels,
)

BORDER = 32  # pixels, of the bands by default
CORNER = 16  # pixels beyond the bands where they meet, that bands of all colors share
SURROUNDING = 32  # pixels beyond the bands that are sampled too, where the bands do not tile alone
RESAMPLING_STEPS = ReconstructOptions.resampling_steps  # the inside adapts to the bands


class Edges(NamedTuple):
    """Colors of the edges of a tile."""

    top: int
    right: int
    bottom: int
    left: int


@dataclass(frozen=True)
class TileSet:
    """The tiles of one seed: their number, and the width of the bands in pixels.

    variants: tiles of each combination of edge colors. Tile `index` has variant index // colors^4
    of the combination index % colors^4, whose digits in base `colors` are top, right, bottom, left.
    """

    variants: int
    colors: int
    border: int

    @classmethod
    def of(cls, options: SampleOptions) -> "TileSet | None":
        """The tile set that options ask for; None if they ask for single images."""
        if options.variants is None and options.edges is None:
            return None
        border = BORDER if options.border is None else options.border
        return cls(options.variants or 1, options.edges or 1, border)

    def __len__(self) -> int:
        return self.variants * self.colors**4

    def edges(self, index: int) -> Edges:
        """The edge colors of a tile."""
        digits = [index // self.colors**place % self.colors for place in (3, 2, 1, 0)]
        return Edges(*digits)

    def is_base(self, index: int) -> bool:
        """Whether the tile is the sample that the bands of its color are from."""
        return index < self.colors**4 and len(set(self.edges(index))) == 1

    def check(self, size: tuple[int, int]) -> None:
        """Raise InputError if tiles of `size` (height, width) have no inside."""
        least = 4 * self.border + (2 * CORNER if self.colors > 1 else 0)
        if min(size) < least:
            raise InputError(
                f"--border {self.border}: tiles of {size[1]}x{size[0]} pixels must have sides of "
                f"{least} or more; use a smaller --border or a larger --size"
            )

    def evaluations(self, kind: ModelKind, options: SampleOptions, indices: Sequence[int]) -> int:
        """Evaluations of the network for the tiles of these indices, with those for the bands."""
        single, given = kind.evaluations(options), kind.evaluations(given_options(options))
        sampled = sum(not self.is_base(index) for index in indices)
        return single + given * (self.colors - 1 + sampled)

    @property
    def margin(self) -> int:
        """Pixels beyond a tile that are sampled with it. Bands of one color tile by themselves."""
        return 0 if self.colors == 1 else self.border + SURROUNDING

    def arrange(self, rows: int, columns: int, seed: int = 0) -> list[list[int]]:
        """Tiles at random, each of which fits its neighbors: indices, a list for each row."""
        generator, laid = named_generator(seed, "tiles"), list[list[int]]()
        for row in range(rows):
            laid.append([])
            for column in range(columns):
                fitting = [
                    index
                    for index in range(len(self))
                    if (not column or self.edges(index).left == self.edges(laid[row][-1]).right)
                    and (not row or self.edges(index).top == self.edges(laid[-2][column]).bottom)
                ]
                choice = int(torch.randint(len(fitting), (), generator=generator))
                laid[row].append(fitting[choice])
        return laid


def given_options(options: SampleOptions) -> SampleOptions:
    """The options of samples that keep given pixels."""
    return replace(options, resampling_steps=RESAMPLING_STEPS)


def sample_tiles(
    checkpoint: Checkpoint,
    options: SampleOptions,
    indices: Sequence[int],
    dtype: torch.dtype,
    *,
    tiles: TileSet,
    on_step: OnEvaluation | None = None,
    on_state: Callable[[Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """The tiles of these indices, (C, H, W) in 0..255, each as soon as it is complete.

    `on_state` gets the chain (1, C, H, W), in model units, after every evaluation. A tile depends
    on its index and the seed, not on the other indices nor on the number of variants. Raises
    InputError for models that do not tile or cannot keep given pixels.
    """
    kind = checkpoint.kind
    if not kind.keeps_known_pixels or checkpoint.config.head:
        raise InputError(
            "--variants, --edges: need a texture model with noise levels, such as that of --preset "
            "default"
        )
    if not all(kind.periodic_axes(options)):
        raise InputError("--variants, --edges: tiles are seamless; leave --seamless off out")
    size = requested_size(checkpoint, options)
    tiles.check(size)
    check_lattice(checkpoint, options, size)
    count = evaluation_counter(on_step, tiles.evaluations(kind, options, indices))
    phases = lattice(checkpoint, options, size, 0)
    sampler = _TileSampler(checkpoint, options, tiles, size, dtype, phases, count, on_state)
    for index in indices:
        yield sampler.tile(index)


@dataclass
class _TileSampler:
    """Samples the tiles of a set. `size` is (height, width)."""

    checkpoint: Checkpoint
    options: SampleOptions
    tiles: TileSet
    size: tuple[int, int]
    dtype: torch.dtype
    phases: PhaseMap | None  # of the lattice that all tiles share
    count: Callable[[], None]  # called after every evaluation
    on_state: Callable[[Tensor], None] | None
    bases: dict[int, Tensor] = field(default_factory=dict)  # seamless samples, by edge color

    def tile(self, index: int) -> Tensor:
        """The tile of an index, (C, H, W) in 0..255."""
        edges = self.tiles.edges(index)
        if self.tiles.is_base(index):
            return self.base(edges.top).clone()
        colors = self._colors(edges)
        margin, (height, width) = self.tiles.margin, self.size
        image = self._complete(colors, index, (margin, margin))
        return image[:, margin : margin + height, margin : margin + width]

    def base(self, color: int) -> Tensor:
        """The seamless sample (C, H, W) in 0..255 whose edges are the bands of a color."""
        if color not in self.bases and color == 0:
            self.bases[0] = self._sample(self.options, 0, self.size, None, self.phases)
        elif color not in self.bases:
            # Near the corners all colors are the same; elsewhere the sample is a new one.
            corner = torch.full(self.size, -1)
            down, across = (_distance(torch.arange(side), side) for side in self.size)
            nearer = torch.minimum(down[:, None], across) < self.tiles.border
            farther = torch.maximum(down[:, None], across) < self.tiles.border + CORNER
            corner[nearer & farther] = 0
            self.bases[color] = self._complete(corner, -color, (0, 0))
        return self.bases[color]

    def _colors(self, edges: Edges) -> Tensor:
        """The color of the band at every pixel of a tile and its margin; -1 where there is none.

        Neighbors show their sides of the bands, which go on into those of the same corner.
        """
        border, margin = self.tiles.border, self.tiles.margin
        rows, columns = (torch.arange(-margin, side + margin) for side in self.size)
        height, width = self.size
        down, across = rows[:, None], columns[None]
        colors = torch.full((len(rows), len(columns)), -1)
        own_rows = ((down >= 0) & (down < height)).expand_as(colors)
        own_columns = ((across >= 0) & (across < width)).expand_as(colors)
        in_band = torch.zeros_like(colors, dtype=torch.bool)
        for place, color, position, along in (
            (0, edges.top, down, own_columns),
            (height, edges.bottom, down, own_columns),
            (0, edges.left, across, own_rows),
            (width, edges.right, across, own_rows),
        ):
            band = (position >= place - border) & (position < place + border)
            in_band |= band
            colors[band & along] = color
        reach = border + CORNER
        near = [(-reach <= position) & (position < reach)
                | (side - reach <= position) & (position < side + reach)
                for position, side in ((down, height), (across, width))]  # fmt: skip
        colors[in_band & near[0] & near[1]] = 0
        return colors

    def _complete(self, colors: Tensor, index: int, start: tuple[int, int]) -> Tensor:
        """An image with the bands of `colors` (H, W), sampled where it is -1; (C, H, W) in 0..255.

        start: (row, column) of the tile's first pixel in the image.
        """
        missing = colors < 0
        rows, columns = (
            (torch.arange(length) - first) % side
            for length, first, side in zip(colors.shape, start, self.size, strict=True)
        )
        image = self.base(0)[:, rows][:, :, columns]
        for color in range(1, self.tiles.colors):
            if bool((colors == color).any()):
                band = self.base(color)[:, rows][:, :, columns]
                image = torch.where(colors == color, band, image)
        x = torch.where(missing, 0.0, self.checkpoint.normalization.to_model(image))
        device = self.checkpoint.kind.device
        known = KnownPixels(x[None].to(device), missing.to(device))
        sample = self._sample(
            given_options(self.options),
            index,
            (len(rows), len(columns)),
            known,
            self._phases(start),
        )
        return torch.where(missing, sample, image)

    def _phases(self, start: tuple[int, int]) -> PhaseMap | None:
        """The phases in an image whose tile begins at `start`."""
        phases = self.phases
        if phases is None or start == (0, 0):
            return phases
        return lambda rows, columns: phases(rows - start[0], columns - start[1])

    def _sample(
        self,
        options: SampleOptions,
        index: int,
        size: tuple[int, int],
        known: KnownPixels | None,
        phases: PhaseMap | None,
    ) -> Tensor:
        """One sample of `size` on the torus, (C, H, W) in 0..255."""
        kind = self.checkpoint.kind
        extra = 8 * self.checkpoint.config.channel_count * math.prod(size)  # known, and result
        plan = plan_tiling(kind, options, size, self.dtype, options.tile, extra_bytes=extra)

        def callback(_: int, x: Tensor) -> None:
            self.count()
            if self.on_state is not None:
                self.on_state(x)

        x = kind.sample(
            options, [index], None, plan, self.dtype, callback, known=known, phases=phases
        )
        return to_finished_pixels(self.checkpoint, x)[0]


def _distance(positions: Tensor, side: int) -> Tensor:
    """Whole pixels between positions and the nearest end of an axis."""
    return torch.minimum(positions, side - 1 - positions)
