"""Config values: their rules, and how they are written in an option, a file or a checkpoint.

What every config has: rules that are checked when it is made, and what no family must have.

The ladder: denoising at every level of noise, refined by maximum likelihood. The default.

The published learners, with the authors' settings: likelihood and contrastive divergence.

What a training is asked to do: a frozen dataclass for each family of models.

The fields feed the options of `gcn train`, the checkpoint and `gcn inspect` alike; the text beside
a field is its help.
"""

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from gcn_cli.errors import InputError
from gcn_cli.models.layers import LayerSpec, PaddingMode, circular_border, parse_layers


def setting(default: Any, text: str, **rule: Any) -> Any:
    """A dataclass field with its help; `low`, `above`, `high`, `choices` are rules to keep."""
    return field(default=default, metadata={"help": text, **rule})


def option_name(field_name: str) -> str:
    """learning_rate -> --learning-rate."""
    return "--" + field_name.replace("_", "-")


def check_rules(name: str, given: Any, rule: Mapping[str, Any]) -> None:
    """Raise InputError where a value breaks a rule of its field."""
    option = option_name(name)
    if "choices" in rule and given not in rule["choices"]:
        raise InputError(f"{option} {given}: must be one of {', '.join(map(str, rule['choices']))}")
    if given is None:
        return
    if "low" in rule and given < rule["low"]:
        raise InputError(f"{option} {given}: must be {rule['low']} or more")
    if "above" in rule and not given > rule["above"]:
        raise InputError(f"{option} {given}: must be more than {rule['above']}")
    if "high" in rule and not given <= rule["high"]:
        raise InputError(f"{option} {given}: must be {rule['high']} or less")


def parse_value(name: str, kind: Any, written: Any) -> Any:
    """A written value in its field's own type. Raises InputError where it is none."""
    try:
        return _typed(name, kind, written)
    except (TypeError, ValueError) as error:
        raise InputError(f"{option_name(name)} {written}: {error}") from error


def as_written(name: str, given: Any) -> str | None:
    """What `parse_value` makes a value of; None: it is left open by leaving the option out."""
    if given is not None:
        return ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
    if name in _NEVER_ZERO:
        return None
    return "own" if name == "mean_color" else "0"


def _typed(name: str, kind: Any, written: Any) -> Any:
    if name in _WRITTEN:
        return _WRITTEN[name](written)
    if isinstance(written, bool) != (kind is bool):
        raise ValueError("must be true or false" if kind is bool else "must be a number")
    if kind in (int, int | None):
        number = None if written is None else _number(written, int, "a whole number")
        left_open = number == 0 and kind == (int | None) and name not in _NEVER_ZERO
        return None if left_open else number
    if kind is float:
        return _number(written, float, "a number")
    return {bool: bool, str: str}[cast(Any, kind)](written)


def _number(written: Any, kind: type[int] | type[float], words: str) -> Any:
    """A number of a kind; a whole one may be written 12.0, not 1.5."""
    try:
        found = kind(written)
        if not isinstance(written, str) and found != written:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"must be {words}") from error
    return found


def _mean_color(written: Any) -> tuple[float, ...] | None:
    if written is None or written == "own":
        return None
    parts = written if isinstance(written, list | tuple) else str(written).split(",")
    return tuple(float(part) for part in parts)


def _layers(written: Any) -> tuple[LayerSpec, ...]:
    return written if isinstance(written, tuple) else parse_layers(str(written))


_NEVER_ZERO = {"iterations"}  # left open by leaving it out: 0 would say that there are none

_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "layers": _layers,
    "mean_color": _mean_color,
    "lattice": PaddingMode,
}


