"""Images that show what a model does, as tensors (C, H, W) in 0..255."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import images, shading
from gcn_cli.errors import InputError
from gcn_cli.images.image import Image, TextureMap, shrunk_to, tiled
from gcn_cli.inputs import LinkedImages
from gcn_cli.model import Model
from gcn_cli.models.energy import GenerativeModel
from gcn_cli.reconstruction import Scale, fit_to_model_with_scale

UNITS = 6  # strongest units shown of each layer
LARGEST_SIDE = 256  # pixels, of a filter or an analyzed image
FAR_SIDE, FAR_TIMES = 80, 8  # pixels of a sample seen from a distance, and how often it is laid
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
    density = model.at_level(noise_level, phases=model.phases(x))
    sheets = unit_filters(density, x, fields, position)
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


def in_use(
    sample: Tensor, maps: Sequence[TextureMap], axes: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """A sample (C, H, W) in a light, two by two, and laid eight times, small.

    axes: those along which samples tile, vertically and horizontally. The first is None without
    normals or height, the second if no axis tiles.
    """
    light, first = None, maps[0]
    if shading.has_relief(maps):
        light = shading.lit(shading.material(sample, maps, axes))
    colors = Image(sample[: first.channels], first.mode, 32).to_mode("RGB")
    far = tiled(shrunk_to(colors if light is None else light, FAR_SIDE), axes, FAR_TIMES)
    return None if light is None else tiled(light, axes), far if any(axes) else None


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
