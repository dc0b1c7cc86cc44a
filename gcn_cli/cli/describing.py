"""What `gcn inspect` says of a model and of a picture."""

import io
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from gcn_cli import images
from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import to_json
from gcn_cli.learning.setup import Model
from gcn_cli.model.energy import energy
from gcn_cli.model.ladder import LadderNet
from gcn_cli.model.level import LadderLevel
from gcn_cli.model.network import GenerativeConvNet

HISTORY_ROWS = 10


def describe(loaded: Checkpoint) -> dict[str, Any]:
    """Config, layers and training history as plain values."""
    model = loaded.model
    sizes = model.map_sizes(*loaded.image_size)
    layers: list[dict[str, Any]] = [
        {
            "layer": str(spec),
            "receptive_field": field,
            "map": f"{width}x{height}",
            "parameters": sum(p[number].numel() for p in _per_layer(model)),
        }
        for number, (spec, field, (height, width)) in enumerate(
            zip(model.layers, model.receptive_fields(), sizes, strict=True)
        )
    ]
    if isinstance(model, GenerativeConvNet) and model.head is not None:
        whole = f"{loaded.image_size[1]}x{loaded.image_size[0]}"
        count = model.head.numel()
        layers.append({"layer": "head", "receptive_field": whole, "map": "1", "parameters": count})
    return {
        "config": to_json(loaded.config),
        "mean_color": list(loaded.pixels.mean),
        "iteration": loaded.iteration,
        "total_iterations": loaded.total_iterations,
        "seconds": round(loaded.seconds, 1),
        "parameters": sum(int(layer["parameters"]) for layer in layers),
        "layers": layers,
        "history": _thinned(loaded.history),
    }


def _thinned(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Some ten rows from first to last."""
    if len(history) <= HISTORY_ROWS:
        return history
    places = torch.linspace(0, len(history) - 1, HISTORY_ROWS).round().int().tolist()
    return [history[place] for place in places]


def _per_layer(model: Model) -> list[nn.ParameterList]:
    """The lists of a model that have an entry a layer."""
    if isinstance(model, LadderNet):
        return [model.weights, model.biases, model.levels, model.readouts]
    return [model.weights, model.biases]


@torch.no_grad()
def judge(
    loaded: Checkpoint, here: GenerativeConvNet | LadderLevel, pixels: Tensor
) -> dict[str, Any]:
    """Score, energy and the share of open gates by layer, for a picture (C, H, W) in 0..255.

    A smooth gate counts by how far it is open.
    """
    x = loaded.pixels.to_model(pixels)[None]
    gates = here.activation_pattern(x)
    return {
        "score": float(here.score(x)),
        "energy": float(energy(here, x)),
        "energy_per_pixel": float(energy(here, x)) / x.numel(),
        "open_gates": [round(float(gate.float().mean()), 4) for gate in gates],
    }


def filter_sheet(loaded: Checkpoint) -> Tensor:
    """The first layer's filters side by side, each stretched to 0..255 about mid grey."""
    if isinstance(loaded.model, LadderNet):
        net = loaded.model
        filters = torch.pixel_shuffle(net.weights[0].detach(), net.depth)
    else:
        filters = loaded.model.weights[0].detach()
    peak = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    shown = 127.5 + 127.5 * filters / peak
    enlarged = shown.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return images.grid(enlarged)


def render(facts: dict[str, Any]) -> str:
    """The facts as tables for a person."""
    console = Console(file=io.StringIO(), width=100)
    settings = Table("setting", "value", title="config")
    for name, value in facts["config"].items():
        settings.add_row(name, str(value))
    console.print(settings)
    for key in ("layers", "history"):
        console.print(_table(key, facts[key]))
    for key in ("iteration", "total_iterations", "seconds", "parameters"):
        console.print(f"{key}: {facts[key]}")
    for name, value in facts.get("picture", {}).items():
        console.print(f"{name}: {value}")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(*(rows[0] if rows else []), title=title)
    for row in rows:
        table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
    return table
