"""Pictures of a model's inside, as tensors (C, H, W) in 0..255."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.model.energy import GenerativeModel, reconstruct
from gcn_cli.runs.model import Model
from gcn_cli.sampling.canvas import Canvas
from gcn_cli.sampling.request import Request

UNITS = 12  # of a layer that are shown
LARGEST = 256  # pixels a side of what a unit paints, and of a picture that is looked into
COLD = torch.tensor([[0.05, 0.05, 0.20], [0.35, 0.10, 0.50], [0.85, 0.30, 0.35], [1.0, 0.95, 0.70]])


def painted(density: GenerativeModel, x: Tensor, fields: Sequence[int]) -> list[Tensor]:
    """What the strongest units of every layer paint: (C, rows, columns) in 0..255 a layer.

    dr/dI of a response r at the place in x (1, C, H, W) where it is strongest: with the gates as
    they are there, the filter that the unit is in the picture below, and at once the basis function
    that it adds on the way down. `fields` are the receptive fields of the layers.
    """
    sheets = []
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        for responses, field in zip(density.responses(leaf), fields, strict=True):
            chosen = responses.detach().mean(dim=(0, 2, 3)).topk(min(UNITS, responses.shape[1]))
            found = []
            for unit in chosen.indices.tolist():
                own = responses[0, unit]
                place = _strongest(own.detach(), field * own.shape[-1] // (2 * x.shape[-1]))
                (slope,) = torch.autograd.grad(own.flatten()[place], leaf, retain_graph=True)
                found.append(_about(slope[0].cpu(), min(field, LARGEST)))
            sheets.append(images.grid(torch.stack(found), columns=6))
    return sheets


def _strongest(responses: Tensor, margin: int) -> int:
    """The place of the largest response (h, w), away from the border where there is room."""
    inner = torch.full_like(responses, -torch.inf)
    edge = slice(margin, -margin or None)
    inner[edge, edge] = responses[edge, edge]
    return int((inner if bool(inner.isfinite().any()) else responses).argmax())


def _about(slope: Tensor, side: int) -> Tensor:
    """The part of a gradient (C, H, W) where it is not zero, in 0..255 about mid grey."""
    strength = slope.abs().sum(dim=0)
    weights = strength / strength.sum().clamp_min(1e-30)
    side = min(side, *slope.shape[1:])
    corner = []
    for axis, length in enumerate(slope.shape[1:]):
        along = weights.sum(dim=1 - axis)
        middle = float((along * torch.arange(length)).sum())
        corner.append(min(max(0, round(middle - side / 2)), length - side))
    part = slope[:3, corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    part = part if len(part) in (1, 3) else part[:1]
    shown = 127.5 + 127.5 * part / part.abs().max().clamp_min(1e-30)
    scale = max(1, 96 // side)
    return shown.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def heat(values: Tensor) -> Tensor:
    """A map (H, W) as colours, its lowest and highest percents cut off: (3, H, W) in 0..255."""
    values = values.cpu().float()
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // 100_000)]
    low, high = torch.quantile(some, 0.01), torch.quantile(some, 0.99)
    place = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) * (len(COLD) - 1)
    lower = place.floor().long().clamp_max(len(COLD) - 2)
    mixed = torch.lerp(COLD[lower], COLD[lower + 1], (place - lower)[..., None])
    return 255 * mixed.permute(2, 0, 1)


@torch.no_grad()
def activations(density: GenerativeModel, x: Tensor) -> list[Tensor]:
    """How far the gates of every layer are open, in the mean over its units, as colours."""
    size = (x.shape[-2], x.shape[-1])
    shown = []
    for gate in density.activation_pattern(x):
        mean = gate.float().mean(dim=1, keepdim=True)
        shown.append(heat(F.interpolate(mean, size=size, mode="nearest")[0, 0]))
    return shown


@torch.no_grad()
def energy_and_residual(density: GenerativeModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """What every pixel counts in the energy, and how far its auto-encoding is off, as colours."""
    off = (reconstruct(density, x) - x)[0].square().mean(dim=0).sqrt()
    return heat(density.energy_map(x)[0]), heat(off)


def walk(model: Model, frames: int = 8) -> tuple[list[Tensor], Tensor]:
    """A chain on its way from noise to the sample of seed 0, and that: (C, H, W) in 0..255."""
    seen: list[Tensor] = []
    final = next(model.samples(on_state=lambda x: seen.append(x[0].cpu().clone())))
    places = torch.linspace(0, len(seen) - 1, min(frames, len(seen))).round().long().tolist()
    pixels = [model.checkpoint.pixels.to_pixels(seen[place][None])[0] for place in places[:-1]]
    return [*(one.clamp(0, 255) for one in pixels), final], final


@torch.no_grad()
def denoised(model: Model, x: Tensor, levels: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """A picture (1, C, H, W) in model units with noise of every level on it, and D of that."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(x.shape, generator=generator).to(x)
    loaded = model.checkpoint
    canvas = Canvas((x.shape[-2], x.shape[-1]))
    denoise = loaded.family.denoiser(Request(lattice=model.config.lattice), canvas, torch.float32)
    found = []
    for level in levels:
        noisy = x + level * drawn
        pair = [
            loaded.pixels.to_pixels(one.cpu())[0].clamp(0, 255)
            for one in (noisy, denoise(noisy, level))
        ]
        found.append((pair[0], pair[1]))
    return found
