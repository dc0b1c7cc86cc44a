"""Images that show what a model does, as tensors (C, H, W) in 0..255."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.inputs import LinkedImages
from gcn_cli.model import Model
from gcn_cli.models.energy import GenerativeModel, reconstruct
from gcn_cli.reconstruction import Scale, fit_to_model_with_scale
from gcn_cli.samplers.modes import descend_to_modes

DESCENT_STEPS = 40
UNITS = 12  # strongest units shown of each layer
LARGEST_SIDE = 256  # pixels, of a filter or an analyzed image
COLORS = torch.tensor(
    [[0.05, 0.05, 0.20], [0.35, 0.10, 0.50], [0.85, 0.30, 0.35], [1.0, 0.95, 0.70]]
)


def unit_filters(
    density: GenerativeModel, x: Tensor, fields: Sequence[int], at: tuple[int, int] | None = None
) -> list[Tensor]:
    """The linear filters of the strongest units of each layer, a sheet (C, rows, columns) each.

    The filter is the gradient dr/dx of a response r to x (1, C, H, W) in model units. With the
    gates fixed, the response is linear; the filter is also the basis function that the unit adds
    in a reconstruction. fields: receptive field of each layer in pixels. at: the pixel (x, y) whose
    responses are shown; by default each unit is shown where it responds most.
    """
    sheets = []
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        for responses, field in zip(density.responses(leaf), fields, strict=True):
            position = None if at is None else _position_of(at, x, responses)
            values = responses.detach()[0].flatten(1)
            strength = values.mean(dim=1) if position is None else values[:, position]
            filters = []
            for unit in strength.topk(min(UNITS, len(strength))).indices.tolist():
                response = responses[0, unit]
                margin = field * response.shape[-1] // (2 * x.shape[-1])
                index = _strongest(response.detach(), margin) if position is None else position
                (gradient,) = torch.autograd.grad(
                    response.flatten()[index], leaf, retain_graph=True
                )
                filters.append(_crop_gradient(gradient[0].cpu(), min(field, LARGEST_SIDE)))
            sheets.append(images.grid(torch.stack(filters), columns=6))
    return sheets


def filters_at(
    model: Model, image: LinkedImages, at: tuple[int, int], noise_level: float | None = None
) -> Tensor:
    """The filters of all layers at a pixel (x, y) of an image: a sheet (C, rows, columns).

    The pixel counts in the image as given. Layers go from top to bottom, the strongest unit comes
    first. Raises InputError for a pixel outside of the image, or in the border that the model cuts
    off.
    """
    checkpoint = model.checkpoint
    pixels, scale = fit_to_model_with_scale(checkpoint, image, noise_level)
    position = _model_pixel(at, scale, (pixels.shape[1], pixels.shape[2]))
    fields = checkpoint.kind.receptive_fields(noise_level)
    x = checkpoint.to_model(pixels)
    sheets = unit_filters(model.at_level(noise_level), x, fields, position)
    width = max(sheet.shape[2] for sheet in sheets)
    padded = [F.pad(sheet, (0, width - sheet.shape[2], 0, 8), value=127.5) for sheet in sheets]
    return torch.cat(padded, dim=1)


def _model_pixel(at: tuple[int, int], scale: Scale, size: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) of the model's image (height, width) for a pixel of the image as given."""
    height, width = scale.given
    x, y = scale.inward(at)
    if 0 <= at[0] < width and 0 <= at[1] < height and x < size[1] and y < size[0]:
        return x, y
    columns = sum(scale.inward((k, 0))[0] < size[1] for k in range(width))
    rows = sum(scale.inward((0, k))[1] < size[0] for k in range(height))
    cut = "" if (rows, columns) == scale.given else f", the model sees the first {columns}x{rows}"
    raise InputError(
        f"--at {at[0]},{at[1]}: the image has {width}x{height} pixels{cut}; "
        f"X must be below {columns}, Y below {rows}"
    )


def _position_of(at: tuple[int, int], x: Tensor, responses: Tensor) -> int:
    """Flat index in maps (1, filters, h, w) of a pixel (x, y) of x (1, C, H, W)."""
    (height, width), (rows, columns) = x.shape[-2:], responses.shape[-2:]
    return at[1] * rows // height * columns + at[0] * columns // width


def _strongest(responses: Tensor, margin: int) -> int:
    """Flat index of the largest response (h, w), outside of the margin if the map is larger."""
    inner = torch.full_like(responses, -torch.inf)
    inside = slice(margin, -margin or None)
    inner[inside, inside] = responses[inside, inside]
    return int((inner if bool(inner.isfinite().any()) else responses).argmax())


