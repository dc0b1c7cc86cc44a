"""Settings of a training: what they mean, their rules, and how they are written.

`NoiseConditionalConfig` is the default kind of model: denoising at many noise levels, then
maximum-likelihood fine-tuning. `PublishedConfig` is the model of the papers, trained by maximum
likelihood or contrastive divergence. Values are checked when an object is made; `parse_setting`
reads them from text (--set KEY=VALUE), TOML (--config) and JSON (model file).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

from gcn_cli.errors import InputError
from gcn_cli.models.layers import LayerSpec, PaddingMode, circular_border, parse_layers

# Settings that have an option of their own on the command line; all others are given by --set.
OWN_OPTIONS = (
    "size", "pattern", "flips", "rotations", "normals", "iterations", "batch_size", "seed",
)  # fmt: skip


def setting(default: Any, text: str, *, none: str | None = None, **rule: Any) -> Any:
    """A dataclass field with its help text and its rule: `low`, `above`, `high` or `choices`.

    none: text that stands for None in files and options.
    """
    return field(default=default, metadata={"help": text, "none": none, **rule})


positive = partial(setting, above=0)
whole_or_none = partial(setting, none="0", low=1)


def option_name(name: str) -> str:
    """How a setting is given on the command line: "--batch-size" or "--set crop"."""
    own = "--resize" if name == "size" else "--" + name.replace("_", "-")  # --size is of samples
    return own if name in OWN_OPTIONS else f"--set {name}"


def option_text(name: str, value: Any) -> str:
    """A setting with its value as on the command line: "--batch-size 4" or "--set crop=128"."""
    if isinstance(value, bool) and name in OWN_OPTIONS:
        return option_name(name) if value else option_name(name).replace("--", "--no-", 1)
    return f"{option_name(name)}{' ' if name in OWN_OPTIONS else '='}{setting_text(name, value)}"


def setting_text(name: str, value: Any) -> str:
    """The written form of a value, as "0" for no resizing."""
    return _text(SETTINGS[name].metadata["none"] if value is None else value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def check_rules(shown: str, value: Any, rule: Mapping[str, Any]) -> None:
    """Raise InputError if a value breaks a rule; the message begins with `shown`."""
    if "choices" in rule and value not in rule["choices"]:
        raise InputError(f"{shown}: must be one of {', '.join(map(str, rule['choices']))}")
    if value is None:
        return
    if "low" in rule and not value >= rule["low"]:
        raise InputError(f"{shown}: must be {rule['low']} or more")
    if "above" in rule and not value > rule["above"]:
        raise InputError(f"{shown}: must be more than {rule['above']}")
    if value == math.inf:
        raise InputError(f"{shown}: must be finite")
    if "high" in rule and not value <= rule["high"]:
        raise InputError(f"{shown}: must be {rule['high']} or less")


@dataclass(frozen=True)
class BaseConfig:
    """Settings that every kind of model has."""

    halved_after_divergence: ClassVar[tuple[str, ...]] = ()

    learner: str = setting("denoise,mle", "")
    size: int | None = whole_or_none(None, "Resize images to N x N pixels; 0 keeps their size.")
    crop: int | None = whole_or_none(128, "Side of random training crops; 0 takes whole images.")
    batch_size: int | None = whole_or_none(4, "Training images per iteration; 0 takes all.")
    channels: int | None = whole_or_none(None, "3 for color, 1 for gray; 0 as in the images.")
    mean_color: tuple[float, ...] | None = setting(
        None, "Color subtracted from images, as R,G,B in 0..255; own: their mean.", none="own"
    )
    layers: tuple[LayerSpec, ...] = setting(
        parse_layers("64@5,64@3,96@3/2,96@3,128@3/2,128@3,128@3/2,128@3,128@3/2,128@3"),
        "Convolutional layers, first to last, as FILTERS@SIZE/STRIDE+PADDING,...",
    )
    head: bool = setting(False, "Add a fully connected last layer, for aligned objects.")
    padding_mode: PaddingMode = setting(
        PaddingMode.REFLECT,
        "Padding of images and feature maps: zeros, reflect, circular (published: valid too).",
        choices=tuple(PaddingMode),
    )
    iterations: int | None = setting(
        None, "Training iterations; 1000 by default, 700 of a cascade.", low=1
    )
    learning_rate: float = positive(6e-3, "Learning rate; the filters may have filter_rate.")
    seed: int = setting(0, "Seed of all random numbers of the training.", low=0)

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            check_rules(option_text(spec.name, value), value, spec.metadata)
        color, remedy = self.mean_color or (), "give one value for each channel, or own"
        if not all(0 <= value <= 255 for value in color):  # refuses NaN too
            raise self._error("mean_color", f"each value must be in 0..255; {remedy}")
        if color and self.channels not in (None, len(color)):
            raise self._error(
                "mean_color", f"{len(color)} values for {self.channels} channels; {remedy}"
            )

    def _error(self, name: str, text: str) -> InputError:
        return InputError(f"{option_text(name, getattr(self, name))}: {text}")

    @property
    def channel_count(self) -> int:
        """Channels of the model; 3 before `resolve` knows the images."""
        return 3 if self.channels is None else self.channels

    @property
    def default_iterations(self) -> int:
        """Iterations where `iterations` is None."""
        return DEFAULT_ITERATIONS

    @property
    def iteration_count(self) -> int:
        """Iterations of the training."""
        return self.iterations or self.default_iterations

    def slowed(self) -> Self:
        """With half the rates and step sizes, for a training that diverged."""
        halved = {name: getattr(self, name) / 2 for name in self.halved_after_divergence}
        return dataclasses.replace(self, **halved)


def default(name: str, value: Any, **rule: Any) -> Any:
    """A setting of `BaseConfig` with another default."""
    base = BaseConfig.__dataclass_fields__[name]
    return field(default=value, metadata={**base.metadata, **rule})


DEFAULT_LAYERS = BaseConfig.layers
DEFAULT_BATCH_SIZE = 4
DEFAULT_ITERATIONS, DEFAULT_CASCADE_ITERATIONS = 1000, 700
DENOISE_MLE = "denoise,mle"
CASCADE_SIDE = 384  # pixels: larger images have structure that one network does not see
CASCADE_COARSE_SHARE = 0.5  # share of variance in means of 4x4 pixels: a cascade from here on
SHORTEST_PERIOD = 6  # pixels, of a regular pattern
MAX_CROP_SHARE = 0.75  # of the shorter side: a net learns the positions of crops that hardly differ
SMALLEST_CROP, SMALLEST_MAP = 32, 3  # sides of a reduced crop, and of its map in the last layer
MARGIN_PARTS = 8  # of a reduced crop: its margin has at most one
SMALLEST_STAGE_SIDE = 112  # pixels a side of the coarsest image that a default cascade has


@dataclass(frozen=True)
class NoiseConditionalConfig(BaseConfig):
    """Settings of the noise-conditional model (the default)."""

    learner: str = default(
        "learner",
        DENOISE_MLE,
        help="denoise; denoise,mle (adds likelihood fine-tuning); mle, cd (published).",
        choices=("denoise", DENOISE_MLE),
    )
    shrink: int | None = whole_or_none(
        512, "Shrink images whose shorter side is longer than N pixels; 0 never does.", low=16
    )
    padding_mode: PaddingMode = default(
        "padding_mode",
        PaddingMode.REFLECT,
        choices=(PaddingMode.ZEROS, PaddingMode.REFLECT, PaddingMode.CIRCULAR),
    )
    space_to_depth: int = setting(
        2, "Side of the blocks of pixels that the first layer sees as channels.", low=1, high=8
    )
    gate_width: float = positive(0.5, "Half width of the box that smooths the ReLU.")
    exact_gates: bool = setting(
        False, "Plain ReLU: piecewise Gaussian within the cells of the gates; learns more slowly."
    )
    noise_min: float = positive(0.03, "Lowest noise level, in standard deviations of the data.")
    noise_max: float = positive(100.0, "Highest noise level, in standard deviations of the data.")
    stages: int | None = whole_or_none(
        None, "Stages of the resolution cascade, each at half the resolution; 0 chooses.", high=8
    )
    stage_layers: int = setting(6, "In a cascade, each stage has the first N layers.", low=1)
    margin: int = setting(
        12, "Width of the border of crops without loss; coarser stages have none.", low=0
    )
    pattern: str = setting(
        "auto",
        "Regular pattern: auto, off, periods ACROSS,DOWN in pixels (0 for none), or two vectors of "
        "repetition ACROSS,DOWN:ACROSS,DOWN.",
    )
    flips: bool = setting(False, "Mirror training images left to right at random.")
    rotations: bool = setting(False, "Rotate training images by 90, 180 or 270 degrees at random.")
    normals: str = setting(
        "auto",
        "Where green points in normal maps: y-up (OpenGL), y-down (DirectX), or auto, as found.",
        choices=("auto", "y-up", "y-down"),
    )
    shifts: int = setting(0, "Shift whole images at random, by up to N pixels.", low=0)
    likelihood_share: float = setting(
        0.2,
        "Share of iterations with likelihood training, at the end; coarser stages 0.8 or more.",
        above=0,
        high=0.9,
    )
    likelihood_weight: float = positive(8.0, "Weight of the likelihood; denoising has 1.")
    filter_rate: float = positive(0.03, "Highest learning rate of the filters (Muon).")

    unit_deviation = True  # images are scaled to a standard deviation of 1
    halved_after_divergence = ("filter_rate", "learning_rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        crop = self.crop
        if self.noise_min >= self.noise_max:
            raise self._error("noise_min", f"must be below noise_max, {self.noise_max:g}")
        if (self.stages or 1) > 1 and crop is None:
            raise self._error("stages", "a cascade needs crops; use stages=1, or set crop")
        if self.head and (crop is not None or self.rotations):
            remedy = "use --set crop=0 --no-rotations"
            raise self._error("head", f"needs whole upright images; {remedy}")
        if crop is not None and self.shifts:
            raise self._error("shifts", "crops are shifted already; leave it out")
        if parse_pattern(self.pattern) and crop is None:
            raise self._error("pattern", "only for textures, which are learned from crops")
        if crop is not None and crop <= 2 * self.margin:
            raise self._error("margin", f"must be under half of crop, {crop}")
        first_side = (crop or 0) // self.space_to_depth
        if crop is not None and _too_narrow(self.layers, self.padding_mode, first_side):
            raise self._error("crop", "too small for the padding of these layers; enlarge it")

    @property
    def initial_layers(self) -> tuple[LayerSpec, ...]:
        """Layers at the start of training: all."""
        return self.layers

    @property
    def smooth_gates(self) -> bool:
        """Whether the ReLU is smoothed, so that rounding does not switch it."""
        return not self.exact_gates

    @property
    def is_texture(self) -> bool:
        """Whether the model learns a texture from crops, rather than whole images."""
        return self.crop is not None

    @property
    def size_multiple(self) -> int:
        """The sides of whole training images are multiples of this."""
        return self.space_to_depth * math.prod(layer.stride for layer in self.layers)

    @property
    def fine_tuning_share(self) -> float:
        """Share of the iterations, at the end, with likelihood training."""
        return self.likelihood_share if self.learner == DENOISE_MLE else 0.0

    @property
    def default_iterations(self) -> int:
        """Iterations where `iterations` is None."""
        return DEFAULT_CASCADE_ITERATIONS if (self.stages or 1) > 1 else DEFAULT_ITERATIONS

    def resolve(
        self,
        largest_crop: int,
        channels: int,
        coarse_share: float,
        *,
        on_gpu: bool,
        shortest_side: int | None = None,
        smallest: str = "the image",
    ) -> tuple[Self, list[str]]:
        """The config with all choices made by the training images, and messages about them.

        largest_crop: side of the largest crop that fits every image. channels: of the images.
        coarse_share: share of their variance in means of 4x4 pixels. shortest_side: of the images,
        of which a crop has at most MAX_CROP_SHARE; by default largest_crop. smallest: the title of
        the image that has it. Raises InputError where the images are too small.
        """
        del on_gpu
        stages, notes = self._choose_stages(largest_crop, coarse_share), []
        images = self.batch_size or 0
        config = dataclasses.replace(self, channels=channels, stages=stages)
        config = dataclasses.replace(config, iterations=config.iteration_count)
        if stages > 1:
            config = dataclasses.replace(config, layers=self.layers[: self.stage_layers])
            notes.append(
                f"large structures are learned at 1/{2 ** (stages - 1)} of the resolution "
                f"({option_text('stages', stages)})"
            )
        elif self.crop and largest_crop < CASCADE_SIDE and images > DEFAULT_BATCH_SIZE:
            notes.append(
                f"--batch-size {images}: samples of most images of this size are worse than with "
                f"{DEFAULT_BATCH_SIZE}; use {DEFAULT_BATCH_SIZE}"
            )
        shortest = largest_crop if shortest_side is None else shortest_side
        limit = min(largest_crop, int(MAX_CROP_SHARE * shortest))
        if self.crop is None or limit >= self.crop:
            return config, notes
        fitted = config._with_smaller_crop(limit)
        if fitted is None:
            needed = math.ceil(SMALLEST_CROP / MAX_CROP_SHARE)
            raise InputError(
                f"{smallest}: the shorter side, {shortest} pixels, leaves crops of {limit}, too "
                f"small to train on; enlarge it to {needed} pixels or more, mask less of it, or "
                "set fewer and smaller layers with a smaller crop (--set layers, --set crop)"
            )
        taken = [f"{option_text('crop', self.crop)}: reduced to {fitted.crop}"]
        if fitted.margin < config.margin:
            taken.append(option_text("margin", fitted.margin))
        if len(fitted.layers) < len(config.layers):
            taken.append(f"the first {len(fitted.layers)} of {len(config.layers)} layers")
        reason = f"three quarters of the shorter side, {shortest} pixels, so that crops differ"
        if limit == largest_crop:
            reason = f"{largest_crop} pixels, of which enough crops are known"
        notes.append(f"{', '.join(taken)}; a crop has at most {reason}")
        return fitted, notes

    def _with_smaller_crop(self, limit: int) -> Self | None:
        """With the largest crop of at most `limit` pixels, and as many layers as fit it.

        The last map of a crop has SMALLEST_MAP positions or more a side: of smaller ones most is
        padding. None if nothing fits.
        """
        layers, stages = self.layers, self.stages or 1
        smallest = min(SMALLEST_CROP, (self.crop or SMALLEST_CROP) // 2)
        while layers:
            multiple = self.space_to_depth * math.prod(layer.stride for layer in layers)
            crop = limit // (multiple << (stages - 1)) * (multiple << (stages - 1))
            margin = min(self.margin, crop // MARGIN_PARTS)
            if crop >= max(smallest, SMALLEST_MAP * multiple) and not _too_narrow(
                layers, self.padding_mode, crop // self.space_to_depth
            ):
                return dataclasses.replace(self, crop=crop, margin=margin, layers=layers)
            strided = [index for index, layer in enumerate(layers) if layer.stride > 1]
            layers = layers[: strided[-1]] if strided else ()
        return None

    def _choose_stages(self, side: int, coarse_share: float) -> int:
        """The stages of the cascade: as set, or one for each coarser image worth training on.

        Images with most of their variance in details have one: more would take time from these.
        """
        if self.stages is not None or self.crop is None:
            return self.stages or 1
        stages = 1
        if side < CASCADE_SIDE or coarse_share < CASCADE_COARSE_SHARE:
            return stages
        while side >> stages >= SMALLEST_STAGE_SIDE and self.noise_max > 4**stages:
            stages += 1
        return stages


def _too_narrow(layers: Sequence[LayerSpec], padding_mode: PaddingMode, side: int) -> bool:
    """Whether a map is narrower than the border that reflects it; side: of the first input map."""
    for layer in layers:
        if padding_mode is PaddingMode.REFLECT and max(circular_border(layer)) >= side:
            return True
        side //= layer.stride
    return False


Vectors = list[tuple[float, float]]
"""Vectors of repetition (down, across) in pixels, one or two."""


def parse_pattern(text: str) -> Vectors | None:
    """The vectors of a pattern; empty for "off", None for "auto".

    One period alone is a pattern along one axis. Raises InputError for other texts, and for vectors
    that are parallel.
    """
    if text in ("auto", "off"):
        return None if text == "auto" else []
    shown = option_text("pattern", text)
    numbers = _numbers(text.replace(":", ","))
    if numbers is None or len(numbers) not in (2, 4) or text.count(":") != len(numbers) // 4:
        raise InputError(
            f"{shown}: must be auto, off, two periods ACROSS,DOWN as 51,83.5 (0 for none), or two "
            "vectors ACROSS,DOWN:ACROSS,DOWN as 43,0:21.5,21"
        )
    if len(numbers) == 2:
        across, down = numbers
        vectors = [(down, 0.0)] * (down != 0) + [(0.0, across)] * (across != 0)
    else:
        vectors = [(numbers[1], numbers[0]), (numbers[3], numbers[2])]
    shortest = min((math.hypot(*vector) for vector in vectors), default=0.0)
    if shortest < SHORTEST_PERIOD or (min(numbers) < 0 and len(numbers) == 2):
        raise InputError(f"{shown}: periods must be {SHORTEST_PERIOD} pixels or more")
    if len(vectors) == 2:
        (a, b), (c, d) = vectors
        if abs(a * d - b * c) < 0.1 * math.hypot(a, b) * math.hypot(c, d):
            raise InputError(f"{shown}: the two vectors must point in different directions")
    return vectors


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


IMAGENET_MEAN = (123.68, 116.779, 103.939)  # what the authors subtract, RGB 0..255
PUBLISHED_LAYERS = parse_layers("100@15/3+2,64@5+2,30@3+2")


@dataclass(frozen=True)
class PublishedConfig(BaseConfig):
    """Settings of the published models: maximum likelihood and contrastive divergence."""

    learner: str = default("learner", "mle", choices=("mle", "cd"))
    size: int | None = default("size", 224)
    crop: int | None = default("crop", None)
    batch_size: int | None = default("batch_size", None)
    mean_color: tuple[float, ...] | None = default("mean_color", IMAGENET_MEAN)
    layers: tuple[LayerSpec, ...] = default("layers", PUBLISHED_LAYERS)
    padding_mode: PaddingMode = default("padding_mode", PaddingMode.ZEROS)
    iterations: int = default("iterations", 700)
    learning_rate: float = default("learning_rate", 5e-4)
    sigma: float = positive(1.0, "Deviation of the reference distribution, in gray levels.")
    langevin_steps: int = setting(10, "Langevin steps per iteration.", low=1)
    step_size: float = positive(0.3, "Langevin step size, in gray levels.")
    chains: int | None = whole_or_none(
        None, "Persistent chains; 0 takes 16 on a GPU (as published), 1 on a CPU."
    )
    layerwise: bool = setting(True, "Add layers one at a time, and train all of them after each.")
    stage_rate_divisor: float = positive(2.0, "Divides the learning rate for every new layer.")
    bias_rate_factor: float = setting(2.0, "Learning rate of biases relative to filters.", low=0)
    momentum: float = setting(0.0, "Momentum of gradient descent.", low=0, high=0.999)
    weight_decay: float = setting(1e-4, "Weight decay of filters.", low=0)
    gradient_cap: float = positive(20.0, "Largest value in the gradient of a layer.")
    init_deviation: float = positive(0.01, "Standard deviation of new filters.")

    # The published trainings know neither noise levels nor augmentation nor patterns.
    pattern, normals = "off", "auto"
    unit_deviation = False  # images stay in gray levels
    shrink, flips, rotations, shifts = None, False, False, 0
    smooth_gates = is_texture = False
    size_multiple = space_to_depth = 1
    default_iterations = 700
    halved_after_divergence = ("learning_rate", "step_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and self.head:
            raise self._error("crop", "a head needs whole images; leave one out")
        if self.learner == "cd" and self.chains is not None:
            raise self._error("chains", "contrastive divergence starts at the data; leave it out")

    @property
    def initial_layers(self) -> tuple[LayerSpec, ...]:
        """Layers at the start of training: the first, or all."""
        return self.layers[:1] if self.layerwise else self.layers

    def resolve(
        self,
        largest_crop: int,
        channels: int,
        coarse_share: float,
        *,
        on_gpu: bool,
        shortest_side: int | None = None,
        smallest: str = "the image",
    ) -> tuple[Self, list[str]]:
        """The config with all choices made: the mean color of gray images, the chains."""
        del largest_crop, coarse_share, shortest_side, smallest
        config = dataclasses.replace(self, channels=channels)
        if self.mean_color == IMAGENET_MEAN and channels == 1:
            config = dataclasses.replace(config, mean_color=(sum(IMAGENET_MEAN) / 3,))
        if self.learner == "mle" and self.chains is None:
            config = dataclasses.replace(config, chains=16 if on_gpu else 1)
        return config, []


Config = NoiseConditionalConfig | PublishedConfig
CONFIG_OF_LEARNER: dict[str, type[NoiseConditionalConfig] | type[PublishedConfig]] = {
    "denoise": NoiseConditionalConfig,
    DENOISE_MLE: NoiseConditionalConfig,
    "mle": PublishedConfig,
    "cd": PublishedConfig,
}
LEARNERS_IN_WORDS = {
    "denoise": "denoising",
    DENOISE_MLE: "denoising and likelihood",
    "mle": "maximum likelihood",
    "cd": "contrastive divergence",
}
SETTINGS: dict[str, dataclasses.Field[Any]] = {
    spec.name: spec for spec in dataclasses.fields(NoiseConditionalConfig)
}
"""Every setting by name, for its type and its help."""
for spec in dataclasses.fields(PublishedConfig):
    SETTINGS.setdefault(spec.name, spec)


def parse_setting(name: str, written: Any) -> Any:
    """The value of a setting, from text, TOML, JSON or Python. Raises InputError."""
    text, spec = _text(written), SETTINGS[name]
    if written is None or text == spec.metadata["none"]:
        return None
    parse, words = _PARSERS[spec.type]
    try:
        return parse(text)
    except (KeyError, ValueError) as error:
        raise InputError(f"{option_text(name, text)}: must be {words}") from error


_PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    int | None: (int, "a whole number"),
    float: (float, "a number"),
    float | None: (float, "a number"),
    bool: ({"true": True, "false": False}.__getitem__, "true or false"),
    PaddingMode: (PaddingMode, f"one of {', '.join(PaddingMode)}"),
    tuple[LayerSpec, ...]: (parse_layers, "FILTERS@SIZE/STRIDE+PADDING,..., as 100@15/3+2,64@5"),
    tuple[float, ...] | None: (
        lambda text: tuple(map(float, text.split(","))),
        "one number for each channel, as 127,127,127, or own",
    ),
}


def to_json(config: Config) -> dict[str, Any]:
    """The settings as plain values for a model file or `--json`."""
    values = dataclasses.asdict(config)
    return values | {
        "layers": ",".join(map(str, config.layers)),
        "padding_mode": str(config.padding_mode),
    }


def from_json(values: Mapping[str, Any]) -> Config:
    """The config that `to_json` described. Raises KeyError or TypeError for other values."""
    config = CONFIG_OF_LEARNER[values["learner"]]
    return config(**{name: parse_setting(name, value) for name, value in values.items()})
