"""Training curves as SVG, which a page holds without a library.

The page of a run: what `inside`, `curves` and the measures show, put into a template.

The page of a training as it runs, from what is in its folder: quick, made again and again.
"""

import base64
import io
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from torch import Tensor

from gcn_cli import __version__ as VERSION
from gcn_cli import images
from gcn_cli.errors import GcnError, InputError
from gcn_cli.images.image import side_by_side
from gcn_cli.inputs import LinkedImages
from gcn_cli.metrics import MEANINGS, TextureMetrics
from gcn_cli.model import Model
from gcn_cli.reconstruction import fit_to_model
from gcn_cli.report import figures
from gcn_cli.runs.grades import in_words, kept_exemplar, rounded
from gcn_cli.training.loop import Metrics

log = logging.getLogger(__name__)

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 200, 56, 24
POINTS = 300
CURVE_MEANINGS = {
    "loss": "denoising loss: how far D is from the clean picture, 1 for a Gaussian; falls, then "
    "settles",
    "gap": "score of noisy data minus that of chains, a value: near 0 means chains look like data",
    "likelihood": "weight that the likelihood has; it falls where chains cannot follow",
    "energy_gap": "energy of chains minus that of data, a pixel: swings about 0",
    "contrast": "deviation of the chains' pixels over the data's: 1 in the end",
    "reconstruction_error": "share of a picture that its auto-encoding misses",
}


def curve(history: Sequence[Metrics], name: str) -> str:
    """One measure over the iterations, in the mean of neighbors, as an <svg>."""
    rows = [(row["iteration"], row[name]) for row in history if name in row]
    step = max(1, len(rows) // POINTS)
    groups = [rows[k : k + step] for k in range(0, len(rows), step)]
    points = [tuple(sum(v) / len(v) for v in zip(*group, strict=True)) for group in groups]
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    values = sorted(value for _, value in points)
    # An outlier at the start would flatten all the rest.
    low, high = values[0], values[min(len(values) - 1, int(0.98 * len(values)))]
    high = high if high > low else low + 1
    path = " ".join(
        f"{LEFT + (WIDTH - LEFT - 8) * (at - first) / (last - first):.1f},"
        f"{8 + (HEIGHT - BOTTOM - 8) * (1 - min(1, (value - low) / (high - low))):.1f}"
        for at, value in points
    )
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'
        for x, y, anchor, words in (
            (LEFT - 6, 16, "end", f"{high:.3g}"),
            (LEFT - 6, HEIGHT - BOTTOM, "end", f"{low:.3g}"),
            (LEFT, HEIGHT - 6, "start", f"{first:.0f}"),
            (WIDTH - 8, HEIGHT - 6, "end", f"{last:.0f}"),
        )
    )
    frame = f"M{LEFT},8 V{HEIGHT - BOTTOM} H{WIDTH - 8}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} by iteration">'
        f'<path class="frame" d="{frame}"/><polyline points="{path}"/>{texts}</svg>'
    )


LEVELS = (0.3, 1.0, 3.0, 10.0)
FRAME, REST = 250, 2500  # milliseconds of a frame of the walk, and of its end
BASIN = 96  # pixels a side of a picture that is damaged
LARGEST_SAMPLE = 512  # pixels a side of the sample that is shown


@dataclass(frozen=True)
class Figure:
    """A picture of the page, with its words."""

    source: str  # a data: address
    caption: str
    width: int
    height: int


def figure(pixels: Tensor, caption: str) -> Figure:
    """A tensor (C, H, W) in 0..255 as a figure."""
    data = io.BytesIO()
    images.to_picture(pixels.cpu()).save(data, format="PNG")
    return _figure(data, "png", caption, pixels.shape[2], pixels.shape[1])


def _figure(data: io.BytesIO, kind: str, caption: str, width: int, height: int) -> Figure:
    address = f"data:image/{kind};base64," + base64.b64encode(data.getvalue()).decode()
    return Figure(address, caption, width, height)


def write_report(model: Model, folder: Path, picture: LinkedImages | None = None) -> Path:
    """index.html in a folder: one file, with its pictures. Returns its path.

    `picture` is looked into; None takes the exemplar that the run keeps, or else a sample. What a
    kind of model does not have is left out.
    """
    images.write_bytes(folder / "index.html", render(contents(model, picture)).encode())
    return folder / "index.html"


