"""Model files: one safetensors file holds a run whole, its description as JSON in the metadata.

Weights, optimizer, chains, random states and history, so that a training goes on as if never
stopped. No pickle. Written to a temporary name, synced and renamed.
"""

import base64
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from gcn_cli import __version__ as VERSION
from gcn_cli.config import Config, from_json, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization, TextureMap, write_bytes
from gcn_cli.kinds import ModelKind, build_kind
from gcn_cli.models.layers import parse_layers
from gcn_cli.pattern import Pattern, Periods, pattern_basis
from gcn_cli.training.optim import substate

FORMAT = 11
# 4 lacks what was asked for, where that was cut down; 5 lacks maps; 6 lacks patterns; 7 lacks the
# mean of aligned pictures; 8 lacks coarser ladders; in 9 these have all layers; in 10 their option
# has another name, and the finest ladder had its part of a batch only
READABLE = (4, 5, 6, 7, 8, 9, 10, 11)

MEAN_IMAGE_KEY = "spectrum.middle"  # of aligned pictures, in a ladder's state


@dataclass(frozen=True)
class Checkpoint:
    """A run at one moment."""

    family: ModelKind
    pixels: Normalization
    image_size: tuple[int, int]  # (H, W) of the pictures it learned from, and of its samples
    iteration: int = 0
    total_iterations: int = 0
    seconds: float = 0.0  # spent training so far, all sessions together
    data_digest: str = ""  # names the pictures it learned from
    history: list[dict[str, float]] = field(default_factory=list)
    learner_state: dict[str, Tensor] = field(default_factory=dict)
    asked: Config | None = None  # before pictures and device settled what was left open
    maps: tuple[TextureMap, ...] = (TextureMap(),)  # what pictures the channels are
    periods: Periods = (None, None)  # down and across, where the pattern is regular
    pattern: Pattern | None = None  # what repeats itself exactly, in units of the model
    learned_alike: bool = True  # as this gcn learns, so that it can go on

    @property
    def config(self) -> Config:
        """What it was trained with."""
        return self.family.config

    def seen(self, pixels: Tensor) -> Tensor:
        """A picture (C, H, W) in 0..255 as the model sees it, (1, C, H, W) where the model is."""
        return self.pixels.to_model(pixels)[None].to(self.family.net.weights[0].device)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; an older file at `path` stays whole until the new one is."""
    net = checkpoint.family.net
    description = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_json(checkpoint.config),
        "asked": to_json(checkpoint.asked or checkpoint.config),
        "pixels": dataclasses.asdict(checkpoint.pixels),
        "maps": [_described(one) for one in checkpoint.maps],
        "layers": ",".join(map(str, net.layers)),
        "image_size": checkpoint.image_size,
        "periods": checkpoint.periods,
        "pattern": None if checkpoint.pattern is None else checkpoint.pattern.periods,
        "iteration": checkpoint.iteration,
        "total_iterations": checkpoint.total_iterations,
        "seconds": checkpoint.seconds,
        "data_digest": checkpoint.data_digest,
        "metrics": list(checkpoint.history[-1]) if checkpoint.history else [],
    }
    tensors = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    # A learner's state has the model in it too; it is stored once.
    own = {n: t for n, t in checkpoint.learner_state.items() if not n.startswith("model.")}
    tensors |= {f"learner.{name}": tensor for name, tensor in own.items()}
    if checkpoint.pattern is not None:
        tensors["pattern.cell"] = checkpoint.pattern.cell
        tensors["pattern.spread"] = checkpoint.pattern.spread
    rows = [list(row.values()) for row in checkpoint.history]
    tensors["history"] = torch.tensor(rows, dtype=torch.float64)
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, serialise(contiguous, metadata={"gcn": json.dumps(description)}))


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; the model is on `device`, the learner's state on the processor.

    Raises InputError for a file that is missing, damaged, or not one of ours.
    """
    description, tensors = _read(path)
    try:
        return _assemble(description, tensors, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, InputError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: incomplete or inconsistent model file ({reason})") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path}: no such model file; train one with 'gcn train PICTURE'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(metadata["gcn"])
        found = description["format"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a gcn model file, or damaged") from error
    if found not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise InputError(
            f"{path}: format {found}, this gcn reads {readable}; use the gcn that wrote it"
        )
    return description, tensors


def _assemble(
    description: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | str
) -> Checkpoint:
    written = description["config"]
    if description["format"] < 9 and "depth" in written:
        written = {**written, "octaves": 1}  # there was one ladder
    config = from_json(_with_octave_layers(written, description))
    height, width = description["image_size"]
    layers = parse_layers(description["layers"])
    with torch.device("meta"):  # before memory is taken for what a damaged file asks for
        expected = build_kind(config, (height, width), layers).net.state_dict()
    if description["format"] < 8 and MEAN_IMAGE_KEY in expected:
        for prefix in ("model.", "learner.net."):
            tensors[prefix + MEAN_IMAGE_KEY] = torch.zeros(expected[MEAN_IMAGE_KEY].shape)
    found = substate(tensors, "model.")
    if {n: t.shape for n, t in expected.items()} != {n: t.shape for n, t in found.items()}:
        raise ValueError("weights of other shapes than its layers have")
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise ValueError("weights that are no finite numbers")
    family = build_kind(config, (height, width), layers)
    family.net.load_state_dict(found)
    family.net.to(device)
    asked = description.get("asked")
    names, pixels = description["metrics"], description["pixels"]
    return Checkpoint(
        family=family,
        pixels=Normalization(tuple(pixels["mean"]), _scales(pixels["scale"], family.config.bands)),
        maps=_maps(description.get("maps"), family.config.bands),
        image_size=(height, width),
        iteration=int(description["iteration"]),
        total_iterations=int(description["total_iterations"]),
        seconds=float(description["seconds"]),
        data_digest=description["data_digest"],
        history=[dict(zip(names, row, strict=True)) for row in tensors["history"].tolist()],
        learner_state={
            name.removeprefix("learner."): tensor
            for name, tensor in tensors.items()
            if name.startswith(("learner.", "model."))
        },
        asked=None if asked is None else from_json(_with_octave_layers(asked, description)),
        periods=_periods(description.get("periods", (None, None))),
        pattern=_pattern(description.get("pattern"), tensors, family.config.bands),
        learned_alike=description["format"] > 10 or written.get("octaves", 1) == 1,
    )


def _with_octave_layers(written: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """A config of a file with its layers of several ladders, in the name that they have now."""
    made = dict(written)
    if description["format"] == 10 and "coarser_layers" in made:
        made["octave_layers"] = made.pop("coarser_layers")
    if description["format"] == 9 and description["config"].get("octaves", 1) > 1:
        made["octave_layers"] = len(parse_layers(description["config"]["layers"]))
    return made


def _described(one: TextureMap) -> dict[str, Any]:
    """A map as JSON has it."""
    profile = None if one.profile is None else base64.b64encode(one.profile).decode()
    return {**dataclasses.asdict(one), "profile": profile}


def _maps(described: list[dict[str, Any]] | None, channels: int) -> tuple[TextureMap, ...]:
    """What `_described` described; of older files, one picture."""
    if described is None:
        return (TextureMap(bands="L" if channels == 1 else "RGB"),)
    maps = tuple(
        TextureMap(**{**one, "profile": one["profile"] and base64.b64decode(one["profile"])})
        for one in described
    )
    if sum(one.channels for one in maps) != channels:
        raise ValueError(f"maps of {channels} channels in all")
    return maps


def _periods(written: Sequence[float | None]) -> Periods:
    down, across = (None if one is None else float(one) for one in written)
    return down, across


def _pattern(
    periods: Sequence[float | None] | None, tensors: dict[str, Tensor], channels: int
) -> Pattern | None:
    if periods is None:
        return None
    known, found = _periods(periods), substate(tensors, "pattern.")
    shape = (channels, *(len(pattern_basis(known, axis, torch.zeros(1))) for axis in (0, 1)))
    for tensor in (found["cell"], found["spread"]):
        if tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
            raise ValueError("a pattern of another shape than its periods have")
    return Pattern(known, found["cell"], found["spread"])


def _scales(written: float | list[float], channels: int) -> tuple[float, ...]:
    """A scale for every channel; older files have one for all."""
    return tuple(written) if isinstance(written, list) else (float(written),) * channels
