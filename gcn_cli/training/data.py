"""Observed batches: all images, some of them, or random crops of larger ones.

What ladders at lower resolutions learn from: coarser pictures, each at a range of levels.

Holes in what is observed, filled by samples of the model given the rest.

Maximum likelihood from incomplete data by stochastic expectation-maximisation: what is hidden is
drawn from what the model says of it, and the model learns on. The denoising loss leaves hidden
pixels out; the filters, and the likelihood, see a picture without holes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.models.cascade import make_denoiser
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.inpainting import KnownPixels
from gcn_cli.samplers.rng import ImageNoise, named_generator

FEW_PLACES = 256  # of a crop between what is not known: from here there is enough to choose from
ENOUGH_ROOM = (
    0.75  # of a crop's side: where holes leave less room, they are filled in place of avoided
)
MOST_FILLED = 0.5  # of a crop
TRIES = 64  # places that a hole is filled from


def free_positions(hidden: Tensor, side: int, most: float = 0.0) -> Tensor:
    """Top left corners (n, 2) of windows of `side` with no more than a share of `hidden` (H, W)."""
    sums = F.pad(hidden.to(torch.int64).cumsum(0).cumsum(1), (1, 0, 1, 0))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (inside <= most * side**2).nonzero()


def largest_crop(picture: Tensor) -> int:
    """The side of the largest crop of a picture (C, H, W) that there is enough room for.

    Where all of it is known, its shorter side. NaN is not known.
    """
    hidden = picture.isnan().any(dim=0)
    low, high = 0, min(hidden.shape)
    if not bool(hidden.any()):
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if len(free_positions(hidden, middle)) >= FEW_PLACES:
            low = middle
        else:
            high = middle - 1
    return low


def crop_limit(picture: Tensor, crop: int) -> int:
    """The side of the crops that a picture (C, H, W) has room for, up to its shorter side.

    Where holes are so scattered that little room is left, as much as there is without them.
    """
    shorter, free = min(picture.shape[1:]), largest_crop(picture)
    return free if free >= ENOUGH_ROOM * min(crop, shorter) else shorter


def fill_holes(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A picture (C, H, W) whose holes (NaN) have pixels from elsewhere in it, moved at random.

    So they have its colors and its finest grain, if not its things. Raises ValueError where too
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


class Batch(NamedTuple):
    """A batch: images (N, C, H, W), and which pixels of them are known, (N, 1, H, W) of 0 and 1."""

    images: Tensor
    known: Tensor | None  # None where all are


class TrainingData:
    """Draws observed batches from pictures (C, H, W); one named generator, saved with the run.

    Crops leave out what is NaN; where it is so scattered that it leaves no room for them, it is
    `fill_holes`, and is known to be.

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
            if largest_crop(picture) < crop:
                self.holes[number] = one.to(picture.device)
                self.pictures[number] = fill_holes(picture, generator)
            most = MOST_FILLED if number in self.holes else 0.0
            places = free_positions(one, crop, most)
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

    def observe(self) -> Batch:
        """The next batch, and what of it is known."""
        if not self.holes:
            return Batch(self._drawn(self.pictures), None)
        marked = []
        for number, picture in enumerate(self.pictures):
            known = torch.ones_like(picture[:1])
            if number in self.holes:
                known.masked_fill_(self.holes[number], 0)
            marked.append(torch.cat([picture, known]))
        drawn = self._drawn(marked)
        return Batch(drawn[:, :-1].contiguous(), drawn[:, -1:].contiguous())

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


# Times the deviation of what a coarser picture lacks: noise that hides it, at full resolution and
# below, where pixels are sharper.
HIDDEN = (2.5, 4.0)
# Ladders also learn the levels up to so many times, and down to one so-many-th of, the handovers:
# on a way of some length their chains show what is wrong with them.
ABOVE, BELOW = 2.5, 2.5
# Large things are not made by denoising, which is content with patches of the right colors, but by
# likelihood: the share of a coarser ladder's iterations that it has, and that of the learning
# rates it begins with, up to so many images asked for an iteration.
SETTLING, SETTLING_RATE, SETTLING_IMAGES = 0.8, 0.3, 4
SETTLED_FULLY = 560  # iterations with it for which that holds: as many as there are by default
# How far apart their data and chains may be, in F a value. Things that are whole or not differ by
# more than grain does: under the bound of full resolution joints and edges fade.
SETTLING_GAP = 0.035
# Of more ladders than so many, as of pictures from 896 pixels on, contrast runs away at that rate.
SETTLING_LADDERS, CALM_RATE = 3, 0.1
MOST_SHOWN = 6 / 7  # of a coarser picture, by a crop: so that crops differ
SEEDS_APART = 7919  # of ladders, so that no two draw the same


def transition_noise(number: int, contrast: float) -> float:
    """The noise that hides what coarser picture `number` lacks, in deviations of the finer one.

    The coarser picture, of means of 2x2, has 1 / contrast^2 of the variance.
    """
    return HIDDEN[min(number, 1)] * math.sqrt(max(0.0, 1 - 1 / contrast**2))


def coarse_likelihood_rate(images: int, ladders: int) -> float:
    """The share of the learning rates at which the likelihood of coarser ladders begins.

    `images` are as many an iteration as were asked for (ladders have two each at least). The more
    there are, the more a step does: Muon's is as long as ever, and less of it is chance. Contrast
    would run away; it does with more `ladders`, too.
    """
    highest = SETTLING_RATE if ladders <= SETTLING_LADDERS else CALM_RATE
    return highest * min(1.0, SETTLING_IMAGES / images)


