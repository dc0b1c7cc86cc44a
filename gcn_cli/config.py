"""What a training is asked to do: one frozen dataclass, the presets, and where values come from.

Precedence: option, file (--config), preset, default. The fields feed the options of `gcn train`,
the checkpoint and `gcn inspect` alike; the text beside a field is its help.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gcn_cli.errors import InputError
from gcn_cli.model.spec import Lattice, LayerSpec, parse_layers

IMAGENET_MEAN = (123.68, 116.779, 103.939)  # what the authors subtract, RGB 0..255
PUBLISHED_LAYERS = parse_layers("100@15/3+2,64@5+2,30@3+2")


def _option(default: Any, text: str, **rule: Any) -> Any:
    """A field with its help; `low`, `high`, `choices` are rules that values must keep."""
    return field(default=default, metadata={"help": text, **rule})


@dataclass(frozen=True)
class Config:
    """Everything that decides what a training learns, apart from its pictures."""

    learner: str = _option(
        "mle",
        "mle: maximum likelihood with persistent chains; cd: contrastive divergence",
        choices=("mle", "cd"),
    )
    size: int | None = _option(224, "resize pictures to SIZE x SIZE; 0 keeps each as it is", low=1)
    crop: int | None = _option(
        None, "learn from random crops of this side instead of whole pictures", low=1
    )
    batch_size: int | None = _option(None, "observed images an iteration; 0 means all", low=1)
    channels: int = _option(3, "3 for colour, 1 for grey", choices=(1, 3))
    mean_color: tuple[float, ...] | None = _option(
        IMAGENET_MEAN, "colour that becomes 0, as R,G,B in 0..255; 'own' takes the pictures' mean"
    )
    layers: tuple[LayerSpec, ...] = _option(
        PUBLISHED_LAYERS, "layers of filters, bottom first, as filters@size/stride+padding,..."
    )
    head: bool = _option(False, "one fully connected filter over the top map: aligned objects")
    lattice: Lattice = _option(
        Lattice.ZERO, "what lies beyond the border", choices=tuple(map(str, Lattice))
    )
    sigma: float = _option(1.0, "deviation of the reference distribution, in grey levels", above=0)
    langevin_steps: int = _option(10, "Langevin steps an iteration", low=1)
    step_size: float = _option(0.3, "Langevin step size, in grey levels", above=0)
    chains: int | None = _option(
        None, "persistent chains; by default 16 as published on a GPU, 1 on a processor", low=1
    )
    growth: bool = _option(True, "add layers one at a time, training all below again")
    iterations: int = _option(700, "learning iterations a stage", low=1)
    learning_rate: float = _option(5e-4, "step up the likelihood in the first stage", above=0)
    rate_divisor: float = _option(2.0, "divides the learning rate at every new stage", above=0)
    bias_rate: float = _option(2.0, "biases learn this many times faster", low=0)
    momentum: float = _option(0.0, "momentum of the descent", low=0, high=0.999)
    weight_decay: float = _option(1e-4, "pull of filters towards 0", low=0)
    gradient_cap: float = _option(20.0, "a layer's gradient is scaled to this maximum", above=0)
    init_std: float = _option(0.01, "deviation of new filters", above=0)
    seed: int = _option(0, "names every random draw of the run", low=0)

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            _check(spec.name, getattr(self, spec.name), spec.metadata)
        if self.mean_color is not None and len(self.mean_color) != self.channels:
            raise InputError(
                f"--mean-color has {len(self.mean_color)} values for {self.channels} channels; "
                "give one a channel, or 'own'"
            )
        if self.crop is not None and self.head:
            raise InputError("--crop and --head: a head needs whole aligned images; leave one out")
        if self.learner == "cd" and self.chains is not None:
            raise InputError("--chains: contrastive divergence starts at the data; leave it out")


def _check(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    option = option_name(name)
    if "choices" in rule and value not in rule["choices"]:
        raise InputError(f"{option} {value}: must be one of {', '.join(map(str, rule['choices']))}")
    if value is None:
        return
    if "low" in rule and value < rule["low"]:
        raise InputError(f"{option} {value}: must be {rule['low']} or more")
    if "above" in rule and not value > rule["above"]:
        raise InputError(f"{option} {value}: must be more than {rule['above']}")
    if "high" in rule and value > rule["high"]:
        raise InputError(f"{option} {value}: must be {rule['high']} or less")


def option_name(field_name: str) -> str:
    """learning_rate -> --learning-rate."""
    return "--" + field_name.replace("_", "-")


PRESETS: dict[str, Config] = {
    "paper-texture": Config(),
    "paper-codebook": Config(langevin_steps=20, learning_rate=1e-3, rate_divisor=2.5),
    "paper-object": Config(
        langevin_steps=30, iterations=600, learning_rate=4e-3, rate_divisor=1.0, head=True
    ),
    "paper-reconstruct": Config(
        learner="cd",
        langevin_steps=1,
        step_size=0.5,
        growth=False,
        iterations=2000,
        learning_rate=1e-4,
        momentum=0.9,
        gradient_cap=1.0,
        batch_size=10,
    ),
}
PRESET_NOTES = {
    "paper-texture": "one texture image, three stages",
    "paper-codebook": "one image of objects that are not aligned",
    "paper-object": "a folder of aligned objects, fully connected head",
    "paper-reconstruct": "a folder of images, learned by one-step reconstruction",
}


def resolve(
    options: Mapping[str, Any], file: Mapping[str, Any] | None = None, preset: str | None = None
) -> Config:
    """The config of a run; `options` and `file` hold only what was given there."""
    given = dict(file or {})
    name = preset or given.pop("preset", None)
    given.pop("preset", None)
    if name is not None and name not in PRESETS:
        raise InputError(f"preset {name}: must be one of {', '.join(PRESETS)}")
    base = PRESETS[name] if name else Config()
    unknown = [key for key in given if key not in field_names()]
    if unknown:
        raise InputError(f"config: unknown key {unknown[0]}; known are {', '.join(field_names())}")
    values = {key: parse_value(key, value) for key, value in given.items()}
    return dataclasses.replace(base, **values | dict(options))


def field_names() -> list[str]:
    """Names of all config values, as in a file."""
    return [spec.name for spec in dataclasses.fields(Config)]


def read_file(path: str) -> dict[str, Any]:
    """A TOML file of config values, flat. Raises InputError with the place of an error."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not a TOML file: {error}") from error


