"""A metric of a training over its iterations, drawn as SVG."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 60, 22, 10, 40  # margins
POINTS = 300  # drawn at most
SMOOTHED = 0.06  # of the points: the half width of the moving median
TICKS = 5  # about, on an axis


def curve(
    history: Sequence[Mapping[str, float | None]], name: str, title: str, mark: float | None = None
) -> str:
    """The moving median of a metric over the iterations, and its values in a fainter line.

    Values that are not finite, or None, are left out; without any value the result is empty. `mark`
    is the iteration where likelihood training joins.
    """
    values_of = [(row["iteration"], row.get(name)) for row in history]
    rows = [(at, v) for at, v in values_of if at is not None and v is not None and math.isfinite(v)]
    if not rows:
        return ""
    step = math.ceil(len(rows) / POINTS)
    groups = [rows[k : k + step] for k in range(0, len(rows), step)]
    points = [(fmean(at for at, _ in group), fmean(v for _, v in group)) for group in groups]
    reach = round(SMOOTHED * len(points))
    smooth = [
        (at, median(v for _, v in points[max(0, k - reach) : k + reach + 1]))
        for k, (at, _) in enumerate(points)
    ]
    first, last = rows[0][0], max(rows[-1][0], rows[0][0] + 1)
    # Percentiles: an outlier would flatten the rest.
    values = sorted(value for _, value in points)
    low, high = (values[round(share * (len(values) - 1))] for share in (0.02, 0.98))
    low, high = min(low, *(v for _, v in smooth)), max(high, *(v for _, v in smooth))
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / (last - first)

    def y(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return TOP + (HEIGHT - BOTTOM - TOP) * (1 - share)

    def line(kind: str, places: Sequence[tuple[float, float]]) -> str:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in places)
        return f'<polyline class="{kind}" points="{path}"/>'

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by iteration">']
    bottom = HEIGHT - BOTTOM
    for value in _ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT},{y(value):.1f} H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, "end", f"{value:.6g}"))
    for at in _ticks(first, last, 1.0):
        parts.append(f'<path class="grid" d="M{x(at):.1f},{bottom} v4"/>')
        parts.append(_text(x(at), bottom + 17, "middle", f"{at:.6g}"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle", "iteration"))
    if mark is not None and first < mark < last:
        parts.append(f'<path class="mark" d="M{x(mark):.1f},{TOP} V{bottom}"/>')
        parts.append(_text(x(mark) - 5, TOP + 9, "end", "likelihood joins"))
    parts += [line("raw", points), line("smooth", smooth), "</svg>"]
    return "".join(parts)


def _ticks(low: float, high: float, smallest: float = 0.0) -> list[float]:
    """Round numbers in a range, `smallest` apart or more."""
    width = max(smallest, (high - low) / TICKS)
    power = 10.0 ** math.floor(math.log10(width))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= width * (1 - 1e-9))
    start, stop = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step + 0.0 for k in range(start, stop + 1)]


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
