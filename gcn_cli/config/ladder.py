"""The ladder: denoising at every level of noise, refined by maximum likelihood. The default."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from gcn_cli.config.checked import Checked
from gcn_cli.errors import InputError
from gcn_cli.model.spec import Lattice, LayerSpec, closing_border, parse_layers
from gcn_cli.values import value

# Two layers at each of 1/2, 1/4, ... 1/32 of the resolution: the wide ones cost least.
LADDER_LAYERS = parse_layers("64@5,64@3,96@3/2,96@3,128@3/2,128@3,128@3/2,128@3,128@3/2,128@3")
REFINED = "denoise,mle"
BORDERS = tuple(str(one) for one in Lattice if one is not Lattice.VALID)
LARGE = 384  # pixels a side of a picture of which one ladder does not see enough
COARSE = 0.5  # share of the variance in means of 4x4 pixels, from which large things matter most
USUAL, USUAL_TOGETHER = 1000, 700  # iterations of one ladder, and of several
USUAL_IMAGES = 4  # an iteration
SMALLEST_OCTAVE = 112  # pixels a side of a coarser picture, for it to be learned from by default


@dataclass(frozen=True)
class LadderConfig(Checked):
    """Denoising: one generative ConvNet for every level of noise. The default."""

    learner: str = value(
        REFINED,
        "denoise: a ladder of noise levels; denoise,mle: the same, refined by maximum likelihood; "
        "mle: maximum likelihood with persistent chains; cd: contrastive divergence",
        choices=("denoise", REFINED),
    )
    size: int | None = value(None, "resize pictures to SIZE x SIZE; 0 keeps each as it is", low=1)
    shrink: int | None = value(
        512, "shrink pictures whose shorter side is longer than this; 0 never does", low=16
    )
    crop: int | None = value(
        128, "learn from random crops of this side; 0 takes whole pictures", low=1
    )
    batch_size: int | None = value(USUAL_IMAGES, "observed images an iteration; 0 means all", low=1)
    channels: int | None = value(
        None, "3 for colour, 1 for grey; 0 takes what the pictures have", low=1
    )
    mean_color: tuple[float, ...] | None = value(
        None, "colour that becomes 0, as R,G,B in 0..255; 'own' takes the pictures' mean"
    )
    layers: tuple[LayerSpec, ...] = value(
        LADDER_LAYERS, "layers of filters, bottom first, as filters@size/stride+padding,..."
    )
    depth: int = value(2, "space-to-depth: filters see blocks of this side", low=1, high=8)
    head: bool = value(False, "fully connected to the whole map, by place: aligned objects")
    lattice: Lattice = value(Lattice.REFLECT, "what lies beyond the border", choices=BORDERS)
    smoothness: float = value(0.5, "half width of the box that smooths the ReLU", above=0)
    exact_gates: bool = value(False, "plain ReLU gates: exactly piecewise Gaussian, learns slower")
    noise_min: float = value(0.03, "lowest level, in deviations of the data", above=0)
    noise_max: float = value(
        100.0, "highest level; hides even the mean of a large area, not only a pixel", above=0
    )
    octaves: int | None = value(
        None,
        "ladders, at 1, 1/2, 1/4 ... of the resolution, of which the coarser settle large things, "
        "with their part of --batch-size, two at least; 0 lets the pictures' size decide",
        low=1,
        high=8,
    )
    octave_layers: int = value(
        6,
        "layers of each of several ladders, the lowest so many: wider ones see a small picture "
        "whole, and go by its borders",
        low=1,
    )
    margin: int = value(
        12, "pixels at the border of a crop that do not count; of coarser ladders all do", low=0
    )
    flips: bool = value(False, "mirror crops left to right at random")
    rotations: bool = value(False, "turn crops by quarters at random")
    shifts: int = value(
        0, "move whole images by up to this many pixels at random, edges repeated", low=0
    )
    refined: float = value(
        0.2,
        "share of the iterations, at the end, that learn by likelihood too; of coarser ladders 0.8 "
        "at least",
        above=0,
        high=0.9,
    )
    likelihood: float = value(8.0, "weight of the likelihood beside denoising", above=0)
    iterations: int | None = value(
        None,
        f"learning iterations a stage; by default {USUAL}, of several ladders {USUAL_TOGETHER}",
        low=1,
    )
    filter_rate: float = value(0.03, "learning rate of the filters (Muon), at its highest", above=0)
    learning_rate: float = value(6e-3, "learning rate (Adam: of all but filters)", above=0)
    seed: int = value(0, "names every random draw of the run", low=0)

    unit_deviation = True  # data is scaled to a deviation of 1
    steps_lowered = ("filter_rate", "learning_rate")

    @property
    def first_layers(self) -> tuple[LayerSpec, ...]:
        """Those that a training begins with."""
        return self.layers

    @property
    def smooth_gates(self) -> bool:
        """Whether gates open gradually, so that rounding does not flip them."""
        return not self.exact_gates

    @property
    def texture_ladder(self) -> bool:
        """Whether a texture is learned, from crops, at all levels of noise."""
        return self.crop is not None

    @property
    def space_to_depth(self) -> int:
        """The side of the blocks of pixels that filters see as one."""
        return self.depth

    @property
    def stride(self) -> int:
        """What sides of images that are learned whole must be multiples of."""
        return self.depth * math.prod(layer.stride for layer in self.layers)

    @property
    def length(self) -> int:
        """Iterations of a training."""
        return self.length_as(self.iterations)

    def length_as(self, asked: int | None) -> int:
        """As many as asked for, or as such a ladder has by default."""
        usual = USUAL_TOGETHER if (self.octaves or 1) > 1 else USUAL
        return asked or usual

    def _too_narrow(self, crop: int) -> bool:
        """Whether the maps of a crop are too narrow to be mirrored at their borders."""
        side = crop // self.depth
        for layer in self.layers:
            if self.lattice is Lattice.REFLECT and max(closing_border(layer)) >= side:
                return True
            side //= layer.stride
        return False

    @property
    def refined_share(self) -> float:
        """Share of the iterations, at the end, in which the likelihood counts."""
        return self.refined if self.learner == REFINED else 0.0

    def settled(
        self, room: int, channels: int, coarse: float, *, on_gpu: bool
    ) -> tuple[Self, list[str]]:
        """With what the pictures and the device decide, and what is to be said of that.

        `coarse` is the share of their variance that means of 4x4 pixels keep.
        A crop is cut down to the `room` that small pictures have, or those of which a part is
        hidden. Raises InputError where that is too little.
        """
        octaves = self._octaves(room, coarse)
        own = dataclasses.replace(self, channels=channels, octaves=octaves)
        own = dataclasses.replace(own, iterations=own.length)
        said = []
        if octaves > 1:
            own = dataclasses.replace(own, layers=self.layers[: self.octave_layers])
            coarsest = f"the coarsest at 1/{2 ** (octaves - 1)} of the resolution"
            said.append(f"{octaves} ladders, {coarsest} (--octaves)")
        elif self.crop is not None and room < LARGE and (self.batch_size or 0) > USUAL_IMAGES:
            words = f"of so small a picture more than {USUAL_IMAGES} made two of three worse"
            said.append(f"--batch-size {self.batch_size}: {words}; use {USUAL_IMAGES}")
        if self.crop is None or room >= self.crop:
            return own, said
        crop = room // self.stride * self.stride
        if crop <= 2 * self.margin or self._too_narrow(crop):
            raise InputError(
                f"a picture with room for crops of side {room} only is too small to learn from; "
                "enlarge it, or hide less of it"
            )
        words = f"cut down to {crop}, the smallest picture has room for a side of {room}"
        return dataclasses.replace(own, crop=crop), [*said, f"--crop {self.crop}: {words}"]

    def _octaves(self, room: int, coarse: float) -> int:
        """As many as there are coarser pictures large enough to learn from, or as asked.

        One where most of a picture is in its details: more would take from these.
        """
        if self.octaves is not None or self.crop is None:
            return self.octaves or 1
        count = 1
        if room < LARGE or coarse < COARSE:
            return count
        while room >> count >= SMALLEST_OCTAVE and self.noise_max > 4**count:
            count += 1
        return count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_min >= self.noise_max:
            raise InputError(f"--noise-min {self.noise_min}: must be below --noise-max")
        if (self.octaves or 1) > 1 and self.crop is None:
            raise InputError(f"--octaves {self.octaves}: pictures learned whole have one; use 1")
        if self.head and (self.crop is not None or self.rotations):
            raise InputError("--head: needs whole upright images; use --crop 0 --no-rotations")
        if self.crop is not None and self.shifts:
            raise InputError(f"--shifts {self.shifts}: crops are shifted anyway; leave it out")
        if self.crop is not None and self.crop <= 2 * self.margin:
            raise InputError(f"--margin {self.margin}: must be under half of --crop {self.crop}")
        if self.crop is not None and self._too_narrow(self.crop):
            words = "too small for --layers, whose maps it makes too narrow; enlarge it"
            raise InputError(f"--crop {self.crop}: {words}")
