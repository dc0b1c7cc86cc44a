"""The page of a run, one HTML file: complete after training, shorter while it runs."""

import base64
import io
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import __version__ as VERSION
from gcn_cli import images
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import GcnError, InputError
from gcn_cli.images.image import side_by_side
from gcn_cli.inputs import LinkedImages
from gcn_cli.metrics import DESCRIPTIONS, TextureMetrics, rms_error
from gcn_cli.model import Model
from gcn_cli.models.energy import reconstruct
from gcn_cli.reconstruction import fit_to_model
from gcn_cli.report import figures
from gcn_cli.runs.grades import in_words, kept_exemplar, rounded
from gcn_cli.samplers.modes import descend_to_modes

log = logging.getLogger(__name__)

NOISE_LEVELS = (0.3, 1.0, 3.0, 10.0)  # of the denoising section
LARGEST_SAMPLE = 512  # pixels a side
FRAMES = 8  # of a chain
BASIN_SIDE = 96  # pixels: larger images leave the basin of attraction piece by piece
DESCENT_STEPS = 40
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 200, 56, 24  # of a curve, and its margins
POINTS = 300  # of a curve
PAGE_SECONDS = 20  # between two pages written, and loaded by a browser, during training
MARK = b'<meta name="generator" content="gcn">'
CURVE_DESCRIPTIONS = {
    "loss": "squared error of the denoiser over the noise levels; 1 for a Gaussian model",
    "energy_difference": "energy of the chains minus energy of the data: fluctuates about 0 if "
    "chains look like data",
    "likelihood": "weight of the likelihood gradient; falls if the chains cannot follow",
    "contrast": "deviation of the pixels of chains over that of the data; 1 at the end",
    "reconstruction_error": "share of the variance that the auto-encoding misses",
}


