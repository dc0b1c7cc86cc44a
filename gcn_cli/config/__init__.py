"""What a training is asked to do: a frozen dataclass for each family of models.

The fields feed the options of `gcn train`, the checkpoint and `gcn inspect` alike; the text beside
a field is its help.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gcn_cli.config.ladder import REFINED, LadderConfig
from gcn_cli.config.paper import PaperConfig
from gcn_cli.values import parse

__all__ = [
    "FAMILIES",
    "Config",
    "LadderConfig",
    "PaperConfig",
    "fields",
    "from_json",
    "to_json",
]

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