def read_toml(path: str) -> dict[str, Any]:
    """A TOML file of config values, flat. Raises InputError with the place of an error."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not a TOML file: {error}") from error


class ConfigBase:
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
            check_rules(spec.name, getattr(self, spec.name), spec.metadata)
        if any(not 0 <= level <= 255 for level in self.mean_color or ()):  # NaN is not either
            written = ",".join(f"{level:g}" for level in self.mean_color or ())
            raise InputError(
                f"--mean-color {written}: each value must be in 0..255; "
                "give one a channel, or 'own'"
            )
        given = len(self.mean_color) if self.mean_color is not None else None
        if given is not None and self.channels is not None and given != self.channels:
            raise InputError(
                f"--mean-color has {given} values for {self.channels} channels; "
                "give one a channel, or 'own'"
            )

    @property
    def bands(self) -> int:
        """Channels of the model: colors, until pictures have `settled` it."""
        return 3 if self.channels is None else self.channels

    def slower(self) -> Self:
        """With steps half as long, for a training that diverged."""
        halved = {name: getattr(self, name) / 2 for name in self.steps_lowered}
        return dataclasses.replace(self, **halved)  # type: ignore[type-var]


# Two layers at each of 1/2, 1/4, ... 1/32 of the resolution: the wide ones cost least.
DEFAULT_LAYERS = parse_layers("64@5,64@3,96@3/2,96@3,128@3/2,128@3,128@3/2,128@3,128@3/2,128@3")
DENOISE_MLE = "denoise,mle"
BORDERS = tuple(str(one) for one in PaddingMode if one is not PaddingMode.VALID)
LARGE = 384  # pixels a side of a picture of which one ladder does not see enough
COARSE = 0.5  # share of the variance in means of 4x4 pixels, from which large things matter most
USUAL, USUAL_TOGETHER = 1000, 700  # iterations of one ladder, and of several
USUAL_IMAGES = 4  # an iteration
SMALLEST_OCTAVE = 112  # pixels a side of a coarser picture, for it to be learned from by default


@dataclass(frozen=True)
class NoiseConditionalConfig(ConfigBase):
    """Denoising: one generative ConvNet for every level of noise. The default."""

    learner: str = setting(
        DENOISE_MLE,
        "denoise: a ladder of noise levels; denoise,mle: the same, refined by maximum likelihood; "
        "mle: maximum likelihood with persistent chains; cd: contrastive divergence",
        choices=("denoise", DENOISE_MLE),
    )
    size: int | None = setting(None, "resize pictures to SIZE x SIZE; 0 keeps each as it is", low=1)
    shrink: int | None = setting(
        512, "shrink pictures whose shorter side is longer than this; 0 never does", low=16
    )
    crop: int | None = setting(
        128, "learn from random crops of this side; 0 takes whole pictures", low=1
    )
    batch_size: int | None = setting(
        USUAL_IMAGES, "observed images an iteration; 0 means all", low=1
    )
    channels: int | None = setting(
        None, "3 for color, 1 for gray; 0 takes what the pictures have", low=1
    )
    mean_color: tuple[float, ...] | None = setting(
        None, "color that becomes 0, as R,G,B in 0..255; 'own' takes the pictures' mean"
    )
    layers: tuple[LayerSpec, ...] = setting(
        DEFAULT_LAYERS, "layers of filters, bottom first, as filters@size/stride+padding,..."
    )
    depth: int = setting(2, "space-to-depth: filters see blocks of this side", low=1, high=8)
    head: bool = setting(False, "fully connected to the whole map, by place: aligned objects")
    lattice: PaddingMode = setting(
        PaddingMode.REFLECT, "what lies beyond the border", choices=BORDERS
    )
    smoothness: float = setting(0.5, "half width of the box that smooths the ReLU", above=0)
    exact_gates: bool = setting(
        False, "plain ReLU gates: exactly piecewise Gaussian, learns slower"
    )
    noise_min: float = setting(0.03, "lowest level, in deviations of the data", above=0)
    noise_max: float = setting(
        100.0, "highest level; hides even the mean of a large area, not only a pixel", above=0
    )
    octaves: int | None = setting(
        None,
        "ladders, at 1, 1/2, 1/4 ... of the resolution, of which the coarser settle large things, "
        "with their part of --batch-size, two at least; 0 lets the pictures' size decide",
        low=1,
        high=8,
    )
    octave_layers: int = setting(
        6,
        "layers of each of several ladders, the lowest so many: wider ones see a small picture "
        "whole, and go by its borders",
        low=1,
    )
    margin: int = setting(
        12, "pixels at the border of a crop that do not count; of coarser ladders all do", low=0
    )
    flips: bool = setting(False, "mirror crops left to right at random")
    rotations: bool = setting(False, "turn crops by quarters at random")
    shifts: int = setting(
        0, "move whole images by up to this many pixels at random, edges repeated", low=0
    )
    refined: float = setting(
        0.2,
        "share of the iterations, at the end, that learn by likelihood too; of coarser ladders 0.8 "
        "at least",
        above=0,
        high=0.9,
    )
    likelihood: float = setting(8.0, "weight of the likelihood beside denoising", above=0)
    iterations: int | None = setting(
        None,
        f"learning iterations a stage; by default {USUAL}, of several ladders {USUAL_TOGETHER}",
        low=1,
    )
    filter_rate: float = setting(
        0.03, "learning rate of the filters (Muon), at its highest", above=0
    )
    learning_rate: float = setting(6e-3, "learning rate (Adam: of all but filters)", above=0)
    seed: int = setting(0, "names every random draw of the run", low=0)

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
            if self.lattice is PaddingMode.REFLECT and max(circular_border(layer)) >= side:
                return True
            side //= layer.stride
        return False

    @property
    def refined_share(self) -> float:
        """Share of the iterations, at the end, in which the likelihood counts."""
        return self.refined if self.learner == DENOISE_MLE else 0.0

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


IMAGENET_MEAN = (123.68, 116.779, 103.939)  # what the authors subtract, RGB 0..255
PUBLISHED_LAYERS = parse_layers("100@15/3+2,64@5+2,30@3+2")


@dataclass(frozen=True)
class PublishedConfig(ConfigBase):
    """The published learners, maximum likelihood and contrastive divergence."""

    learner: str = setting("mle", "", choices=("mle", "cd"))
    size: int | None = setting(224, "", low=1)
    crop: int | None = setting(None, "", low=1)
    batch_size: int | None = setting(None, "", low=1)
    channels: int | None = setting(None, "", low=1)
    mean_color: tuple[float, ...] | None = setting(IMAGENET_MEAN, "")
    layers: tuple[LayerSpec, ...] = setting(PUBLISHED_LAYERS, "")
    head: bool = setting(False, "")
    lattice: PaddingMode = setting(PaddingMode.ZERO, "", choices=tuple(map(str, PaddingMode)))
    sigma: float = setting(1.0, "deviation of the reference distribution, in gray levels", above=0)
    langevin_steps: int = setting(10, "Langevin steps an iteration", low=1)
    step_size: float = setting(0.3, "Langevin step size, in gray levels", above=0)
    chains: int | None = setting(
        None, "persistent chains; by default 16 as published on a GPU, 1 on a processor", low=1
    )
    growth: bool = setting(True, "add layers one at a time, training all below again")
    iterations: int = setting(700, "", low=1)
    learning_rate: float = setting(5e-4, "", above=0)
    rate_divisor: float = setting(2.0, "divides the learning rate at every new stage", above=0)
    bias_rate: float = setting(2.0, "biases learn this many times faster", low=0)
    momentum: float = setting(0.0, "momentum of the descent", low=0, high=0.999)
    weight_decay: float = setting(1e-4, "pull of filters towards 0", low=0)
    gradient_cap: float = setting(20.0, "a layer's gradient is scaled to this maximum", above=0)
    init_std: float = setting(0.01, "deviation of new filters", above=0)
    seed: int = setting(0, "", low=0)

    unit_deviation = False  # pixels stay in gray levels
    steps_lowered = ("learning_rate", "step_size")
    smooth_gates = False
    texture_ladder = False
    stride = 1  # images may have any side
    space_to_depth = 1

    def length_as(self, asked: int | None) -> int:
        """Iterations of a stage, as many as asked for."""
        return asked or self.iterations

    @property
    def first_layers(self) -> tuple[LayerSpec, ...]:
        """Those that a training begins with."""
        return self.layers[:1] if self.growth else self.layers

    def settled(
        self, room: int, channels: int, coarse: float, *, on_gpu: bool
    ) -> tuple[Self, list[str]]:
        """With what pictures and device decide: persistent chains run side by side on a GPU.

        The published mean color becomes a gray where pictures are gray.
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


__all__ = [
    "CONFIG_OF_LEARNER",
    "Config",
    "NoiseConditionalConfig",
    "PublishedConfig",
    "config_fields",
    "from_json",
    "to_json",
]

Config = NoiseConditionalConfig | PublishedConfig
CONFIG_OF_LEARNER: dict[str, type[NoiseConditionalConfig] | type[PublishedConfig]] = {
    "denoise": NoiseConditionalConfig,
    DENOISE_MLE: NoiseConditionalConfig,
    "mle": PublishedConfig,
    "cd": PublishedConfig,
}


def config_fields() -> dict[str, dataclasses.Field[Any]]:
    """Every config value by name, in the order of the help, with the text of its help."""
    both = [*dataclasses.fields(NoiseConditionalConfig), *dataclasses.fields(PublishedConfig)]
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
    family = CONFIG_OF_LEARNER[values["learner"]]
    kinds = {spec.name: spec.type for spec in dataclasses.fields(family)}
    return family(**{key: parse_value(key, kinds[key], v) for key, v in values.items()})
