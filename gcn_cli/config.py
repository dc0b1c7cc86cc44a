"""What a training is asked to do: a frozen dataclass for each family of models.

The fields feed the options of `gcn train`,
the checkpoint and `gcn inspect` alike; the text beside a field is its help.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gcn_cli.errors import InputError
from gcn_cli.model.spec import Lattice, LayerSpec, closing_border, parse_layers
from gcn_cli.values import check, parse, value

IMAGENET_MEAN = (123.68, 116.779, 103.939)  # what the authors subtract, RGB 0..255
PUBLISHED_LAYERS = parse_layers("100@15/3+2,64@5+2,30@3+2")
# Two layers at each of 1/2, 1/4, ... 1/32 of the resolution: the wide ones cost least.
LADDER_LAYERS = parse_layers("64@5,64@3,96@3/2,96@3,128@3/2,128@3,128@3/2,128@3,128@3/2,128@3")
REFINED = "denoise,mle"
LATTICES = tuple(map(str, Lattice))
LARGE = 384  # pixels a side of a picture of which one ladder does not see enough
COARSE = 0.5  # share of the variance in means of 4x4 pixels, from which large things matter most
USUAL, USUAL_TOGETHER = 1000, 700  # iterations of one ladder, and of several
SMALLEST_OCTAVE = 112  # pixels a side of a coarser picture, for it to be learned from by default


class _Checked:
    """Checks every field by its rules when a config is made."""

    channels: int | None
    mean_color: tuple[float, ...] | None
    steps_lowered: tuple[str, ...] = ()  # rates and steps that a training which diverges halves
    # What a family has no option for.
    shrink: int | None = None
    flips: bool = False
    rotations: bool = False
    shifts: int = 0

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            check(spec.name, getattr(self, spec.name), spec.metadata)
        given = len(self.mean_color) if self.mean_color is not None else None
        if given is not None and self.channels is not None and given != self.channels:
            raise InputError(
                f"--mean-color has {given} values for {self.channels} channels; "
                "give one a channel, or 'own'"
            )

    @property
    def bands(self) -> int:
        """Channels of the model: colours, until pictures have `settled` it."""
        return 3 if self.channels is None else self.channels

    def slower(self) -> Self:
        """With steps half as long, for a training that diverged."""
        halved = {name: getattr(self, name) / 2 for name in self.steps_lowered}
        return dataclasses.replace(self, **halved)  # type: ignore[type-var]


@dataclass(frozen=True)
class LadderConfig(_Checked):
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
    batch_size: int | None = value(4, "observed images an iteration; 0 means all", low=1)
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
    lattice: Lattice = value(Lattice.REFLECT, "what lies beyond the border", choices=LATTICES[1:])
    smoothness: float = value(0.5, "half width of the box that smooths the ReLU", above=0)
    exact_gates: bool = value(False, "plain ReLU gates: exactly piecewise Gaussian, learns slower")
    noise_min: float = value(0.03, "lowest level, in deviations of the data", above=0)
    noise_max: float = value(
        100.0, "highest level; hides even the mean of a large area, not only a pixel", above=0
    )
    octaves: int | None = value(
        None,
        "ladders, at 1, 1/2, 1/4 ... of the resolution, of which the coarser settle large things; "
        "each takes its part of a batch, two images at least; 0 lets the pictures' size decide",
        low=1,
        high=8,
    )
    margin: int = value(12, "pixels at the border of a crop that do not count", low=0)
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
        return self.length_as(self)

    def length_as(self, asked: "Config") -> int:
        """Those that `asked` asks for, which is settled as this config is."""
        usual = USUAL_TOGETHER if (self.octaves or 1) > 1 else USUAL
        return asked.iterations or usual

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
    ) -> tuple["LadderConfig", list[str]]:
        """With what the pictures and the device decide, and what is to be said of that.

        `coarse` is the share of their variance that means of 4x4 pixels keep.
        A crop is cut down to the `room` that small pictures have, or those of which a part is
        hidden. Raises InputError where that is too little.
        """
        octaves = self._octaves(room, coarse)
        own = dataclasses.replace(self, channels=channels, octaves=octaves)
        own = dataclasses.replace(own, iterations=own.length)
        if self.crop is None or room >= self.crop:
            coarsest = f"the coarsest at 1/{2 ** (octaves - 1)} of the resolution"
            return own, [f"{octaves} ladders, {coarsest} (--octaves)"] if octaves > 1 else []
        crop = room // self.stride * self.stride
        if crop <= 2 * self.margin or self._too_narrow(crop):
            raise InputError(
                f"a picture with room for crops of side {room} only is too small to learn from; "
                "enlarge it, or hide less of it"
            )
        said = f"cut down to {crop}, the smallest picture has room for a side of {room}"
        return dataclasses.replace(own, crop=crop), [f"--crop {self.crop}: {said}"]

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


@dataclass(frozen=True)
class PaperConfig(_Checked):
    """The published learners, maximum likelihood and contrastive divergence."""

    learner: str = value("mle", "", choices=("mle", "cd"))
    size: int | None = value(224, "", low=1)
    crop: int | None = value(None, "", low=1)
    batch_size: int | None = value(None, "", low=1)
    channels: int | None = value(None, "", low=1)
    mean_color: tuple[float, ...] | None = value(IMAGENET_MEAN, "")
    layers: tuple[LayerSpec, ...] = value(PUBLISHED_LAYERS, "")
    head: bool = value(False, "")
    lattice: Lattice = value(Lattice.ZERO, "", choices=LATTICES)
    sigma: float = value(1.0, "deviation of the reference distribution, in grey levels", above=0)
    langevin_steps: int = value(10, "Langevin steps an iteration", low=1)
    step_size: float = value(0.3, "Langevin step size, in grey levels", above=0)
    chains: int | None = value(
        None, "persistent chains; by default 16 as published on a GPU, 1 on a processor", low=1
    )
    growth: bool = value(True, "add layers one at a time, training all below again")
    iterations: int = value(700, "", low=1)
    learning_rate: float = value(5e-4, "", above=0)
    rate_divisor: float = value(2.0, "divides the learning rate at every new stage", above=0)
    bias_rate: float = value(2.0, "biases learn this many times faster", low=0)
    momentum: float = value(0.0, "momentum of the descent", low=0, high=0.999)
    weight_decay: float = value(1e-4, "pull of filters towards 0", low=0)
    gradient_cap: float = value(20.0, "a layer's gradient is scaled to this maximum", above=0)
    init_std: float = value(0.01, "deviation of new filters", above=0)
    seed: int = value(0, "", low=0)

    unit_deviation = False  # pixels stay in grey levels
    steps_lowered = ("learning_rate", "step_size")
    smooth_gates = False
    texture_ladder = False
    stride = 1  # images may have any side
    space_to_depth = 1

    def length_as(self, asked: "Config") -> int:
        """Iterations of a stage."""
        return asked.iterations or self.iterations

    @property
    def first_layers(self) -> tuple[LayerSpec, ...]:
        """Those that a training begins with."""
        return self.layers[:1] if self.growth else self.layers

    def settled(
        self, room: int, channels: int, coarse: float, *, on_gpu: bool
    ) -> tuple["PaperConfig", list[str]]:
        """With what pictures and device decide: persistent chains run side by side on a GPU.

        The published mean colour becomes a grey where pictures are grey.
        """
        del room, coarse
        mean = self.mean_color
        if mean == IMAGENET_MEAN and channels == 1:
            mean = (sum(IMAGENET_MEAN) / 3,)
        own = dataclasses.replace(self, channels=channels, mean_color=mean)
        if self.learner != "mle" or self.chains is not None:
            return own, []
        return dataclasses.replace(own, chains=16 if on_gpu else 1), []

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and self.head:
            raise InputError("--crop and --head: a head needs whole aligned images; leave one out")
        if self.learner == "cd" and self.chains is not None:
            raise InputError("--chains: contrastive divergence starts at the data; leave it out")


Config = LadderConfig | PaperConfig
FAMILIES: dict[str, type[LadderConfig] | type[PaperConfig]] = {
    "denoise": LadderConfig,
    REFINED: LadderConfig,
    "mle": PaperConfig,
    "cd": PaperConfig,
}


def fields() -> dict[str, dataclasses.Field[Any]]:
    """Every config value by name, in the order of the help, with the text of its help."""
    both = [*dataclasses.fields(LadderConfig), *dataclasses.fields(PaperConfig)]
    known: dict[str, dataclasses.Field[Any]] = {}
    for spec in both:
        known.setdefault(spec.name, spec)
    return known


def to_json(config: Config) -> dict[str, Any]:
    """Plain values for a checkpoint or a screen; `from_json` takes them back."""
    values = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(config)}
    values["layers"] = ",".join(map(str, config.layers))
    values["lattice"] = str(config.lattice)
    return values


def from_json(values: Mapping[str, Any]) -> Config:
    """The config that `to_json` described. Raises KeyError, TypeError where it is none."""
    family = FAMILIES[values["learner"]]
    kinds = {spec.name: spec.type for spec in dataclasses.fields(family)}
    return family(**{key: parse(key, kinds[key], v) for key, v in values.items()})
