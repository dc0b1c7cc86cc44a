"""Training curves as SVG, which a page holds without a library."""

from collections.abc import Sequence

from gcn_cli.learning.trainer import Metrics

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 200, 56, 24
POINTS = 300
MEANINGS = {
    "loss": "denoising loss: how far D is from the clean picture, 1 for a Gaussian; falls, then "
    "settles",
    "gap": "score of noisy data minus that of chains, a value: near 0 means chains look like data",
    "likelihood": "weight that the likelihood has; it falls where chains cannot follow",
    "energy_gap": "energy of chains minus that of data, a pixel: swings about 0",
    "contrast": "deviation of the chains' pixels over the data's: 1 in the end",
    "reconstruction_error": "share of a picture that its auto-encoding misses",
}


def curve(history: Sequence[Metrics], name: str) -> str:
    """One measure over the iterations, in the mean of neighbours, as an <svg>."""
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
