"""A page of what gcn makes of every picture in a folder, by its commands alone.

    python examples/gallery.py PICTURES [--output gallery] [-- options for gcn train]

For every picture: the exemplar, a sample, the sample repeated, the exemplar with a part lost and
that part made anew, the exemplar continued to the right. The lost part is hidden from the training
too. OUTPUT/index.html shows all, OUTPUT/sheet.jpg the same in small; what is there already is not
made again. `gcn` must be installed.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageDraw

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SMALL = 128  # pixels of height of the sheet's rows
LOST = (255, 0, 255)


def gcn(*words: str) -> str:
    """Stdout of a command; its failure ends the gallery with what it said."""
    done = subprocess.run(["gcn", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gcn {shlex.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def make_mask(size: tuple[int, int], path: Path) -> Image.Image:
    """White in a disc in the upper right quarter, and along two scratches."""
    (width, height), mask = size, Image.new("L", size)
    side, draw = min(size), ImageDraw.Draw(mask)
    middle, radius = (width - side // 4, side // 4), side // 9
    corners = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
    draw.ellipse(corners, fill=255)
    thick = max(2, side // 50)
    draw.line((width * 5 // 8, height * 7 // 8, width * 15 // 16, height // 2), 255, thick)
    draw.line((width * 3 // 4, height * 15 // 16, width * 31 // 32, height * 2 // 3), 255, thick)
    mask.save(path)
    return mask


def pictures_of(picture: Path, folder: Path, train: list[str]) -> dict[str, Any]:
    """Train and make everything of one picture; a row of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as opened:
        exemplar = opened.convert("RGB")
    exemplar.save(folder / "exemplar.png")
    mask = make_mask(exemplar.size, folder / "mask.png")
    lost = exemplar.copy()
    lost.paste(LOST, mask=mask)
    lost.save(folder / "lost.png")
    run, hidden = str(folder / "run"), ["--mask", str(folder / "mask.png")]
    said = json.loads(gcn("train", str(picture), *hidden, "-o", run, "--json", *train))
    model = ["--model", run, "--overwrite"]
    width, height = exemplar.size
    size = f"{width}x{height}"
    gcn("synthesize", *model, "--size", size, "-o", str(folder / "sample.png"))
    with Image.open(folder / "sample.png") as sample:
        tiled = Image.new("RGB", (2 * sample.width, 2 * sample.height))
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            tiled.paste(sample, (x * sample.width, y * sample.height))
    tiled.save(folder / "tiled.png")
    gcn("reconstruct", str(picture), *model, *hidden, "-o", str(folder / "repaired.png"))
    wider = ["--extend", f"0,0,{width},0", "-o", str(folder / "wider.png")]
    gcn("reconstruct", str(picture), *model, *wider)
    captions = {
        "exemplar": "the exemplar",
        "sample": "a sample: seamless",
        "tiled": "the sample, two by two",
        "lost": "a part is lost (magenta)",
        "repaired": "made anew, by a model that never saw it",
        "wider": "continued to the right",
    }
    shown = [shown_of(folder / f"{name}.png", text) for name, text in captions.items()]
    quality = said["quality"] or {}
    told = f"quality {quality['quality']:.2f}" if quality.get("quality") else "not measured"
    words = f"{told} (1 is like another part of the exemplar), {said['training_seconds']:.0f} s"
    return {"name": picture.stem.replace("_", " "), "pictures": shown, "quality": words}


def shown_of(path: Path, caption: str) -> dict[str, Any]:
    """A picture as the page shows it; its path is seen from the page."""
    with Image.open(path) as picture:
        width, height = picture.size
    there = f"{path.parent.name}/{path.name}"
    return {"path": there, "caption": caption, "width": width, "height": height}


def sheet(rows: list[dict[str, Any]], output: Path) -> Image.Image:
    """All rows in small: everything SMALL pixels high."""
    lines = []
    for row in rows:
        small = []
        for one in row["pictures"]:
            with Image.open(output / one["path"]) as picture:
                width = round(picture.width * SMALL / picture.height)
                small.append(picture.convert("RGB").resize((width, SMALL), Image.Resampling.BOX))
        line = Image.new("RGB", (sum(p.width + 4 for p in small) - 4, SMALL), "white")
        across = 0
        for small_one in small:
            line.paste(small_one, (across, 0))
            across += small_one.width + 4
        lines.append(line)
    whole = Image.new("RGB", (max(p.width for p in lines), (SMALL + 4) * len(lines) - 4), "white")
    for number, line in enumerate(lines):
        whole.paste(line, (0, number * (SMALL + 4)))
    return whole


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--output", type=Path, default=Path("gallery"))
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:own], argparse.Namespace(train=words[own + 1 :]))
    found = sorted(p for p in options.pictures.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        sys.exit(f"{options.pictures}: no pictures ({', '.join(PICTURES)})")
    rows = []
    for picture in found:
        kept = options.output / picture.stem / "row.json"
        if not kept.exists():
            row = pictures_of(picture, kept.parent, options.train)
            kept.write_text(json.dumps(row))
        rows.append(json.loads(kept.read_text()))
        print(f"{rows[-1]['name']}: {rows[-1]['quality']}", flush=True)
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True).get_template("gallery.html")
    (options.output / "index.html").write_text(template.render(rows=rows))
    sheet(rows, options.output).save(options.output / "sheet.jpg", quality=88)
    print(options.output / "index.html")


if __name__ == "__main__":
    main()