def render(shown: dict[str, Any]) -> str:
    """The page, of those parts that there are."""
    environment = Environment(loader=PackageLoader("gcn_cli.report", "."), autoescape=True)
    about = {"version": VERSION, "torch": torch.__version__}
    return environment.get_template("page.html").render(about | shown)


def curves(history: Sequence[Metrics]) -> list[tuple[str, str, str]]:
    """Name, meaning and drawing of every measure of a training."""
    return [
        (name, CURVE_MEANINGS.get(name, ""), curve(history, name))
        for name in (history[0] if history else {})
        if name not in ("iteration", "stage")
    ]


def contents(model: Model, picture: LinkedImages | None) -> dict[str, Any]:
    """All that the template shows."""
    described = model.describe()
    frames, made = figures.walk(model)
    sample = made[:, :LARGEST_SAMPLE, :LARGEST_SAMPLE]
    by = _tried(model.yardstick)
    kept = kept_exemplar(model.run)
    exemplar = None if kept is None else images.open_picture(kept)
    looked_at = picture if picture is not None else exemplar
    pixels = sample
    if looked_at is not None and len(model.maps) == 1:
        pixels = fit_to_model(model.checkpoint, looked_at)
    pixels = pixels[:, : figures.LARGEST_SIDE, : figures.LARGEST_SIDE]
    height, width = model.checkpoint.family.fitting(pixels.shape[1], pixels.shape[2], max(LEVELS))
    pixels = pixels[:, :height, :width]
    return {
        "name": model.run.name if model.run is not None else "a model",
        "state": _state(described),
        "described": described,
        "grades": None
        if by is None
        else _tried(lambda: _grades(by.measure(_first(model, sample)))),
        "pair": _pair(model, exemplar, sample),
        "tiled": figure(side_by_side(sample.repeat(1, 2, 2), model.maps), "the sample, two by two"),
        "curves": curves(model.history),
        "filters": figure(model.filters(), "filters of the first layer"),
        "painted": _tried(lambda: _painted(model, pixels)),
        "maps": _tried(lambda: _maps(model, pixels)),
        "walk": [figure(_first(model, one), "") for one in frames],
        "film": _film([_first(model, one) for one in frames]),
        "basin": _tried(lambda: _basin(model, pixels)),
        "denoised": _tried(lambda: _denoised(model, pixels)),
        "copies": None if by is None else _copies(by, _first(model, sample)),
    }


def _state(described: dict[str, Any]) -> str:
    return (
        f"{described['config']['learner']}, iteration {described['iteration']} of "
        f"{described['total_iterations']}, {described['seconds']:.0f} s of training, "
        f"{described['parameters']:,} parameters; looks at "
        f"{described['looks_at']} pixels"
    )


def _tried(make: Callable[[], Any]) -> Any:
    """What a part of the page shows; None where this kind of model has no such thing."""
    try:
        return make()
    except (GcnError, ValueError) as error:
        log.debug("left out of the report: %s", error)
        return None


def _first(model: Model, pixels: Tensor) -> Tensor:
    """The first of linked maps."""
    return pixels[: model.maps[0].channels]


def _pair(model: Model, exemplar: images.Image | None, sample: Tensor) -> list[Figure]:
    found = []
    if exemplar is not None:
        found.append(figure(exemplar.to_bands(model.maps[0].bands), "the exemplar"))
    return [*found, figure(side_by_side(sample, model.maps), "a sample, seed 0")]


def _grades(measures: dict[str, float]) -> dict[str, Any]:
    grades = rounded(measures)
    rows = [(name, grades[name], MEANINGS[name]) for name in MEANINGS]
    return {"words": in_words(grades), "rows": rows}


def _painted(model: Model, pixels: Tensor) -> list[Figure]:
    density = model.checkpoint.family.density(None, torch.float32)
    net, x = model.checkpoint.family.net, model.checkpoint.seen(pixels)
    fields = model.checkpoint.family.receptive_fields()
    sheets = figures.painted(density, x, fields)
    return [
        figure(sheet, f"layer {layer + 1}, {net.layers[layer]}: looks at {fields[layer]} pixels")
        for layer, sheet in enumerate(sheets)
    ]


