"""Observed batches: all images, some of them, or random crops of larger ones."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FEW_PLACES = 256  # of a crop between what is not known: from here there is enough to choose from
ENOUGH = 0.75  # of a crop's side: where holes leave less room, they are filled in place of avoided
MOST_FILLED = 0.5  # of a crop
TRIES = 64  # places that a hole is filled from


def free_places(hidden: Tensor, side: int, most: float = 0.0) -> Tensor:
    """Top left corners (n, 2) of windows of `side` with no more than a share of `hidden` (H, W)."""
    sums = F.pad(hidden.to(torch.int64).cumsum(0).cumsum(1), (1, 0, 1, 0))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (inside <= most * side**2).nonzero()


def roomiest(picture: Tensor) -> int:
    """The side of the largest crop of a picture (C, H, W) that there is enough room for.

    Where all of it is known, its shorter side. NaN is not known.
    """
    hidden = picture.isnan().any(dim=0)
    low, high = 0, min(hidden.shape)
    if not bool(hidden.any()):
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if len(free_places(hidden, middle)) >= FEW_PLACES:
            low = middle
        else:
            high = middle - 1
    return low


def room_for(picture: Tensor, crop: int) -> int:
    """The side of the crops that a picture (C, H, W) has room for, up to its shorter side.

    Where holes are so scattered that little room is left, as much as there is without them.
    """
    shorter, free = min(picture.shape[1:]), roomiest(picture)
    return free if free >= ENOUGH * min(crop, shorter) else shorter


def filled(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A picture (C, H, W) whose holes (NaN) have pixels from elsewhere in it, moved at random.

    So they have its colours and its finest grain, if not its things. Raises ValueError where too
    little is known.
    """
    made = picture.clone()
    for _ in range(TRIES):
        hidden = made.isnan().any(dim=0)
        if not bool(hidden.any()):
            return made
        moves = [int(torch.randint(side, (1,), generator=generator)) for side in picture.shape[1:]]
        made = torch.where(hidden, picture.roll(moves, (1, 2)), made)
    raise ValueError("too little of a picture is known to learn from")


class Observation(NamedTuple):
    """A batch: images (N, C, H, W), and which pixels of them are known, (N, 1, H, W) of 0 and 1."""

    images: Tensor
    known: Tensor | None  # None where all are


class Batches:
    """Draws observed batches from pictures (C, H, W); one named generator, saved with the run.

    Crops leave out what is NaN; where it is so scattered that it leaves no room for them, it is
    `filled`, and is known to be.

    crop = None takes whole pictures, which must then have one size, and never one twice;
    batch_size = None takes all of them (of crops: one a picture).
    """

    def __init__(
        self,
        pictures: Sequence[Tensor],
        *,
        crop: int | None,
        batch_size: int | None,
        generator: torch.Generator,
        flips: bool = False,
        rotations: bool = False,
        shifts: int = 0,
    ) -> None:
        """Raises ValueError where pictures differ in size or are smaller than the crop.

        `shifts`: pixels by which a whole picture may move to any side; its edges are repeated.
        """
        sizes = {tuple(p.shape) for p in pictures}
        if crop is None and len(sizes) > 1:
            raise ValueError("pictures differ in size: give one size for all, or a crop")
        if crop is not None and min(min(size[1:]) for size in sizes) < crop:
            raise ValueError(f"crop {crop} is larger than the smallest picture")
        self.pictures = list(pictures)
        hidden = [picture.isnan().any(dim=0).cpu() for picture in pictures]
        if crop is None and any(bool(one.any()) for one in hidden):
            raise ValueError("whole pictures are learned, but of some a part is hidden")
        self.holes: dict[int, Tensor] = {}  # of filled pictures, by their number: (H, W) bool
        self._places: list[Tensor | None] = []
        for number, (picture, one) in enumerate(zip(pictures, hidden, strict=True)):
            if crop is None or not bool(one.any()):
                self._places.append(None)
                continue
            if roomiest(picture) < crop:
                self.holes[number] = one.to(picture.device)
                self.pictures[number] = filled(picture, generator)
            most = MOST_FILLED if number in self.holes else 0.0
            places = free_places(one, crop, most)
            if not len(places):
                raise ValueError("too little of a picture is known to learn from")
            self._places.append(places)
        self.crop = crop
        wanted = batch_size or len(pictures)
        self.batch_size = min(wanted, len(pictures)) if crop is None else wanted
        self.generator = generator
        self.flips, self.rotations, self.shifts = flips, rotations, shifts

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images in a batch."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.picture_size

    @property
    def picture_size(self) -> tuple[int, int]:
        """(H, W) of the first picture, before any crop."""
        return self.pictures[0].shape[1], self.pictures[0].shape[2]

    def __call__(self) -> Tensor:
        """The next batch, (batch_size, C, H, W)."""
        return self.observe().images

    def observe(self) -> Observation:
        """The next batch, and what of it is known."""
        if not self.holes:
            return Observation(self._drawn(self.pictures), None)
        marked = []
        for number, picture in enumerate(self.pictures):
            known = torch.ones_like(picture[:1])
            if number in self.holes:
                known.masked_fill_(self.holes[number], 0)
            marked.append(torch.cat([picture, known]))
        drawn = self._drawn(marked)
        return Observation(drawn[:, :-1].contiguous(), drawn[:, -1:].contiguous())

    def _drawn(self, pictures: Sequence[Tensor]) -> Tensor:
        turned = self.flips or self.rotations or self.shifts
        if self.crop is None and self.batch_size >= len(self.pictures) and not turned:
            return torch.stack(list(pictures))
        order = torch.randperm(len(pictures), generator=self.generator).tolist()
        chosen = [order[k % len(order)] for k in range(self.batch_size)]
        cuts = (self._cut(pictures[number], self._places[number]) for number in chosen)
        return torch.stack([self._turn(cut) for cut in cuts])

    def _cut(self, picture: Tensor, places: Tensor | None) -> Tensor:
        if self.crop is None:
            return self._shifted(picture) if self.shifts else picture
        if places is None:
            top, left = (self._below(side - self.crop + 1) for side in picture.shape[1:])
        else:
            top, left = places[self._below(len(places))].tolist()
        return picture[:, top : top + self.crop, left : left + self.crop]

    def _shifted(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[1:]
        wider = F.pad(picture[None], (self.shifts,) * 4, mode="replicate")[0]
        top, left = (self._below(2 * self.shifts + 1) for _ in range(2))
        return wider[:, top : top + height, left : left + width]

    def _turn(self, picture: Tensor) -> Tensor:
        if self.flips and self._below(2):
            picture = picture.flip(-1)
        return picture.rot90(self._below(4), (-2, -1)) if self.rotations else picture

    def _below(self, bound: int) -> int:
        return int(torch.randint(bound, (1,), generator=self.generator))
