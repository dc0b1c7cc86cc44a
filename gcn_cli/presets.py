"""Named configs, TOML files of settings, and which source of a setting wins."""

import dataclasses
import json
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gcn_cli.config import (
    CONFIG_OF_LEARNER,
    DEFAULT_LAYERS,
    SETTINGS,
    Config,
    NoiseConditionalConfig,
    PublishedConfig,
    option_name,
    option_text,
    parse_setting,
    to_json,
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
    padding_mode=PaddingMode.ZEROS,
)
PRESETS: dict[str, Config] = {
    "default": NoiseConditionalConfig(),
    # Without the widest layers: at a crop of 96 their input would be mostly reflected padding.
    "quick": NoiseConditionalConfig(layers=DEFAULT_LAYERS[:8], crop=96),
    # More images per batch improve large images and worsen small ones.
    "best": NoiseConditionalConfig(batch_size=12, iterations=1400),
    "object": OBJECT,
    # 1.5 times the filters in all layers: widening only the widest layers did not help.
    "object-best": dataclasses.replace(
        OBJECT,
        layers=tuple(
            dataclasses.replace(layer, filters=layer.filters * 3 // 2) for layer in OBJECT.layers
        ),
    ),
    "paper-texture": PublishedConfig(),
    "paper-codebook": PublishedConfig(
        langevin_steps=20, learning_rate=1e-3, stage_rate_divisor=2.5
    ),
    "paper-object": PublishedConfig(
        langevin_steps=30, iterations=600, learning_rate=4e-3, stage_rate_divisor=1.0, head=True
    ),
    "paper-reconstruct": PublishedConfig(
        learner="cd",
        langevin_steps=1,
        step_size=0.5,
        layerwise=False,
        iterations=2000,
        learning_rate=1e-4,
        momentum=0.9,
        gradient_cap=1.0,
        batch_size=10,
    ),
}
PRESET_NOTES = {
    "default": "a texture; two minutes on two CPU cores",
    "quick": "a texture, in half the time; sees smaller structures",
    "best": "a texture of 384 pixels or more, with better objects; a quarter of an hour",
    "object": "a folder of aligned objects; five minutes",
    "object-best": "the same with more filters: more objects are whole; nine minutes",
    "paper-texture": "published: one texture image, three layers",
    "paper-codebook": "published: one image of objects that are not aligned",
    "paper-object": "published: a folder of aligned objects, fully connected head",
    "paper-reconstruct": "published: a folder of images, contrastive divergence",
}
# Settings that had another name in older model files and on older command lines.
RENAMED = {
    "octaves": "stages",
    "octave_layers": "stage_layers",
    "depth": "space_to_depth",
    "lattice": "padding_mode",
    "smoothness": "gate_width",
    "refined": "likelihood_share",
    "likelihood": "likelihood_weight",
    "bias_rate": "bias_rate_factor",
    "growth": "layerwise",
    "rate_divisor": "stage_rate_divisor",
    "init_std": "init_deviation",
}


def build_config(
    settings: Mapping[str, Any], file: Mapping[str, Any] | None = None, preset: str | None = None
) -> Config:
    """The config from settings (options or keywords), then a TOML file, then a preset.

    Raises InputError for an unknown setting, and for one that the learner does not use.
    """
    file = dict(file or {})
    name = preset or file.get("preset")
    file.pop("preset", None)
    if name is not None and name not in PRESETS:
        raise InputError(f"--preset {name}: must be one of {', '.join(PRESETS)}")
    check_names("--set", settings)
    check_names("--config:", file)
    values = {key: parse_setting(key, value) for key, value in {**file, **settings}.items()}
    base = PRESETS[name or "default"]
    learner = values.get("learner", base.learner)
    if learner not in CONFIG_OF_LEARNER:
        choices = ", ".join(CONFIG_OF_LEARNER)
        raise InputError(f"{option_text('learner', learner)}: must be one of {choices}")
    shown = option_text("learner", learner)
    if CONFIG_OF_LEARNER[learner] is not type(base):
        if name is not None:
            raise InputError(f"--preset {name}: has another learner than {shown}; leave one out")
        base = CONFIG_OF_LEARNER[learner]()
    known = {spec.name for spec in dataclasses.fields(base)}
    if learner == "denoise":
        known -= {"likelihood_share", "likelihood_weight"}
    for key in values:
        if key not in known:
            raise InputError(f"{option_name(key)}: has no meaning with {shown}; leave one out")
    return dataclasses.replace(base, **values)


def check_names(source: str, names: Iterable[str]) -> None:
    """Raise InputError for a name that no setting has; `source` is "--set" or "--config FILE"."""
    for name in names:
        if name in RENAMED:
            raise InputError(f"{source} {name}: is now {RENAMED[name]}")
        if name not in SETTINGS:
            similar = get_close_matches(name, SETTINGS, 3, 0.5)
            hint = f"similar are {', '.join(similar)}; " if similar else ""
            raise InputError(
                f"{source} {name}: no such setting; {hint}see gcn inspect --preset default"
            )


def read_toml(path: str) -> dict[str, Any]:
    """The settings of a TOML file, not yet parsed. Raises InputError with the line of an error."""
    try:
        data = Path(path).read_bytes()
        encoding = "utf-16" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
        return tomllib.loads(data.decode(encoding))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"--config {path}: {reason}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not a TOML file: {error}") from error


def to_toml(config: Config) -> str:
    """The settings as a TOML file that `read_toml` reads, with the meaning of each."""
    lines = []
    for name, value in to_json(config).items():
        about = SETTINGS[name].metadata
        lines.append(f"# {about['help']}")
        if value is None and about["none"] is None:  # iterations
            lines.append(f"# {name} = {config.iteration_count}")
        elif value is None and about["none"] == "0":
            lines.append(f"{name} = 0")
        else:
            lines.append(f"{name} = {json.dumps(about['none'] if value is None else value)}")
    return "\n".join(lines)