def _maps(model: Model, pixels: Tensor) -> list[Figure]:
    density = model.checkpoint.family.density(None, torch.float32)
    x = model.checkpoint.seen(pixels)
    mean, energy, residual = figures.piece(density, x)
    mean = model.checkpoint.pixels.to_pixels(mean[None].cpu())[0].clamp(0, 255)
    shown = [
        figure(_first(model, pixels), "the picture that is looked into"),
        figure(_first(model, mean), "the mean of its Gaussian piece: its auto-encoding"),
        figure(energy, "energy: bright is unlikely"),
        figure(residual, "residual: where its auto-encoding is off"),
    ]
    gates = figures.activations(density, x)
    return shown + [figure(one, f"open gates, layer {k + 1}") for k, one in enumerate(gates)]


def _film(frames: Sequence[Tensor]) -> Figure:
    """The walk, moving: an animated WebP that rests on its last frame."""
    pictures = [images.to_picture(one.cpu()).convert("RGB") for one in frames]
    # A pattern of whole periods is stretched at its end.
    pictures = [one.resize(pictures[-1].size) for one in pictures]
    data = io.BytesIO()
    pictures[0].save(
        data,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=[FRAME] * (len(pictures) - 1) + [REST],
        loop=0,
    )
    return _figure(data, "webp", "the same, moving", pictures[0].width, pictures[0].height)


def _basin(model: Model, pixels: Tensor) -> dict[str, Any]:
    """A picture with its middle lost, run to its mode, beside the mode of the whole."""
    if not model.config.head:
        side = model.checkpoint.family.net.total_stride
        side *= max(1, BASIN // side)
        pixels = pixels[:, :side, :side]
    shown, apart = figures.basin(model, pixels)
    words = ("a picture", "its middle lost", "the mode of the picture", "the mode of the rest")
    both = [figure(_first(model, one), word) for one, word in zip(shown, words, strict=True)]
    return {"pictures": both, "apart": f"{apart:.1f}"}


def _denoised(model: Model, pixels: Tensor) -> list[Figure]:
    x = model.checkpoint.seen(pixels)
    shown = []
    for level, pair in zip(LEVELS, figures.denoised(model, x, LEVELS), strict=True):
        both = torch.stack([_first(model, one) for one in pair])
        shown.append(figure(images.grid(both, columns=2), f"noise of {level:g}, and D"))
    return shown


def _copies(by: TextureMetrics, sample: Tensor) -> list[Figure]:
    places, distances = by.originals.origins(sample)
    return [
        figure(places, "where in the exemplar the nearest patch lies: red across, green down"),
        figure(figures.heat(distances), "how far it is: dark is a copy"),
    ]


REFRESHED = 20  # seconds after which a browser loads it again
PAGE_EVERY = 20.0  # seconds between two pages
MARK = b'<meta name="generator" content="gcn">'


class TrainingPage:
    """Writes the page of a run's folder now and then."""

    def __init__(self, run: Path, folder: Path) -> None:
        """The page goes to index.html in `folder`.

        Raises InputError where there is a page of someone else's.
        """
        page = folder / "index.html"
        if page.exists() and MARK not in page.read_bytes():
            raise InputError(f"--report {folder}: holds a page that is not gcn's; name another")
        self.run, self.folder, self.next = run, folder, 0.0

    def __call__(self, iteration: int, last: int) -> None:
        """To be called after every iteration."""
        if time.monotonic() >= self.next:
            self.write(iteration, last)
            self.next = time.monotonic() + PAGE_EVERY

    def write(self, iteration: int, last: int) -> None:
        """The page as of now."""
        shown: dict[str, Any] = {
            "name": self.run.name,
            "state": f"iteration {iteration} of {last}",
            "refresh": REFRESHED,
            "curves": curves(self._history()),
        }
        pair = []
        kept = kept_exemplar(self.run)
        if kept is not None:
            exemplar = images.open_picture(kept)
            pair.append(figure(exemplar.values, "the exemplar"))
        previews = sorted((self.run / "previews").glob("*.png"))
        if previews:
            newest = images.open_picture(str(previews[-1]))
            named = f"samples after iteration {int(previews[-1].stem)}"
            pair.append(figure(newest.values, named))
        images.write_bytes(self.folder / "index.html", render(shown | {"pair": pair}).encode())

    def _history(self) -> list[Metrics]:
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
