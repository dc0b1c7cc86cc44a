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
from torch import Tensor
from torch.nn import functional as F

from gcn_cli import __version__ as VERSION
from gcn_cli import images
from gcn_cli.config import (
    SETTINGS,
    Config,
    NoiseConditionalConfig,
    option_text,
    setting_text,
    to_json,
)
from gcn_cli.errors import GcnError, InputError
from gcn_cli.images.image import shrunk_to, side_by_side
from gcn_cli.inputs import LinkedImages
from gcn_cli.metrics import DESCRIPTIONS, TextureMetrics
from gcn_cli.model import Model
from gcn_cli.models.energy import reconstruct
from gcn_cli.options import SampleOptions
from gcn_cli.presets import PRESETS
from gcn_cli.reconstruction import fit_to_model
from gcn_cli.report import figures
from gcn_cli.report.curve import curve
from gcn_cli.runs.grades import (
    EXEMPLAR_FILE,
    Graded,
    graded,
    has_exemplar,
    kept_exemplar,
    saved_grades,
)
from gcn_cli.samplers.annealed import noise_levels
from gcn_cli.synthesis import OnEvaluation

log = logging.getLogger(__name__)

NOISE_LEVELS = (0.3, 1.0, 3.0, 10.0)  # of the denoising section
LARGEST_SAMPLE = 512  # pixels a side
LARGEST_TILED = 1024  # pixels a side, of the sample two by two
FILTERED_SIDE = 128  # pixels a side of the part of an image whose filters are shown
FRAMES = 8  # of a chain
PAGE_SECONDS = 20  # between two pages written, and loaded by a browser, during training
MARK = b'<meta name="generator" content="gcn">'
CURVES = {
    "loss": (
        "Error of the denoiser",
        "Mean over the noise levels; lower is better. It falls by a few percent at most, since "
        "noise dominates most levels, and may rise where likelihood training joins.",
    ),
    "energy_difference": (
        "Samples against the image",
        "Energy of the chains minus that of the image. About 0 where samples look like it.",
    ),
    "contrast": ("Contrast of samples", "Relative to the image; 1 at the end."),
    "reconstruction_error": (
        "Error of the reconstruction",
        "Share of the variance that the auto-encoding misses.",
    ),
}
"""Title and description of the metrics of a training that are drawn."""