def level_ranges(
    config: NoiseConditionalConfig, contrasts: Sequence[float]
) -> tuple[list[float], list[tuple[float, float]]]:
    """The handover to every coarser ladder, and the lowest and highest level that each learns.

    All in deviations of a ladder's own data; a handover, of the finer one's. Raises ValueError
    where there are no levels for a coarser ladder.
    """
    handovers, ranges = [], []
    lowest, highest = config.noise_min, config.noise_max
    for number, contrast in enumerate(contrasts):
        # A picture without details leaves a finer ladder little to do, but not nothing.
        handover = max(transition_noise(number, contrast), 2 * lowest)
        if handover >= highest:
            raise ValueError(f"--octaves: no levels are above the handover, {handover:.2g}")
        handovers.append(handover)
        ranges.append((lowest, min(ABOVE * handover, highest)))
        lowest, highest = handover * contrast / 2 / BELOW, highest * contrast / 2
    return handovers, [*ranges, (lowest, highest)]


def coarser_data(
    config: NoiseConditionalConfig, observed: TrainingData, count: int, stride: int
) -> tuple[list[TrainingData], list[float]]:
    """What `count` coarser ladders learn from, and by what each picture of 2x2 means is multiplied.

    Raises ValueError where a picture gets too small for that.
    """
    pictures, made, contrasts = list(observed.pictures), [], []
    for hole, hidden in observed.holes.items():  # filled at full resolution, but not known
        pictures[hole] = pictures[hole].masked_fill(hidden, torch.nan)
    for number in range(1, count + 1):
        pictures = [half_size(picture) for picture in pictures]
        known = torch.cat([one[one.isfinite()] for one in pictures])
        contrasts.append(1 / max(1e-3, float(known.square().mean().sqrt())))
        pictures = [contrasts[-1] * picture for picture in pictures]
        side = min(min(picture.shape[1:]) for picture in pictures)
        crop = min(observed.image_size[0], int(MOST_SHOWN * side) // stride * stride)
        if crop < 2 * stride:
            raise ValueError(f"--octaves: a picture 1/{2**number} as large shows too little")
        own = TrainingData(
            pictures,
            crop=crop,
            batch_size=observed.batch_size,
            generator=named_generator(config.seed + SEEDS_APART * number, "batches"),
            flips=config.flips,
            rotations=config.rotations,
        )
        made.append(own)
    return made, contrasts


def coarse_share(picture: Tensor) -> float:
    """The share of the variance of a picture (C, H, W) that its means of 4x4 pixels keep, 0..1.

    What is NaN is left out.
    """
    about = picture - picture.nanmean(dim=(1, 2), keepdim=True)
    whole, coarse = (one.square().nanmean() for one in (about, half_size(half_size(about))))
    return float(coarse / whole.clamp_min(1e-12))


def half_size(picture: Tensor) -> Tensor:
    """Means of 2x2 pixels (C, H, W), of what is known of them; NaN where less than half is."""
    height, width = (side // 2 * 2 for side in picture.shape[1:])
    whole = picture[:, :height, :width]
    blocks = whole.reshape(len(picture), height // 2, 2, width // 2, 2)
    known = blocks.isfinite().all(dim=0).sum(dim=(1, 3))
    mean: Tensor = blocks.nanmean(dim=(2, 4))
    return mean.masked_fill(known < 2, torch.nan)


RENEWALS = (0.25, 0.5, 0.78)  # shares of a training after which holes are drawn anew
LEVELS = 16
ROUNDS = 2  # of each level


class Imputation:
    """When holes are drawn anew, and how often they have been."""

    def __init__(self, seed: int, highest: float, lowest: float) -> None:
        """`highest` and `lowest` are the levels of the ladder."""
        self.seed, self.levels = seed, noise_levels(LEVELS, highest, lowest)
        self.renewed = 0

    def due(self, done: float) -> bool:
        """Whether it is time, so much of a training (0..1) being done."""
        return self.renewed < len(RENEWALS) and done > RENEWALS[self.renewed]

    @torch.no_grad()
    def renew(self, observed: TrainingData, model: NoiseConditionalNet, dtype: torch.dtype) -> None:
        """Draw the holes of observed pictures from the model given what is known."""
        denoise = make_denoiser(model, dtype)
        stride = model.whole_stride
        for number, hole in observed.holes.items():
            picture = observed.pictures[number]
            height, width = hole.shape
            beyond = (0, -width % stride, 0, -height % stride)
            known = F.pad(picture[None], beyond, mode="reflect")
            anew = F.pad(hole[None, None].float(), beyond, mode="reflect")[0, 0] > 0
            draws = self.seed + self.renewed
            noise = ImageNoise(draws, "imputation", [number], known.device)
            start = known + self.levels[0] * noise(known.shape)
            held = KnownPixels(known, anew).holding(denoise)
            made = anneal(start, held, self.levels, noise, rounds=ROUNDS)
            observed.pictures[number] = made[0, :, :height, :width].contiguous()
        self.renewed += 1

    def state(self, observed: TrainingData) -> dict[str, Tensor]:
        """Everything to go on as if never stopped."""
        pictures = {f"picture{k}": observed.pictures[k] for k in observed.holes}
        return {**pictures, "renewed": torch.tensor(self.renewed)}

    def load_state(self, state: dict[str, Tensor], observed: TrainingData) -> None:
        """Put back what `state` returned."""
        for number in observed.holes:
            observed.pictures[number] = state[f"picture{number}"].to(observed.pictures[number])
        self.renewed = int(state["renewed"])
