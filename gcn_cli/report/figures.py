"""Pictures of a model's inside, as tensors (C, H, W) in 0..255."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.inputs import LinkedImages
from gcn_cli.kinds import TilingPlan
from gcn_cli.model import Model
from gcn_cli.models.energy import GenerativeModel, reconstruct
from gcn_cli.options import SampleOptions
from gcn_cli.reconstruction import Scale, fitted_to_scale
from gcn_cli.samplers.modes import descend_to_modes

DESCENT = 40  # steps towards a mode
UNITS = 12  # of a layer that are shown
LARGEST_SIDE = 256  # pixels a side of what a unit paints, and of a picture that is looked into
COLD = torch.tensor([[0.05, 0.05, 0.20], [0.35, 0.10, 0.50], [0.85, 0.30, 0.35], [1.0, 0.95, 0.70]])


def painted(
    density: GenerativeModel,
    x: Tensor,
    fields: Sequence[int],
    at: tuple[int, int] | None = None,
) -> list[Tensor]:
    """What the strongest units of every layer paint: (C, rows, columns) in 0..255 a layer.

    dr/dI of a response r at the place in x (1, C, H, W) where it is strongest: with the gates as
    they are there, the filter that the unit is in the picture below, and at once the basis function
    that it adds on the way down. `fields` are the receptive fields of the layers. `at` is a pixel
    (x, y): the units strongest there, and the linear filters that they are there.
    """
    sheets = []
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        for responses, field in zip(density.responses(leaf), fields, strict=True):
            here = None if at is None else _above(at, x, responses)
            told = responses.detach()[0].flatten(1)
            strength = told.mean(dim=1) if here is None else told[:, here]
            chosen = strength.topk(min(UNITS, len(strength)))
            found = []
            for unit in chosen.indices.tolist():
                own = responses[0, unit]
                margin = field * own.shape[-1] // (2 * x.shape[-1])
                place = _strongest(own.detach(), margin) if here is None else here
                (slope,) = torch.autograd.grad(own.flatten()[place], leaf, retain_graph=True)
                found.append(_about(slope[0].cpu(), min(field, LARGEST_SIDE)))
            sheets.append(images.grid(torch.stack(found), columns=6))
    return sheets


def filters_at(
    model: Model, picture: LinkedImages, at: tuple[int, int], level: float | None = None
) -> Tensor:
    """The linear filters of all layers at a pixel (x, y) of a picture, a sheet: (C, rows, columns).

    The pixel is one of the picture as given, which the model may see smaller. From the first layer
    down the sheet to the last, strongest first. Raises InputError for a pixel that the picture does
    not have, or that is cut off at its far border.
    """
    loaded = model.checkpoint
    pixels, scale = fitted_to_scale(loaded, picture, level)
    place = _seen_at(at, scale, (pixels.shape[1], pixels.shape[2]))
    density = loaded.family.density(level, torch.float32)
    sheets = painted(density, loaded.seen(pixels), loaded.family.receptive_fields(level), place)
    widest = max(sheet.shape[2] for sheet in sheets)
    laid = [F.pad(sheet, (0, widest - sheet.shape[2], 0, 8), value=127.5) for sheet in sheets]
    return torch.cat(laid, dim=1)


def _seen_at(at: tuple[int, int], scale: Scale, seen: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) of what is `seen` (H, W) that stands for one of the picture as given.

    Raises InputError where there is none.
    """
    height, width = scale.given
    x, y = scale.inward(at)
    if 0 <= at[0] < width and 0 <= at[1] < height and x < seen[1] and y < seen[0]:
        return x, y
    across = sum(scale.inward((k, 0))[0] < seen[1] for k in range(width))
    down = sum(scale.inward((0, k))[1] < seen[0] for k in range(height))
    whole = "" if (down, across) == scale.given else f", the model sees the first {across}x{down}"
    raise InputError(
        f"--at {at[0]},{at[1]}: the picture has {width}x{height} pixels{whole}; "
        f"X must be below {across}, Y below {down}"
    )


def _above(at: tuple[int, int], x: Tensor, responses: Tensor) -> int:
    """The place in maps (1, filters, h, w) that stands for a pixel (x, y) of x (1, C, H, W)."""
    (height, width), (rows, columns) = x.shape[-2:], responses.shape[-2:]
    return at[1] * rows // height * columns + at[0] * columns // width


