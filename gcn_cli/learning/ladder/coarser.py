"""What ladders at lower resolutions learn from: coarser pictures, each at a range of levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcn_cli.config import LadderConfig
from gcn_cli.learning.batches import Batches
from gcn_cli.sampling.noise import named_generator

# Times the deviation of what a coarser picture lacks: noise that hides it, at full resolution and
# below, where pixels are sharper.
HIDDEN = (2.5, 4.0)
# Ladders also learn the levels up to so many times, and down to one so-many-th of, the handovers:
# on a way of some length their chains show what is wrong with them.
ABOVE, BELOW = 2.5, 2.5
# Large things are not made by denoising, which is content with patches of the right colours, but by
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


def hiding_level(number: int, contrast: float) -> float:
    """The noise that hides what coarser picture `number` lacks, in deviations of the finer one.

    The coarser picture, of means of 2x2, has 1 / contrast^2 of the variance.
    """
    return HIDDEN[min(number, 1)] * math.sqrt(max(0.0, 1 - 1 / contrast**2))


def settling_rate(images: int, ladders: int) -> float:
    """The share of the learning rates at which the likelihood of coarser ladders begins.

    `images` are as many an iteration as were asked for (ladders have two each at least). The more
    there are, the more a step does: Muon's is as long as ever, and less of it is chance. Contrast
    would run away; it does with more `ladders`, too.
    """
    highest = SETTLING_RATE if ladders <= SETTLING_LADDERS else CALM_RATE
    return highest * min(1.0, SETTLING_IMAGES / images)


def level_ranges(
    config: LadderConfig, contrasts: Sequence[float]
) -> tuple[list[float], list[tuple[float, float]]]:
    """The handover to every coarser ladder, and the lowest and highest level that each learns.

    All in deviations of a ladder's own data; a handover, of the finer one's. Raises ValueError
    where there are no levels for a coarser ladder.
    """
    handovers, ranges = [], []
    lowest, highest = config.noise_min, config.noise_max
    for number, contrast in enumerate(contrasts):
        # A picture without details leaves a finer ladder little to do, but not nothing.
        handover = max(hiding_level(number, contrast), 2 * lowest)
        if handover >= highest:
            raise ValueError(f"--octaves: no levels are above the handover, {handover:.2g}")
        handovers.append(handover)
        ranges.append((lowest, min(ABOVE * handover, highest)))
        lowest, highest = handover * contrast / 2 / BELOW, highest * contrast / 2
    return handovers, [*ranges, (lowest, highest)]


def coarser_batches(
    config: LadderConfig, observed: Batches, count: int, stride: int
) -> tuple[list[Batches], list[float]]:
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
        own = Batches(
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
