"""Named configs, and which source of a value wins: option, file (--config), preset, default."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gcn_cli.config import (
    CONFIG_OF_LEARNER,
    DEFAULT_LAYERS,
    DENOISE_MLE,
    Config,
    NoiseConditionalConfig,
    PublishedConfig,
    config_fields,
    option_name,
    parse_value,
)
from gcn_cli.errors import InputError
from gcn_cli.models.layers import PaddingMode

OBJECT = NoiseConditionalConfig(
    layers=DEFAULT_LAYERS[:8],  # the head sees the whole image anyway
    iterations=2000,
    head=True,
    crop=None,
    margin=0,
    batch_size=16,
    lattice=PaddingMode.ZERO,
)
PRESETS: dict[str, Config] = {
    "default": NoiseConditionalConfig(),
    # Without the widest layers: crops of 96 would show them little but mirrors.
    "quick": NoiseConditionalConfig(layers=DEFAULT_LAYERS[:8], crop=96),
    # Things are truer by more images; small pictures are better off with fewer.
    "best": NoiseConditionalConfig(batch_size=12, iterations=1400),
    "object": OBJECT,
    # Half as many filters again, of all layers: of the wider ones alone no more objects are whole.
    "object-best": dataclasses.replace(
        OBJECT,
        layers=tuple(
            dataclasses.replace(layer, filters=layer.filters * 3 // 2) for layer in OBJECT.layers
        ),
    ),
    "paper-texture": PublishedConfig(),
    "paper-codebook": PublishedConfig(langevin_steps=20, learning_rate=1e-3, rate_divisor=2.5),
    "paper-object": PublishedConfig(
        langevin_steps=30, iterations=600, learning_rate=4e-3, rate_divisor=1.0, head=True
    ),
    "paper-reconstruct": PublishedConfig(
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
    "default": "one texture, some two minutes of two processor cores",
    "quick": "the same in little more than a minute, with a smaller receptive field",
    "best": "one texture of 384 pixels or more, things truer, a quarter of an hour",
    "object": "a folder of aligned objects",
    "object-best": "the same, more of them whole, nine minutes of two cores in place of five",
    "paper-texture": "published, one texture image, three stages",
    "paper-codebook": "published, one image of objects that are not aligned",
    "paper-object": "published, a folder of aligned objects, fully connected head",
    "paper-reconstruct": "published, a folder of images, learned by one-step reconstruction",
}


def resolve(
    options: Mapping[str, Any], file: Mapping[str, Any] | None = None, preset: str | None = None
) -> Config:
    """The config of a run; `options` and `file` hold only what was given there, typed or written.

    Raises InputError for an unknown key, and for a value that the learner would not use.
    """
    written = dict(file or {})
    in_file = written.pop("preset", None)
    given = written | dict(options)
    name = preset or in_file
    if name is not None and name not in PRESETS:
        raise InputError(f"preset {name}: must be one of {', '.join(PRESETS)}")
    known = config_fields()
    for key in given:
        if key not in known:
            raise InputError(f"config: unknown key {key}; known are {', '.join(known)}")
    values = {key: parse_value(key, known[key].type, v) for key, v in given.items()}
    base = PRESETS[name] if name else NoiseConditionalConfig()
    learner = values.get("learner", base.learner)
    if learner not in CONFIG_OF_LEARNER:
        raise InputError(f"--learner {learner}: must be one of {', '.join(CONFIG_OF_LEARNER)}")
    if CONFIG_OF_LEARNER[learner] is not type(base):
        if name is not None:
            raise InputError(f"--preset {name}: is not for --learner {learner}; leave one out")
        base = CONFIG_OF_LEARNER[learner]()
    own = {spec.name for spec in dataclasses.fields(base)}
    for key in values:
        if key not in own:
            raise InputError(f"{option_name(key)}: means nothing to --learner {learner}")
    if learner == "denoise":
        for key in ("refined", "likelihood"):
            if key in values:
                raise InputError(
                    f"{option_name(key)}: is for --learner {DENOISE_MLE}; leave one out"
                )
    return dataclasses.replace(base, **values)
