"""What there is to say of a model, and of a picture in its eyes, as plain values."""

from typing import Any

import torch
from torch import Tensor

from gcn_cli import images
from gcn_cli.config import to_json
from gcn_cli.learning.trainer import Metrics
from gcn_cli.model.energy import GenerativeModel, energy
from gcn_cli.runs.checkpoint import Checkpoint

HISTORY_ROWS = 10


def describe(loaded: Checkpoint) -> dict[str, Any]:
    """Config, layers and training history."""
    net, (height, width) = loaded.family.net, loaded.image_size
    layers: list[dict[str, Any]] = [
        {
            "layer": str(spec),
            "receptive_field": field,
            "map": f"{across}x{up}",
            "parameters": net.layer_parameters(number),
        }
        for number, (spec, field, (up, across)) in enumerate(
            zip(net.layers, net.receptive_fields(), net.map_sizes(height, width), strict=True)
        )
    ]
    if net.head_parameters:
        whole = {"layer": "head", "receptive_field": f"{width}x{height}", "map": "1"}
        layers.append({**whole, "parameters": net.head_parameters})
    octaves = loaded.family.octaves()
    widest = max(int(one["looks_at"]) for one in octaves)
    return {
        "config": to_json(loaded.config),
        "maps": [f"{one.name} {one.bands} {one.depth} bits".strip() for one in loaded.maps],
        "mean_color": list(loaded.pixels.mean),
        "periods": dict(zip(("down", "across"), loaded.periods, strict=True)),
        "iteration": loaded.iteration,
        "total_iterations": loaded.total_iterations,
        "seconds": round(loaded.seconds, 1),
        "parameters": sum(one.numel() for one in net.parameters()),
        "octaves": octaves,
        "looks_at": f"{width}x{height}" if net.head_parameters else widest,
        "layers": layers,
        "history": _thinned(loaded.history),
    }


def _thinned(history: list[Metrics]) -> list[Metrics]:
    """Some ten rows from first to last."""
    if len(history) <= HISTORY_ROWS:
        return history
    places = torch.linspace(0, len(history) - 1, HISTORY_ROWS).round().int().tolist()
    return [history[place] for place in places]


@torch.no_grad()
def judge(loaded: Checkpoint, density: GenerativeModel, pixels: Tensor) -> dict[str, Any]:
    """Score, energy and the share of open gates by layer, for a picture (C, H, W) in 0..255.

    A smooth gate counts by how far it is open.
    """
    x = loaded.seen(pixels)
    gates = density.activation_pattern(x)
    whole = float(energy(density, x))
    return {
        "score": float(density.score(x)),
        "energy": whole,
        "energy_per_pixel": whole / x.numel(),
        "open_gates": [round(float(gate.float().mean()), 4) for gate in gates],
    }


def filter_sheet(loaded: Checkpoint) -> Tensor:
    """The first layer's filters side by side, each stretched to 0..255 about mid grey."""
    seen = 3 if loaded.maps[0].bands.startswith("RGB") else 1  # colours of the first map
    filters = loaded.family.net.first_filters.cpu()[:, :seen]
    peak = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    shown = 127.5 + 127.5 * filters / peak
    enlarged = shown.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return images.grid(enlarged)