def _crop_gradient(gradient: Tensor, side: int) -> Tensor:
    """The part of a gradient (C, H, W) about its center of mass, in 0..255 about mid gray."""
    strength = gradient.abs().sum(dim=0)
    weights = strength / strength.sum().clamp_min(1e-30)
    side = min(side, *strength.shape)
    corner = []
    for axis, length in enumerate(strength.shape):
        center = float((weights.sum(dim=1 - axis) * torch.arange(length)).sum())
        corner.append(min(max(0, round(center - side / 2)), length - side))
    part = gradient[:3, corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    part = part if len(part) in (1, 3) else part[:1]
    pixels = 127.5 + 127.5 * part / part.abs().max().clamp_min(1e-30)
    scale = max(1, 96 // side)
    return pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def heat_map(values: Tensor, limits: tuple[float, float] | None = None) -> Tensor:
    """A map (H, W) as colors (3, H, W) from dark to bright.

    limits: the values of the darkest and brightest color; by default the percentiles 1 and 99.
    """
    values = values.cpu().float()
    if limits is None:
        sample = values.flatten()[:: max(1, values.numel() // 100_000)]
        low, high = torch.quantile(sample, torch.tensor([0.01, 0.99]))
    else:
        low, high = torch.tensor(limits)
    position = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) * (len(COLORS) - 1)
    lower = position.floor().long().clamp_max(len(COLORS) - 2)
    colors = torch.lerp(COLORS[lower], COLORS[lower + 1], (position - lower)[..., None])
    return 255 * colors.permute(2, 0, 1)


@torch.no_grad()
def gate_maps(density: GenerativeModel, x: Tensor) -> list[Tensor]:
    """The share of open gates at each pixel of x (1, C, H, W), a heat map for each layer."""
    size = (x.shape[-2], x.shape[-1])
    shares = [gate.float().mean(dim=1, keepdim=True) for gate in density.activation_pattern(x)]
    return [heat_map(F.interpolate(share, size=size, mode="nearest")[0, 0]) for share in shares]


@torch.no_grad()
def gaussian_piece(density: GenerativeModel, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Gaussian piece of x (1, C, H, W): its mean (C, H, W), and two heat maps.

    The mean, in model units, is the auto-encoding of x. The maps show the energy of each pixel,
    and the distance of x from the mean.
    """
    mean = reconstruct(density, x)[0]
    residual = (mean - x[0]).square().mean(dim=0).sqrt()
    return mean, heat_map(density.energy_map(x)[0]), heat_map(residual)


def sampling_frames(model: Model, count: int = 8) -> list[Tensor]:
    """Up to `count` states of a chain from noise to the sample of seed 0, the sample last."""
    states: list[Tensor] = []
    sample = next(model.samples(on_state=lambda x: states.append(x[0].cpu().clone())))
    indices = torch.linspace(0, len(states) - 1, min(count, len(states))).round().long().tolist()
    to_pixels = model.checkpoint.normalization.to_pixels
    return [*(to_pixels(states[index]).clamp(0, 255) for index in indices[:-1]), sample]


def basin_of_attraction(model: Model, pixels: Tensor) -> tuple[list[Tensor], float]:
    """An image (C, H, W), the image with its center missing, and the modes that both descend to.

    Also returns the root mean squared difference of the modes in the center, in gray levels: 0 if
    both images lie in one basin of attraction.
    """
    damaged = pixels.clone()
    rows, columns = (slice(side * 3 // 8, side * 5 // 8) for side in pixels.shape[1:])
    damaged[:, rows, columns] = pixels.mean(dim=(1, 2))[:, None, None]
    normalization = model.checkpoint.normalization
    starts = normalization.to_model(torch.stack([pixels, damaged])).to(model.device)
    descended = descend_to_modes(model.at_level(), starts, DESCENT_STEPS).images.cpu()
    modes = list(normalization.to_pixels(descended).clamp(0, 255))
    difference = (modes[0] - modes[1])[:, rows, columns]
    return [pixels, damaged, *modes], float(difference.square().mean().sqrt())


@torch.no_grad()
def denoised_at(model: Model, x: Tensor, levels: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """For each noise level, x (1, C, H, W) in model units with noise, and denoised: (C, H, W)."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    to_pixels, denoise = model.checkpoint.normalization.to_pixels, model.denoiser()
    pairs = []
    for level in levels:
        noisy = x + level * noise
        pair = torch.cat([noisy, denoise(noisy, level)]).cpu()
        before, after = to_pixels(pair).clamp(0, 255)
        pairs.append((before, after))
    return pairs
