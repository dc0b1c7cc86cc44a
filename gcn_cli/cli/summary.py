"""A model in a few lines for a person: what it is, how far, how good, and what to do next."""

import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDTH = 88


def summary(facts: dict[str, Any], run: Path, grades: dict[str, float | None] | None) -> str:
    """The summary of what `Model.describe` says of the model in a run's folder."""
    config, layers = facts["config"], facts["layers"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, words in (
        ("learned by", f"{config['learner']}{_cut(config)}, seed {config['seed']}"),
        ("pictures", ", ".join(facts["maps"]) + _periods(facts["periods"])),
        ("network", f"{len(layers)} layers{_resolutions(facts)}, {facts['parameters']:,} "
                    f"parameters, looks at {facts['looks_at']} pixels"),
        ("state", _state(facts)),
        ("quality", _quality(grades)),
        ("next", _next(facts, run, grades)),
    ):  # fmt: skip
        grid.add_row(name, Text(words))
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(Text(str(run), style="bold"))
    console.print(Padding(grid, (0, 0, 0, 2)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def _resolutions(facts: dict[str, Any]) -> str:
    found = [one["resolution"] for one in facts["octaves"]]
    return f" at {', '.join(found)} of the resolution" if len(found) > 1 else ""


def _cut(config: dict[str, Any]) -> str:
    crop = config.get("crop")
    return f" from crops of {crop}" if crop else " from whole pictures"


def _periods(periods: dict[str, float | None]) -> str:
    found = [f"every {value:g} pixels {way}" for way, value in periods.items() if value]
    return f"; regular, {' and '.join(found)}" if found else ""


def _state(facts: dict[str, Any]) -> str:
    done, last = facts["iteration"], facts["total_iterations"]
    how = "complete" if done >= last else f"iteration {done} of {last}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["written"]))
    return f"{how}, {done} iterations in {facts['seconds']:.0f} s, written {when}"


def _quality(grades: dict[str, float | None] | None) -> str:
    if grades is None:
        return "not measured (a texture's training measures it when it is complete)"
    from gcn_cli.runs.grading import in_words

    return in_words(grades).removeprefix("quality ")


def _next(facts: dict[str, Any], run: Path, grades: dict[str, float | None] | None) -> str:
    from gcn_cli.runs.grading import ROUGH

    if facts["iteration"] < facts["total_iterations"]:
        return "the training command again goes on where it stopped"
    known = grades or {}
    if (known.get("copied") or 0) > 0.05:
        return "it learned by heart: fewer --iterations, or more pictures of the texture"
    if (known.get("quality") or 0) >= ROUGH:
        return "more or larger pictures of the texture; --preset default where another was taken"
    return f"gcn synthesize --model {run} --size 1024; gcn inspect --model {run} --report page"


def tables(facts: dict[str, Any], *, details: bool) -> str:
    """What there is of every level; with `details` all settings, layers, some of the history."""
    console = Console(file=io.StringIO(), width=100)
    if details:
        settings = Table("setting", "value", title="config")
        for name, value in facts["config"].items():
            settings.add_row(name, str(value))
        console.print(settings)
    for key in ("layers", "octaves", "history", "levels") if details else ("levels",):
        rows = facts.get(key)
        if not rows:
            continue
        table = Table(*rows[0], title=key)
        for row in rows:
            table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()
