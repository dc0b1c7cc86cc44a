"""Model files: one safetensors file holds a whole run, with its description as JSON metadata.

Weights, trainer state (optimizers, chains, random generators) and history, so that a training can
be resumed exactly. No pickle. A file is written under a temporary name, synced and renamed.
"""

import base64
import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from gcn_cli import __version__ as VERSION
from gcn_cli.config import Config, from_json, to_json
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization, SourceFile, TextureMap, write_bytes
from gcn_cli.kinds import ModelKind, build_kind
from gcn_cli.models.energy import GenerativeModel
from gcn_cli.models.layers import parse_layers
from gcn_cli.pattern import Pattern, PhaseField, locate
from gcn_cli.training.optim import substate

FORMAT = 13
LONGEST_HEADER = 100_000_000  # bytes; safetensors allows no longer ones


@dataclass(frozen=True)
class Checkpoint:
    """A run at one iteration."""

    kind: ModelKind
    normalization: Normalization
    image_size: tuple[int, int]  # (H, W) of the training images, the default for samples
    iteration: int = 0
    total_iterations: int = 0
    seconds: float = 0.0  # of training so far, over all sessions
    data_digest: str = ""  # of the training images
    history: list[dict[str, float]] = field(default_factory=list)
    trainer_state: dict[str, Tensor] = field(default_factory=dict)
    requested: Config | None = None  # the config before images and device resolved it
    maps: tuple[TextureMap, ...] = (TextureMap(),)  # the images that the channels are
    pattern: Pattern | None = None  # of a regular texture, in model units
    sources: tuple[SourceFile, ...] = ()  # the files of the training images
    asked: dict[str, Any] = field(default_factory=dict)  # of the training, see `runs.request`
    digest: str = ""  # SHA-256 of the model file that this was read from

    @property
    def config(self) -> Config:
        return self.kind.config

    def to_model(self, pixels: Tensor) -> Tensor:
        """An image (C, H, W) in 0..255 in model units, (1, C, H, W) on the model's device."""
        return self.normalization.to_model(pixels)[None].to(self.kind.device)

    def phases(self, x: Tensor, known: Tensor | None = None) -> PhaseField | None:
        """The phases of the pattern in a given image (1, C, H, W) in model units, where it is.

        known: mask (H, W) of the pixels to use, by default all.
        """
        if self.pattern is None:
            return None
        found = locate(self.pattern, x[0].cpu(), known)
        return None if found is None else found.to(self.kind.device)

    def density(
        self, x: Tensor, noise_level: float | None, dtype: torch.dtype = torch.float32
    ) -> GenerativeModel:
        """p_s for evaluation of an image x (1, C, H, W), with the phases of the lattice in it."""
        return self.kind.density(noise_level, dtype, phases=self.phases(x))


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. An older file at `path` stays whole until the new one is complete."""
    net, pattern = checkpoint.kind.net, checkpoint.pattern
    description = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_json(checkpoint.config),
        "requested": to_json(checkpoint.requested or checkpoint.config),
        "normalization": dataclasses.asdict(checkpoint.normalization),
        "maps": list(map(_map_to_json, checkpoint.maps)),
        "layers": ",".join(map(str, net.layers)),
        "image_size": checkpoint.image_size,
        "pattern": 0 if pattern is None else pattern.axes,
        "iteration": checkpoint.iteration,
        "total_iterations": checkpoint.total_iterations,
        "seconds": checkpoint.seconds,
        "data_digest": checkpoint.data_digest,
        "sources": [source._asdict() for source in checkpoint.sources],
        "asked": checkpoint.asked,
        "metrics": list(checkpoint.history[-1]) if checkpoint.history else [],
    }
    tensors = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    # The trainer's state contains the model, which is stored once.
    for name, tensor in checkpoint.trainer_state.items():
        if not name.startswith("model."):
            tensors[f"trainer.{name}"] = tensor
    if pattern is not None:
        tensors |= {f"pattern.{name}": tensor for name, tensor in vars(pattern).items()}
    rows = [list(row.values()) for row in checkpoint.history]
    tensors["history"] = torch.tensor(rows, dtype=torch.float64)
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, serialize(contiguous, metadata={"gcn": json.dumps(description)}))


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, the model onto `device`, the trainer state onto the CPU.

    Raises InputError for a file that is missing, damaged, or of another format.
    """
    data, description, tensors = _read(path)
    try:
        checkpoint = _checkpoint(description, tensors, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, InputError) as error:
        raise _inconsistent(path, error) from error
    return dataclasses.replace(checkpoint, digest=hashlib.sha256(data).hexdigest())


def read_description(path: Path) -> dict[str, Any]:
    """What a model file says of itself, without its tensors. Raises InputError as `load` does."""
    return _read(path, whole=False)[1]


