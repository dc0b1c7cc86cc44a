"""The page of a training as it runs, from what is in its folder: quick, made again and again."""

import json
import time
from pathlib import Path
from typing import Any

from gcn_cli import images
from gcn_cli.errors import InputError
from gcn_cli.learning.trainer import Metrics
from gcn_cli.report.page import curves, figure, render
from gcn_cli.runs.grading import kept_exemplar

REFRESHED = 20  # seconds after which a browser loads it again
EVERY = 20.0  # seconds between two pages
MARK = b'<meta name="generator" content="gcn">'


class Progress:
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
            self.next = time.monotonic() + EVERY

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