def _strongest(responses: Tensor, margin: int) -> int:
    """The place of the largest response (h, w), away from the border where there is room."""
    inner = torch.full_like(responses, -torch.inf)
    edge = slice(margin, -margin or None)
    inner[edge, edge] = responses[edge, edge]
    return int((inner if bool(inner.isfinite().any()) else responses).argmax())


def _about(slope: Tensor, side: int) -> Tensor:
    """The part of a gradient (C, H, W) where it is not zero, in 0..255 about mid gray."""
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


def heat(values: Tensor, ends: tuple[float, float] | None = None) -> Tensor:
    """A map (H, W) as colors from dark to bright: (3, H, W) in 0..255.

    `ends` are the values of the darkest and the brightest; by default the lowest and the highest
    percent are cut off.
    """
    values = values.cpu().float()
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // 100_000)]
    if ends is None:
        low, high = torch.quantile(some, torch.tensor([0.01, 0.99]))
    else:
        low, high = torch.tensor(ends)
    place = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) * (len(COLD) - 1)
    lower = place.floor().long().clamp_max(len(COLD) - 2)
    mixed = torch.lerp(COLD[lower], COLD[lower + 1], (place - lower)[..., None])
    return 255 * mixed.permute(2, 0, 1)


@torch.no_grad()
def activations(density: GenerativeModel, x: Tensor) -> list[Tensor]:
    """How far the gates of every layer are open, in the mean over its units, as colors."""
    size = (x.shape[-2], x.shape[-1])
    shown = []
    for gate in density.activation_pattern(x):
        mean = gate.float().mean(dim=1, keepdim=True)
        shown.append(heat(F.interpolate(mean, size=size, mode="nearest")[0, 0]))
    return shown


@torch.no_grad()
def piece(density: GenerativeModel, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the Gaussian piece that x (1, C, H, W) lies on, in units of the model (C, H, W).

    It is what the auto-encoder makes of x. Then, as colors, what every pixel counts in the energy,
    and how far it is off that mean.
    """
    mean = reconstruct(density, x)[0]
    off = (mean - x[0]).square().mean(dim=0).sqrt()
    return mean, heat(density.energy_map(x)[0]), heat(off)


def walk(model: Model, frames: int = 8) -> tuple[list[Tensor], Tensor]:
    """A chain on its way from noise to the sample of seed 0, and that: (C, H, W) in 0..255."""
    seen: list[Tensor] = []
    final = next(model.samples(on_state=lambda x: seen.append(x[0].cpu().clone())))
    places = torch.linspace(0, len(seen) - 1, min(frames, len(seen))).round().long().tolist()
    pixels = [model.checkpoint.pixels.to_pixels(seen[place][None])[0] for place in places[:-1]]
    return [*(one.clamp(0, 255) for one in pixels), final], final


def basin(model: Model, pixels: Tensor) -> tuple[list[Tensor], float]:
    """A picture (C, H, W), the same with its middle lost, the modes that both run to.

    And how far the modes are apart where it was lost, in gray levels: 0 where both pictures lie in
    one basin of attraction, so that what was lost is remembered.
    """
    damaged = pixels.clone()
    lost = tuple(slice(side * 3 // 8, side * 5 // 8) for side in pixels.shape[1:])
    damaged[:, lost[0], lost[1]] = pixels.mean(dim=(1, 2))[:, None, None]
    scale = model.checkpoint.pixels
    density = model.checkpoint.family.density(None, torch.float32)
    starts = torch.stack([scale.to_model(one) for one in (pixels, damaged)]).to(model.device)
    found = descend_to_modes(density, starts, DESCENT).images.cpu()
    modes = [one.clamp(0, 255) for one in scale.to_pixels(found)]
    apart = (modes[0] - modes[1])[:, lost[0], lost[1]]
    return [pixels, damaged, *modes], float(apart.square().mean().sqrt())


@torch.no_grad()
def denoised(model: Model, x: Tensor, levels: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """A picture (1, C, H, W) in model units with noise of every level on it, and D of that."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(x.shape, generator=generator).to(x)
    loaded = model.checkpoint
    canvas = TilingPlan((x.shape[-2], x.shape[-1]))
    denoise = loaded.family.denoiser(
        SampleOptions(lattice=model.config.lattice), canvas, torch.float32
    )
    found = []
    for level in levels:
        noisy = x + level * drawn
        pair = [
            loaded.pixels.to_pixels(one.cpu())[0].clamp(0, 255)
            for one in (noisy, denoise(noisy, level))
        ]
        found.append((pair[0], pair[1]))
    return found