def _read(path: Path, *, whole: bool = True) -> tuple[bytes, dict[str, Any], dict[str, Tensor]]:
    """The bytes, the description and the tensors; without tensors if not `whole`."""
    if not path.is_file():
        what = "is no file" if os.path.lexists(path) else "no such model file"
        raise InputError(f"{path}: {what}; train a model with 'gcn train IMAGE'")
    try:
        with path.open("rb") as file:  # `safe_open` takes no path that is not UTF-8
            data = file.read(9)
            length = int.from_bytes(data[:8], "little")
            if data.endswith(b"{"):  # else no model file
                data += file.read() if whole else file.read(min(length, LONGEST_HEADER) - 1)
        tensors = deserialize(data) if whole else {}
        description = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["gcn"])
        number = description["format"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a gcn model file, or damaged") from error
    if number != FORMAT:
        writer = f"gcn {description.get('version', '')}".strip()
        raise InputError(
            f"{path}: model file of format {number!r}, this gcn reads format {FORMAT} only; "
            f"train again, or use the {writer} that wrote it"
        )
    try:
        _check_description(description)
    except (KeyError, TypeError, ValueError) as error:
        raise _inconsistent(path, error) from error
    return data, description, tensors


def _inconsistent(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path}: incomplete or inconsistent model file ({reason})")


def _check_description(about: dict[str, Any]) -> None:
    """Raise an error if a value has another type or range than `save` writes.

    KeyError, TypeError or ValueError. Config, layers and pattern are checked where they are parsed.
    """
    for name in ("iteration", "total_iterations", "seconds"):
        value, kinds = about[name], (int, float) if name == "seconds" else int
        if not isinstance(value, kinds) or not 0 <= value < math.inf:
            raise ValueError(f"{name} {value!r}: must be a number, 0 or more")
    height, width = about["image_size"]
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"image_size {[height, width]}: must be whole numbers, 1 or more")
    if not isinstance(about.get("asked", {}), dict):
        raise TypeError("asked: must be an object")
    for source in about.get("sources", ()):
        if not all(isinstance(text, str) for text in SourceFile(**source)):
            raise TypeError("sources: must have a name and a digest")


def _checkpoint(
    description: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | str
) -> Checkpoint:
    config = from_json(description["config"])
    height, width = description["image_size"]
    with torch.device("meta"):  # no memory is allocated for what a damaged file asks for
        layers = parse_layers(description["layers"])
        kind = build_kind(config, (height, width), layers, description["pattern"])
    weights = substate(tensors, "model.")
    empty = kind.net.state_dict()
    shapes = {name: tensor.shape for name, tensor in empty.items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("the shapes of the weights differ from those of the layers")
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ValueError("weights are not finite numbers")
    # Module.to_empty would import the compiler of PyTorch, which takes half a second.
    copies = {name: weights[name].to(device, t.dtype, copy=True) for name, t in empty.items()}
    kind.net.load_state_dict(copies, assign=True)
    normalization = _normalization(description["normalization"], config.channel_count)
    model_state = {f"model.{name}": tensor for name, tensor in weights.items()}
    rows = tensors["history"].tolist()
    maps = tuple(map(_map_from_json, description["maps"]))
    if sum(texture_map.channels for texture_map in maps) != config.channel_count:
        raise ValueError(f"maps have other than {config.channel_count} channels in all")
    return Checkpoint(
        kind=kind,
        normalization=normalization,
        image_size=(height, width),
        iteration=description["iteration"],
        total_iterations=description["total_iterations"],
        seconds=float(description["seconds"]),
        data_digest=description["data_digest"],
        history=[dict(zip(description["metrics"], row, strict=True)) for row in rows],
        trainer_state=model_state | substate(tensors, "trainer."),
        requested=from_json(description["requested"]),
        maps=maps,
        pattern=_pattern(description["pattern"], tensors, config.channel_count),
        sources=tuple(SourceFile(**source) for source in description.get("sources", ())),
        asked=description.get("asked", {}),
    )


def _map_to_json(texture_map: TextureMap) -> dict[str, Any]:
    profile = texture_map.icc_profile
    encoded = None if profile is None else base64.b64encode(profile).decode()
    return {**dataclasses.asdict(texture_map), "icc_profile": encoded}


def _map_from_json(values: dict[str, Any]) -> TextureMap:
    """The map. Raises ValueError for what cannot be written to a file, or becomes a path."""
    encoded = values["icc_profile"]
    profile = None if encoded is None else base64.b64decode(encoded, validate=True)
    values = {**values, "icc_profile": profile}
    if values.pop("normals", False):  # of a model made before maps had kinds
        values["kind"] = values.get("kind") or "normal"
    texture_map = TextureMap(**values)
    name, depth, dpi = texture_map.name, texture_map.bit_depth, texture_map.dpi
    if Path(name).name != name or "\0" in name:
        raise ValueError(f"map {name!r}: must be a name without a folder")
    if depth not in (8, 16) or not (dpi is None or 0 < dpi < math.inf):
        raise ValueError(f"map {name!r}: {depth!r} bits, {dpi!r} pixels per inch")
    return texture_map


def _normalization(values: dict[str, Any], channels: int) -> Normalization:
    """The mean and the scale of the channels. Raises ValueError for others than `fit` finds."""
    mean, scale = (tuple(map(float, values[name])) for name in ("mean", "scale"))
    if len(mean) != channels or len(scale) != channels:
        raise ValueError(f"normalization: must have {channels} means and scales")
    if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in scale):
        raise ValueError("normalization: means must be finite, scales more than 0")
    return Normalization(mean, scale)


def _pattern(axes: int, tensors: dict[str, Tensor], channels: int) -> Pattern | None:
    """The pattern along 0, 1 or 2 axes. Raises ValueError if its tensors have other shapes."""
    if not axes:
        return None
    pattern = Pattern(**substate(tensors, "pattern."))
    shapes = [tuple(pattern.waves.shape), tuple(pattern.wander.shape), pattern.cell.shape[0]]
    finite = all(bool(tensor.isfinite().all()) for tensor in vars(pattern).values())
    if shapes != [(axes, 2), (axes,), channels] or pattern.cell.ndim != 1 + axes or not finite:
        raise ValueError("the pattern has other shapes than its lattice")
    return pattern