@dataclass(frozen=True)
class Figure:
    """An image of the page, embedded as a data: address."""

    source: str
    caption: str
    width: int
    height: int
    animated: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading and a note, then figures, curves or a table."""

    title: str
    note: str = ""
    figures: Sequence[Figure] = ()
    small: bool = False  # whether figures are scaled to columns
    curves: Sequence[tuple[str, str, str]] = ()  # name, description, SVG
    rows: Sequence[tuple[str, str, str] | tuple[str, str]] = ()


def write_report(
    model: Model, folder: Path, image: LinkedImages | None = None, *, new: bool = False
) -> Path:
    """Write index.html to a folder and return its path.

    image: the image to analyze; by default the exemplar in the run, or else a sample. Sections
    that this kind of model does not have are left out. new: do not replace a page; raises
    TakenError if there is one at the end.
    """
    frames = _sampling_frames(model)
    sample = frames[-1][:, :LARGEST_SAMPLE, :LARGEST_SAMPLE]
    exemplar = _exemplar(model.run)
    pixels = _image_to_analyze(model, exemplar if image is None else image, sample)
    metrics = _optional(model.texture_metrics)
    grades = {} if metrics is None else rounded(metrics.measure(_first_map(model, sample)))
    sections = [
        _samples(model, exemplar, sample),
        _quality(grades),
        _curves(model.history),
        _frames([_first_map(model, frame) for frame in frames]),
        _optional(lambda: _filters(model, pixels)),
        _optional(lambda: _analysis(model, pixels)),
        _optional(lambda: _basin(model, pixels)),
        _optional(lambda: _denoised(model, pixels)),
        None if metrics is None else _copies(metrics, _first_map(model, sample)),
    ]
    described = model.describe()
    config = [(name, str(value)) for name, value in described["config"].items()]
    page = _render(
        name=model.run.name if model.run is not None else "a model",
        state=f"{described['config']['learner']}, iteration {described['iteration']} of "
        f"{described['total_iterations']}, {described['seconds']:.0f} s of training, "
        f"{described['parameters']:,} parameters, receptive field of "
        f"{described['receptive_field']} pixels",
        quality=in_words(grades) if grades else None,
        sections=[*filter(None, sections), Section("Settings", rows=config)],
    )
    images.write_bytes(folder / "index.html", page, new=new)
    return folder / "index.html"


def _render(**content: Any) -> bytes:
    environment = Environment(loader=PackageLoader("gcn_cli.report", "."), autoescape=True)
    template = environment.get_template("page.html")
    return template.render(version=VERSION, torch=torch.__version__, **content).encode(
        errors="backslashreplace"
    )


def _optional(make: Callable[[], Any]) -> Any:
    """A part of the page; None if this kind of model does not have it."""
    try:
        return make()
    except (GcnError, ValueError) as error:
        log.debug("left out of the report: %s", error)
        return None


def _exemplar(run: Path | None) -> images.Image | None:
    kept = kept_exemplar(run)
    return None if kept is None else images.read_image(kept)


def _image_to_analyze(model: Model, image: LinkedImages | None, sample: Tensor) -> Tensor:
    """Pixels (C, H, W) of an image, or else of the sample, of a size that all levels accept."""
    pixels = sample
    if image is not None and len(model.maps) == 1:
        pixels = fit_to_model(model.checkpoint, image)
    pixels = pixels[:, : figures.LARGEST_SIDE, : figures.LARGEST_SIDE]
    fitting = model.checkpoint.kind.fitting
    height, width = fitting(pixels.shape[1], pixels.shape[2], max(NOISE_LEVELS))
    return pixels[:, :height, :width]


def _first_map(model: Model, pixels: Tensor) -> Tensor:
    return pixels[: model.maps[0].channels]


def _figure(pixels: Tensor, caption: str) -> Figure:
    """A figure of pixels (C, H, W) in 0..255."""
    return _encode(images.to_pillow(pixels), caption, "png")


def _encode(image: PillowImage.Image, caption: str, suffix: str, **options: Any) -> Figure:
    data = io.BytesIO()
    image.save(data, format=suffix, **options)
    source = f"data:image/{suffix};base64," + base64.b64encode(data.getvalue()).decode()
    return Figure(source, caption, image.width, image.height, animated=bool(options))


def _samples(model: Model, exemplar: images.Image | None, sample: Tensor) -> Section:
    shown = [] if exemplar is None else [_figure(exemplar.to_mode(model.maps[0].mode), "exemplar")]
    shown.append(_figure(side_by_side(sample, model.maps), "sample, seed 0"))
    tiled = side_by_side(sample.repeat(1, 2, 2), model.maps)
    shown.append(_figure(tiled, "the sample tiled two by two: a seam would be visible"))
    return Section("Exemplar and sample", "At one scale. The sample is new.", shown)


def _quality(grades: dict[str, float | None]) -> Section | None:
    if not grades:
        return None
    rows = [
        (name, "-" if grades[name] is None else f"{grades[name]:.2f}", description)
        for name, description in DESCRIPTIONS.items()
    ]
    return Section("Quality", "Texture metrics of the sample, without learned networks.", rows=rows)


def _curves(history: Sequence[Mapping[str, float | None]]) -> Section | None:
    names = [name for name in (history[0] if history else {}) if name not in ("iteration", "stage")]
    curves = [(name, CURVE_DESCRIPTIONS.get(name, ""), curve(history, name)) for name in names]
    return Section("Training", curves=curves) if curves else None


def curve(history: Sequence[Mapping[str, float | None]], name: str) -> str:
    """A metric over the iterations as an <svg>, averaged to POINTS points or so.

    Values that are not finite, or None, are left out; without any value the result is empty.
    """
    values_of = [(row["iteration"], row.get(name)) for row in history]
    rows = [(at, v) for at, v in values_of if at is not None and v is not None and math.isfinite(v)]
    if not rows:
        return ""
    step = max(1, len(rows) // POINTS)
    groups = [rows[k : k + step] for k in range(0, len(rows), step)]
    points = [tuple(sum(v) / len(v) for v in zip(*group, strict=True)) for group in groups]
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    values = sorted(value for _, value in points)
    # The upper limit is a percentile: an outlier at the start would flatten the rest.
    low, high = values[0], values[min(len(values) - 1, int(0.98 * len(values)))]
    high = high if high > low else low + 1
    path = " ".join(
        f"{LEFT + (WIDTH - LEFT - 8) * (iteration - first) / (last - first):.1f},"
        f"{8 + (HEIGHT - BOTTOM - 8) * (1 - min(1, (value - low) / (high - low))):.1f}"
        for iteration, value in points
    )
    labels = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{label}</text>'
        for x, y, anchor, label in (
            (LEFT - 6, 16, "end", f"{high:.3g}"),
            (LEFT - 6, HEIGHT - BOTTOM, "end", f"{low:.3g}"),
            (LEFT, HEIGHT - 6, "start", f"{first:.0f}"),
            (WIDTH - 8, HEIGHT - 6, "end", f"{last:.0f}"),
        )
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} by iteration">'
        f'<path class="frame" d="M{LEFT},8 V{HEIGHT - BOTTOM} H{WIDTH - 8}"/>'
        f'<polyline points="{path}"/>{labels}</svg>'
    )


def _sampling_frames(model: Model) -> list[Tensor]:
    """Up to FRAMES states of a chain from noise to the sample of seed 0, the sample last."""
    states: list[Tensor] = []
    chains = model.samples(kind="torch", on_state=lambda x: states.append(x[0].cpu().clone()))
    sample = next(chains)
    indices = torch.linspace(0, len(states) - 1, min(FRAMES, len(states))).round().long().tolist()
    to_pixels = model.checkpoint.normalization.to_pixels
    return [*(to_pixels(states[index]).clamp(0, 255) for index in indices[:-1]), sample]


def _frames(frames: Sequence[Tensor]) -> Section:
    """States of a chain, and an animated WebP of them that pauses at the sample."""
    pillow = [images.to_pillow(frame).convert("RGB") for frame in frames]
    # Chains of a periodic pattern may run at another size than the sample.
    pillow = [frame.resize(pillow[-1].size) for frame in pillow]
    durations = [250] * (len(pillow) - 1) + [2500]  # milliseconds
    options = {"save_all": True, "append_images": pillow[1:], "duration": durations, "loop": 0}
    shown = [_figure(frame, f"{k} of {len(frames)}") for k, frame in enumerate(frames, 1)]
    shown.append(_encode(pillow[0], "animation", "webp", **options))
    note = "States of a Langevin chain while the noise level falls, and the sample."
    return Section("Sampling", note, shown, small=True)


def _filters(model: Model, pixels: Tensor) -> Section:
    kind, x = model.checkpoint.kind, model.checkpoint.to_model(pixels)
    fields, density = kind.receptive_fields(), model.at_level(phases=model.phases(x))
    shown = [_figure(model.filters(kind="torch"), "filters of the first layer")]
    for index, sheet in enumerate(figures.unit_filters(density, x, fields)):
        layer = f"layer {index + 1}, {kind.net.layers[index]}"
        shown.append(_figure(sheet, f"{layer}: receptive field of {fields[index]} pixels"))
    note = (
        "A filter is also the basis function that its unit adds to an image. In deeper layers, the "
        "linear filters of the strongest units where they respond most, with the gates fixed."
    )
    return Section("Filters", note, shown)


@torch.no_grad()
def _analysis(model: Model, pixels: Tensor) -> Section:
    x = model.checkpoint.to_model(pixels)
    density = model.at_level(phases=model.phases(x))
    mean = reconstruct(density, x)
    residual = (mean - x)[0].square().mean(dim=0).sqrt()
    encoded = model.checkpoint.normalization.to_pixels(mean[0].cpu()).clamp(0, 255)
    shown = [
        _figure(_first_map(model, pixels), "image"),
        _figure(_first_map(model, encoded), "auto-encoding: the mean of its Gaussian piece"),
        _figure(figures.heat_map(density.energy_map(x)[0]), "energy; bright is unlikely"),
        _figure(figures.heat_map(residual), "residual of the auto-encoding"),
    ]
    for index, gate in enumerate(density.activation_pattern(x)):
        share = gate.float().mean(dim=1, keepdim=True)
        shares = F.interpolate(share, size=x.shape[2:], mode="nearest")[0, 0]
        shown.append(_figure(figures.heat_map(shares), f"share of open gates, layer {index + 1}"))
    return Section(
        "Analysis of an image", "Energy, residual and gates by pixel.", shown, small=True
    )


def _basin(model: Model, pixels: Tensor) -> Section:
    if not model.config.head:
        stride = model.checkpoint.kind.net.total_stride
        side = stride * max(1, BASIN_SIDE // stride)
        pixels = pixels[:, :side, :side]
    damaged = pixels.clone()
    rows, columns = (slice(side * 3 // 8, side * 5 // 8) for side in pixels.shape[1:])
    damaged[:, rows, columns] = pixels.mean(dim=(1, 2))[:, None, None]
    normalization = model.checkpoint.normalization
    starts = normalization.to_model(torch.stack([pixels, damaged])).to(model.device)
    density = model.at_level(phases=model.phases(starts[:1]))
    descended = descend_to_modes(density, starts, DESCENT_STEPS).images.cpu()
    modes = normalization.to_pixels(descended).clamp(0, 255)
    difference = rms_error(*modes[:, :, rows, columns])
    captions = ("image", "center missing", "mode of the image", "mode without the center")
    note = (
        "Descent of the energy from an image, and from the image without its center. If both reach "
        "one mode, they lie in one basin of attraction, as memories of a Hopfield network. These "
        f"modes differ by {difference:.1f} gray levels in the center."
    )
    shown = [
        _figure(_first_map(model, state), caption)
        for state, caption in zip((pixels, damaged, *modes), captions, strict=True)
    ]
    return Section("Basin of attraction", note, shown, small=True)


@torch.no_grad()
def _denoised(model: Model, pixels: Tensor) -> Section:
    x = model.checkpoint.to_model(pixels)
    denoise = model.denoiser(phases=model.phases(x))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    shown = []
    assert isinstance(model.config, NoiseConditionalConfig)  # other kinds have no denoiser
    for level in (level for level in NOISE_LEVELS if level <= model.config.noise_max):
        noisy = x + level * noise
        pair = torch.cat([noisy, denoise(noisy, level)]).cpu()
        pair = model.checkpoint.normalization.to_pixels(pair).clamp(0, 255)
        sheet = images.grid(pair[:, : model.maps[0].channels], columns=2)
        shown.append(_figure(sheet, f"noise level {level:g}"))
    note = "Left: the image with noise, in deviations of the data. Right: denoised by the model."
    return Section("Denoising", note, shown)


def _copies(metrics: TextureMetrics, sample: Tensor) -> Section:
    positions, distances = metrics.copies.origins(sample)
    shown = [
        _figure(positions, "position of the nearest exemplar patch: x red, y green"),
        _figure(figures.heat_map(distances), "distance to it: dark is a copy"),
    ]
    note = (
        "For each patch, the nearest exemplar patch. Copies are plain areas on the left and dark "
        "areas on the right."
    )
    return Section("Copies", note, shown)


class TrainingPage:
    """Writes the page of a run during training, from the files of the run."""

    def __init__(self, run: Path, folder: Path) -> None:
        """Raises InputError if `folder` has an index.html that gcn did not write."""
        page = folder / "index.html"
        if page.exists() and MARK not in page.read_bytes():
            raise InputError(f"--report {folder}: holds a page that is not gcn's; name another")
        self.run, self.page, self.next_time = run, page, 0.0

    def __call__(self, iteration: int, last: int) -> None:
        """Write the page if PAGE_SECONDS have passed; called after every iteration."""
        if time.monotonic() >= self.next_time:
            self.write(iteration, last)
            self.next_time = time.monotonic() + PAGE_SECONDS

    def write(self, iteration: int, last: int) -> None:
        exemplar = _exemplar(self.run)
        shown = [] if exemplar is None else [_figure(exemplar.pixels, "exemplar")]
        previews = sorted((self.run / "previews").glob("*.png"))
        if previews:
            preview = images.read_image(str(previews[-1])).pixels
            shown.append(_figure(preview, f"samples after iteration {int(previews[-1].stem)}"))
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        curves = _curves([json.loads(line) for line in lines])
        page = _render(
            name=self.run.name,
            state=f"iteration {iteration} of {last}",
            refresh=PAGE_SECONDS,
            sections=[Section("Exemplar and sample", figures=shown), *filter(None, [curves])],
        )
        images.write_bytes(self.page, page)
