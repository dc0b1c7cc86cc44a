"""Training data: batches of images or random crops, coarser versions of them, and missing pixels.

Masks say which pixels are known. Crops avoid the others. Where these are so scattered that crops
cannot, they are filled, first with pixels from elsewhere in the image, later with samples of the
model given the known pixels. That is maximum likelihood from incomplete data by stochastic
expectation-maximization. The denoising loss leaves filled pixels out (`Batch.known`); the filters
and the likelihood see images without holes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.models.cascade import Cascade, make_denoiser, stage_phases
from gcn_cli.models.noise_conditional import PhaseMap, block_centers
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.guidance import KnownPixels
from gcn_cli.samplers.rng import ImageNoise, named_generator

MIN_POSITIONS = 256  # of a crop without missing pixels: enough for crops to differ
MIN_CROP_SHARE = 0.75  # of the wanted crop: where holes leave less, they are filled, not avoided
MAX_FILLED_SHARE = 0.5  # of the pixels of a crop
FILL_ATTEMPTS = 64  # random shifts from which a hole is filled
MAX_COARSE_CROP = 6 / 7  # of a coarse image: so that crops differ
STAGE_SEED_STEP = 7919  # between the seeds of stages, so that no two draw the same


def crop_positions(known: Tensor, side: int, max_missing: float = 0.0) -> Tensor:
    """Top left corners (n, 2) of crops of which at most a share is not known; known: (H, W)."""
    sums = F.pad((~known).to(torch.int64).cumsum(0).cumsum(1), (1, 0, 1, 0))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (inside <= max_missing * side**2).nonzero()


def largest_crop(known: Tensor) -> int:
    """The largest side of crops of known pixels that has MIN_POSITIONS in a mask (H, W).

    The shorter side if all pixels are known.
    """
    low, high = 0, min(known.shape)
    if bool(known.all()):
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if len(crop_positions(known, middle)) >= MIN_POSITIONS:
            low = middle
        else:
            high = middle - 1
    return low


def crop_limit(known: Tensor, crop: int) -> int:
    """The largest side of crops of an image with the mask (H, W); `crop` is the side wanted.

    The shorter side, unless holes leave less. Holes that leave too little will be filled, and do
    not limit crops.
    """
    shorter, free = min(known.shape), largest_crop(known)
    return free if free >= MIN_CROP_SHARE * min(crop, shorter) else shorter


def fill_missing(image: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
    """An image (C, H, W) with unknown pixels taken from the image itself, shifted at random.

    This keeps its colors and finest grain. Raises ValueError if too few pixels are known.
    """
    filled, done = image, known
    for _ in range(FILL_ATTEMPTS):
        if bool(done.all()):
            return filled
        shift = [int(torch.randint(side, (1,), generator=generator)) for side in known.shape]
        filled = torch.where(done, filled, image.roll(shift, (1, 2)))
        done = done | known.roll(shift, (0, 1))
    raise ValueError("too few pixels of an image are known to learn from")


class NormalMap(NamedTuple):
    """The channels of images that are vectors: x, to the right, and in the next one y.

    neutral: the values of the vector 0, in the units of the images.
    """

    x: int
    neutral: tuple[float, float]
    y_up: bool

    def scaled(self, gain: float) -> Self:
        """The same channels of images multiplied by `gain`."""
        return self._replace(neutral=(gain * self.neutral[0], gain * self.neutral[1]))


def turn_vectors(
    images: Tensor, flips: Tensor | bool, turns: Tensor | int, normals: Sequence[NormalMap]
) -> Tensor:
    """Images (..., C, H, W) whose pixels were mirrored, then rotated: with vectors turned alike.

    flips: whether left and right changed places. turns: quarter turns as those of `Tensor.rot90`.
    Either a number or, for a batch, a tensor (N, 1, 1) of numbers.
    """
    if not normals:
        return images
    mirrored, quarters = torch.as_tensor(flips), torch.as_tensor(turns) % 4
    cosine, sine = (1 - quarters) * (1 - quarters % 2), (2 - quarters) * (quarters % 2)
    turned = images.clone()
    for x, neutral, y_up in normals:
        right = images[..., x, :, :] - neutral[0]
        right = torch.where(mirrored, -right, right)
        up = images[..., x + 1, :, :] - neutral[1]
        up = up if y_up else -up
        turned[..., x, :, :] = cosine * right - sine * up + neutral[0]
        up = sine * right + cosine * up
        turned[..., x + 1, :, :] = (up if y_up else -up) + neutral[1]
    return turned


class Batch(NamedTuple):
    """Images (N, C, H, W), and their known pixels: (N, 1, H, W) of 0 and 1, None if all are.

    phases: of the lattice at the positions of the first layer, (N, axes, h, w); None without one.
    """

    images: Tensor
    known: Tensor | None
    phases: Tensor | None = None


class TrainingData:
    """Draws batches from images (C, H, W). The generator's state is saved with the run.

    known: masks (H, W) of the pixels to learn from, by default all.
    crop: side of random crops; None takes whole images, which must have one size.
    batch_size: None takes all images (or one crop of each). Whole images occur at most once.
    phases: of the lattice of each image; None without a regular pattern.
    phase_step: pixels between the positions of the first layer.
    shifts: pixels by which whole images are moved at random; edges are repeated.
    normals: the normal maps among the channels.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        *,
        known: Sequence[Tensor] | None = None,
        crop: int | None,
        batch_size: int | None,
        generator: torch.Generator,
        flips: bool = False,
        rotations: bool = False,
        shifts: int = 0,
        phases: Sequence[PhaseMap] | None = None,
        phase_step: int = 1,
        normals: Sequence[NormalMap] = (),
    ) -> None:
        """Raises ValueError for images of different or too small sizes, or with too few pixels."""
        sizes = {tuple(image.shape) for image in images}
        if crop is None and len(sizes) > 1:
            raise ValueError("images differ in size: give one size for all, or a crop")
        if crop is not None and min(min(size[1:]) for size in sizes) < crop:
            raise ValueError(f"crop {crop} is larger than the smallest image")
        self.images = list(images)
        self.known = list(known or (torch.ones_like(x[0], dtype=torch.bool) for x in images))
        self.crop, self.generator = crop, generator
        self.batch_size = batch_size or len(images)
        if crop is None:
            self.batch_size = min(self.batch_size, len(images))
        self.flips, self.rotations, self.shifts = flips, rotations, shifts
        self.phases, self.phase_step, self.normals = phases, phase_step, normals
        self.holes: dict[int, Tensor] = {}  # index of an image -> its filled pixels, (H, W) bool
        self._positions = [self._crop_positions(index) for index in range(len(images))]

    def _crop_positions(self, index: int) -> Tensor | None:
        """Positions (n, 2) of crops of an image, None if any will do; fills its holes if needed."""
        known = self.known[index]
        if bool(known.all()):
            return None
        if self.crop is None:
            raise ValueError("whole images are learned, but some have missing pixels")
        if largest_crop(known) < self.crop:
            self.holes[index] = ~known
            self.images[index] = fill_missing(self.images[index], known, self.generator)
            self.known[index] = torch.ones_like(known)
        limit = MAX_FILLED_SHARE if index in self.holes else 0.0
        positions = crop_positions(known.cpu(), self.crop, limit)
        if not len(positions):
            raise ValueError("too few pixels of an image are known to learn from")
        return positions

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images of a batch."""
        return self.full_size if self.crop is None else (self.crop, self.crop)

    @property
    def full_size(self) -> tuple[int, int]:
        """(H, W) of the first image, before any crop."""
        return self.images[0].shape[1], self.images[0].shape[2]

    def draw(self) -> Batch:
        """The next batch."""
        if not self.holes:
            images, phases = self._draw(self.images)
            return Batch(images, None, phases)
        masked = []
        for index, image in enumerate(self.images):
            known = torch.ones_like(image[:1])
            if index in self.holes:
                known.masked_fill_(self.holes[index], 0)
            masked.append(torch.cat([image, known]))
        drawn, phases = self._draw(masked)
        return Batch(drawn[:, :-1].contiguous(), drawn[:, -1:].contiguous(), phases)

    def _draw(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        augmented = self.flips or self.rotations or self.shifts
        if self.crop is None and self.batch_size >= len(self.images) and not augmented:
            return torch.stack(list(images)), None
        order = torch.randperm(len(images), generator=self.generator).tolist()
        chosen = [order[k % len(order)] for k in range(self.batch_size)]
        crops, phases = [], []
        for index in chosen:
            image, crop = images[index], self.crop
            if crop is None:
                crops.append(self._turned(self._shifted(image) if self.shifts else image)[0])
                continue
            top, left = self._corner(image, self._positions[index], crop)
            part = [image[:, top : top + crop, left : left + crop]]
            if self.phases is not None:
                part.append(self._crop_phases(self.phases[index], top, left, crop, image.device))
            turned = self._turned(*part)
            crops.append(turned[0])
            phases += turned[1:]
        return torch.stack(crops), torch.stack(phases) if phases else None

    def _corner(self, image: Tensor, positions: Tensor | None, crop: int) -> tuple[int, int]:
        """The top left pixel of a random crop."""
        if positions is None:
            top, left = (self._random(side - crop + 1) for side in image.shape[1:])
        else:
            top, left = positions[self._random(len(positions))].tolist()
        return top, left

    def _crop_phases(
        self, phases: PhaseMap, top: int, left: int, crop: int, device: torch.device
    ) -> Tensor:
        """Phases of a crop at the centers of the first layer's positions: (axes, h, w)."""
        centers = block_centers(0, crop, self.phase_step, device)
        return phases(top + centers, left + centers)[0]

    def _shifted(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        padded = F.pad(image[None], (self.shifts,) * 4, mode="replicate")[0]
        top, left = (self._random(2 * self.shifts + 1) for _ in range(2))
        return padded[:, top : top + height, left : left + width]

    def _turned(self, image: Tensor, *others: Tensor) -> list[Tensor]:
        """Images, all flipped and rotated alike; the first has the normal maps."""
        flipped, turns, turned = False, 0, [image, *others]
        if self.flips and self._random(2):
            flipped, turned = True, [part.flip(-1) for part in turned]
        if self.rotations:
            turns = self._random(4)
            turned = [part.rot90(turns, (-2, -1)) for part in turned]
        return [turn_vectors(turned[0], flipped, turns, self.normals), *turned[1:]]

    def _random(self, bound: int) -> int:
        return int(torch.randint(bound, (1,), generator=self.generator))


def downsample_known(image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the known pixels of 2x2 blocks, and their mask: (C, H, W), (H, W) -> the same.

    A mean is known if half of its pixels are.
    """
    height, width = known.shape[0] // 2, known.shape[1] // 2
    whole = torch.where(known, image, 0.0)[:, : 2 * height, : 2 * width]
    total = whole.reshape(len(image), height, 2, width, 2).sum(dim=(2, 4))
    count = known[: 2 * height, : 2 * width].reshape(height, 2, width, 2).sum(dim=(1, 3))
    return total / count.clamp_min(1), count >= 2


def coarse_share(image: Tensor, known: Tensor) -> float:
    """The share (0..1) of the variance of an image (C, H, W) that means of 4x4 pixels keep."""
    mean = torch.where(known, image, 0.0).sum(dim=(1, 2), keepdim=True) / known.sum()
    centered = image - mean
    coarse, coarse_known = downsample_known(*downsample_known(centered, known))
    variance, kept = centered[:, known].square().mean(), coarse[:, coarse_known].square().mean()
    return float(kept / variance.clamp_min(1e-12))


def coarser_data(
    data: TrainingData, count: int, stride: int, seed: int
) -> tuple[list[TrainingData], list[float]]:
    """The data of `count` coarser stages, and the gain of each that makes its variance 1.

    stride: of the crops. Raises ValueError if an image becomes too small.
    """
    images, known, coarser, gains = list(data.images), list(data.known), [], []
    normals = list(data.normals)
    for index, missing in data.holes.items():  # filled, but not known
        known[index] = ~missing
    for stage in range(1, count + 1):
        pairs = list(map(downsample_known, images, known))
        known = [mask for _, mask in pairs]
        values = torch.cat([image[:, mask].flatten() for image, mask in pairs])
        gains.append(1 / max(1e-3, float(values.square().mean().sqrt())))
        images = [gains[-1] * image for image, _ in pairs]
        normals = [normal_map.scaled(gains[-1]) for normal_map in normals]
        shortest = min(min(image.shape[1:]) for image in images)
        crop = min(data.image_size[0], int(MAX_COARSE_CROP * shortest) // stride * stride)
        if crop < 2 * stride:
            raise ValueError(
                f"--set stages: an image at 1/{2**stage} of the resolution is too small"
            )
        stage_data = TrainingData(
            images,
            known=known,
            crop=crop,
            batch_size=data.batch_size,
            generator=named_generator(seed + STAGE_SEED_STEP * stage, "batches"),
            flips=data.flips,
            rotations=data.rotations,
            phases=data.phases and [stage_phases(phases, stage) for phases in data.phases],
            phase_step=data.phase_step,
            normals=normals,
        )
        coarser.append(stage_data)
    return coarser, gains


IMPUTATION_TIMES = (0.25, 0.5, 0.78)  # shares of the training after which holes are drawn again
IMPUTATION_LEVELS = 16
RESAMPLING_STEPS = 2  # at each noise level


class Imputation:
    """Replaces the holes of training data by samples of the model, at IMPUTATION_TIMES."""

    def __init__(self, data: TrainingData, config: NoiseConditionalConfig) -> None:
        self.data, self.seed = data, config.seed
        self.levels = noise_levels(IMPUTATION_LEVELS, config.noise_max, config.noise_min)
        self.count = 0  # imputations so far

    def due(self, progress: float) -> bool:
        """Whether the next imputation is due at a share (0..1) of the training."""
        return self.count < len(IMPUTATION_TIMES) and progress > IMPUTATION_TIMES[self.count]

    @torch.no_grad()
    def impute(self, model: Cascade, dtype: torch.dtype) -> None:
        """Sample the missing pixels given the known ones."""
        denoise, stride = make_denoiser(model, dtype), model.total_stride
        for index, missing in self.data.holes.items():
            if self.data.phases is not None:
                denoise = make_denoiser(model, dtype, phases=self.data.phases[index])
            height, width = missing.shape
            border = (0, -width % stride, 0, -height % stride)
            known = F.pad(self.data.images[index][None], border, mode="reflect")
            unknown = F.pad(missing[None, None].float(), border, mode="reflect")[0, 0] > 0
            noise = ImageNoise(self.seed + self.count, "imputation", [index], known.device)
            start = known + self.levels[0] * noise(known.shape)
            constrained = KnownPixels(known, unknown).constrain(denoise)
            sample = anneal(start, constrained, self.levels, noise, resampling=RESAMPLING_STEPS)
            self.data.images[index] = sample[0, :, :height, :width].contiguous()
        self.count += 1

    def state(self) -> dict[str, Tensor]:
        """The filled images and the number of imputations."""
        images = {f"image{index}": self.data.images[index] for index in self.data.holes}
        return {**images, "count": torch.tensor(self.count)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for index in self.data.holes:
            self.data.images[index] = state[f"image{index}"].to(self.data.images[index])
        self.count = int(state["count"])