@dataclass(frozen=True)
class Figure:
    """An image of the page, embedded as a data: address."""

    source: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading and a note, then figures, curves or a table."""

    title: str
    note: str = ""
    figures: Sequence[Figure] = ()
    layout: str = "row"  # "wide" fills the width with three columns, "small" has narrow ones
    curves: Sequence[tuple[str, str, str]] = ()  # title, description, SVG
    rows: Sequence[Sequence[str]] = ()
    folded: bool = False


def write_report(
    model: Model,
    folder: Path,
    image: LinkedImages | None = None,
    *,
    new: bool = False,
    command: str = "",
    on_step: OnEvaluation | None = None,
) -> Path:
    """Write index.html to a folder and return its path.

    image: the image to analyze; by default the exemplar in the run, or else a sample. Sections
    that this kind of model does not have are left out. new: do not replace a page; raises
    TakenError if there is one at the end. command: the command that writes the page.
    on_step(done, total) counts evaluations for the sample, then the other parts.
    """
    evaluations, parts = model.evaluations(), 5
    total, done = evaluations + parts, evaluations

    def part(make: Callable[[], Any]) -> Any:
        nonlocal done
        made, done = _optional(make), done + 1
        if on_step is not None:
            on_step(done, total)
        return made

    def on_evaluation(step: int, _: int) -> None:
        if on_step is not None:
            on_step(step, total)

    states = _chain_states(model, on_evaluation)
    whole = states[-1][0]
    sample = whole[:, :LARGEST_SAMPLE, :LARGEST_SAMPLE]
    exemplar = kept_exemplar(model.run)
    if image is None and len(model.maps) == 1:  # of linked maps the run keeps the first only
        image = exemplar
    pixels = sample if image is None else fit_to_model(model.checkpoint, image)
    pixels = _fitting_part(model, pixels, figures.LARGEST_SIDE)
    measures, grades = part(lambda: _measured(model, sample)) or (None, None)
    internals = [
        part(lambda: _filters(model, pixels)),
        part(lambda: _analysis(model, pixels)),
        part(lambda: _denoised(model, pixels)),
        part(lambda: _copies(measures, _first_map(model, sample))),
    ]
    sections = [
        _samples(model, exemplar, sample, whole),
        _scene(model, shrunk_to(whole, LARGEST_SAMPLE)),
        _curves(model.history),
        _chain(model, states),
        _measures(grades),
        *internals,
        _settings(model.config),
    ]
    page = _render(
        name=model.run.name if model.run is not None else "a model",
        grades=grades,
        facts=_facts(model, command),
        sections=[section for section in sections if section is not None],
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


def _fitting_part(model: Model, pixels: Tensor, side: int) -> Tensor:
    """The upper left of an image (C, H, W): up to `side` pixels, of a size for all levels."""
    height, width = (min(side, length) for length in pixels.shape[1:])
    height, width = model.checkpoint.kind.fitting(height, width, max(NOISE_LEVELS))
    return pixels[:, :height, :width]


def _first_map(model: Model, pixels: Tensor) -> Tensor:
    return pixels[: model.maps[0].channels]


def _figure(pixels: Tensor, caption: str, *, exact: bool = False) -> Figure:
    """A figure of pixels (C, H, W) in 0..255; `exact` of maps and filters, whose values count."""
    image, data = images.to_pillow(pixels), io.BytesIO()
    # Quality is the effort of exact files.
    image.save(data, format="webp", lossless=exact, quality=30 if exact else 88, method=2)
    source = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return Figure(source, caption, image.width, image.height)


def _facts(model: Model, command: str) -> list[tuple[str, str]]:
    """What the page is about: names and values."""
    checkpoint, facts = model.checkpoint, model.describe()
    done, total = facts["iteration"], facts["total_iterations"]
    options = _training_options(checkpoint.requested or model.config)
    made = time.strftime("%Y-%m-%d %H:%M")
    rows = [
        ("training", f"{done} of {total} iterations in {facts['seconds']:.0f} s"),
        ("trained by", " ".join(["gcn train IMAGE", *options])),
        (
            "network",
            f"{len(facts['layers'])} layers, {facts['parameters']:,} parameters; "
            f"sees {facts['receptive_field']} pixels",
        ),
        ("images", ", ".join(facts["maps"])),
        ("page", f"{made}, by {command}" if command else made),
    ]
    if model.path is not None:
        written = time.localtime(model.path.stat().st_mtime)
        model_file = f"{model.path}, written {time.strftime('%Y-%m-%d %H:%M', written)}"
        rows.insert(0, ("model", model_file))
    if model.run is not None and has_exemplar(model.run):
        rows.insert(1, ("exemplar", str(model.run / EXEMPLAR_FILE)))
    return rows


def _training_options(config: Config) -> list[str]:
    """The preset nearest to a config, and the settings that differ, as on the command line."""
    values, shortest = to_json(config), None
    for name, preset in PRESETS.items():
        if type(preset) is not type(config):
            continue
        others = to_json(preset)
        changed = [option_text(key, values[key]) for key in values if values[key] != others[key]]
        options = [*([] if name == "default" else [f"--preset {name}"]), *changed]
        if shortest is None or len(options) < len(shortest):
            shortest = options
    return shortest or []


def _samples(model: Model, exemplar: images.Image | None, sample: Tensor, whole: Tensor) -> Section:
    """The exemplar, a part of the sample, and the whole of it two by two."""
    shown = []
    if exemplar is not None:
        shown.append(_figure(exemplar.to_mode(model.maps[0].mode), "Exemplar"))
    shown.append(_figure(side_by_side(sample, model.maps), "Sample, seed 0"))
    tiled = shrunk_to(side_by_side(whole.repeat(1, 2, 2), model.maps), LARGEST_TILED)
    shown.append(_figure(tiled, "The sample two by two: a seam would be seen"))
    return Section("", figures=shown, layout="wide")


def _scene(model: Model, sample: Tensor) -> Section | None:
    """The sample as it is used: in a light, and often, from a distance."""
    axes = model.checkpoint.kind.periodic_axes(SampleOptions())
    light, far = figures.in_use(sample, model.maps, axes)
    shown = []
    if light is not None:
        caption = "The material two by two, in a light from the upper left"
        shown.append(_figure(shrunk_to(light, LARGEST_TILED), caption))
    if far is not None:
        times = " by ".join(str(figures.FAR_TIMES if periodic else 1) for periodic in axes)
        caption = f"The sample {times}, from a distance: a spot that is found again shows the tile"
        shown.append(_figure(far, caption))
    return Section("In use", figures=shown) if shown else None


def _measured(model: Model, sample: Tensor) -> tuple[TextureMetrics, Graded]:
    """Metrics against the exemplar, and the grades that the run keeps or those of the sample."""
    measures = model.texture_metrics()
    grades = saved_grades(model.run, model.checkpoint.iteration)
    return measures, grades or graded(model.checkpoint, measures, sample)


def _measures(grades: Graded | None) -> Section | None:
    if grades is None:
        return None
    rows = [
        (name, "-" if grades[name] is None else f"{grades[name]:.2f}", description)
        for name, description in DESCRIPTIONS.items()
    ]
    return Section("Measures of quality", "Without learned networks.", rows=rows, folded=True)


def _settings(config: Config) -> Section:
    rows = [
        (name, setting_text(name, getattr(config, name)), SETTINGS[name].metadata["help"])
        for name in to_json(config)
    ]
    return Section("Settings", rows=rows, folded=True)


def _curves(history: Sequence[Mapping[str, float | None]]) -> Section | None:
    joined = next((row["iteration"] for row in history if row.get("likelihood")), None)
    curves: list[tuple[str, str, str]] = []
    for name, (title, description) in CURVES.items():
        rows, mark = history, joined
        if name == "energy_difference" and "likelihood" in history[0]:  # 0 before
            rows, mark = [row for row in history if row.get("likelihood")], None
        drawn = curve(rows, name, title, mark)
        if drawn:
            curves.append((title, description, drawn))
    return Section("Training", curves=curves) if curves else None


def _chain_states(model: Model, on_step: OnEvaluation) -> list[tuple[Tensor, str]]:
    """Up to FRAMES states of a chain from noise to the sample of seed 0, the sample last.

    Each is (C, H, W) in 0..255, at the contrast of the data, with its caption.
    """
    states: list[Tensor] = []
    chains = model.samples(
        kind="torch", on_state=lambda x: states.append(x[0].cpu().clone()), on_step=on_step
    )
    sample = next(chains)
    count, to_pixels = len(states), model.checkpoint.normalization.to_pixels
    highest = getattr(model.config, "noise_max", None)  # published models have no noise levels
    shown: list[tuple[Tensor, str]] = []
    for index in torch.linspace(0, count - 1, min(FRAMES, count)).round().int().tolist()[:-1]:
        state, caption = states[index], f"step {index + 1} of {count}"
        if highest is not None:
            noise = noise_levels(count, highest, model.config.noise_min)[index + 1]  # type: ignore[union-attr]
            state, caption = state / math.sqrt(1 + noise**2), f"{caption}, noise level {noise:.2g}"
        shown.append((to_pixels(state).clamp(0, 255), caption))
    return [*shown, (sample, f"step {count} of {count}, the sample")]


def _chain(model: Model, states: Sequence[tuple[Tensor, str]]) -> Section:
    note = (
        "A sample begins as noise. At each step the model removes some, and the noise level, in "
        "deviations of the image, falls. Contrast is kept the same here."
    )
    if not hasattr(model.config, "noise_max"):
        note = "A sample begins as noise, and Langevin dynamics changes it."
    shown = [_figure(_first_map(model, state), caption) for state, caption in states]
    return Section("Steps of the sampling", note, shown, layout="small")


def _filters(model: Model, pixels: Tensor) -> Section:
    kind = model.checkpoint.kind
    x = model.checkpoint.to_model(_fitting_part(model, pixels, FILTERED_SIDE))
    fields, density = kind.receptive_fields(), model.at_level(phases=model.phases(x))
    shown = [_figure(model.filters(kind="torch"), "first layer, all filters", exact=True)]
    for index, sheet in enumerate(figures.unit_filters(density, x, fields)):
        layer = f"layer {index + 1}, {kind.net.layers[index]}"
        shown.append(_figure(sheet, f"{layer}: sees {fields[index]} pixels", exact=True))
    note = (
        "A filter is also the basis function that its unit adds to an image. In deeper layers, the "
        "linear filters of the strongest units where they respond most, with the gates fixed."
    )
    return Section("Filters", note, shown, folded=True)


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
    note = "Energy, residual and gates by pixel."
    return Section("Analysis of an image", note, shown, layout="small", folded=True)


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
    return Section("Denoising", note, shown, folded=True)


def _copies(measures: TextureMetrics | None, sample: Tensor) -> Section | None:
    if measures is None:
        return None
    positions, distances = measures.copies.origins(sample)
    shown = [
        _figure(positions, "position of the nearest exemplar patch: x red, y green", exact=True),
        _figure(figures.heat_map(distances), "distance to it: dark is a copy", exact=True),
    ]
    note = (
        "For each patch, the nearest exemplar patch. Copies are plain areas on the left and dark "
        "areas on the right."
    )
    return Section("Copies", note, shown, folded=True)


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
        exemplar = kept_exemplar(self.run)
        shown = [] if exemplar is None else [_figure(exemplar.pixels, "Exemplar")]
        previews = sorted((self.run / "previews").glob("*.png"))
        if previews:
            preview = images.read_image(str(previews[-1])).pixels
            shown.append(_figure(preview, f"Samples after iteration {int(previews[-1].stem)}"))
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        sections = [Section("", figures=shown, layout="wide")] if shown else []
        curves = _curves([json.loads(line) for line in lines])
        page = _render(
            name=self.run.name,
            state=f"In training: iteration {iteration} of {last}",
            refresh=PAGE_SECONDS,
            sections=[*sections, *filter(None, [curves])],
        )
        images.write_bytes(self.page, page)