def parse_value(name: str, value: Any) -> Any:
    """A value as written in an option, a file or a checkpoint, in the field's own type."""
    try:
        return _typed(name, value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{option_name(name)} {value}: {error}") from error


def _typed(name: str, value: Any) -> Any:
    kind = {spec.name: spec for spec in dataclasses.fields(Config)}[name].type
    if name in _WRITTEN:
        return _WRITTEN[name](value)
    if isinstance(value, bool) != (kind is bool):
        raise ValueError("must be true or false" if kind is bool else "must be a number")
    if kind in (int, int | None):
        number = None if value is None else int(value)
        return None if number == 0 and kind == (int | None) else number
    return {bool: bool, float: float, str: str}[cast(Any, kind)](value)


def _mean_color(value: Any) -> tuple[float, ...] | None:
    if value is None or value == "own":
        return None
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(float(part) for part in parts)


def _layers(value: Any) -> tuple[LayerSpec, ...]:
    return value if isinstance(value, tuple) else parse_layers(str(value))


_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "layers": _layers,
    "mean_color": _mean_color,
    "lattice": Lattice,
}


def to_json(config: Config) -> dict[str, Any]:
    """Plain values for a checkpoint or a screen; `from_json` takes them back."""
    values = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(config)}
    values["layers"] = ",".join(map(str, config.layers))
    values["lattice"] = str(config.lattice)
    return values


def from_json(values: Mapping[str, Any]) -> Config:
    """The config that `to_json` described."""
    return Config(**{key: parse_value(key, value) for key, value in values.items()})
