"""Train on every image of a folder, and show samples, a repair and an extension on one page.

    python examples/gallery.py FOLDER [--output gallery] [-- options for gcn train]

The repaired part is hidden from the training. Writes OUTPUT/index.html and a small
OUTPUT/sheet.jpg; images with results in OUTPUT are not trained again. `gcn` must be installed.
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

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ROW_HEIGHT = 128  # pixels, of the sheet
MISSING = (255, 0, 255)
CAPTIONS = {
    "exemplar": "exemplar",
    "sample": "sample, seamless",
    "tiled": "the sample tiled two by two",
    "missing": "a missing part (magenta)",
    "repaired": "repaired; the model never saw the part",
    "extended": "extended to the right",
}


def gcn(*arguments: str) -> str:
    """Run a command and return its stdout; exit with its messages if it fails."""
    done = subprocess.run(["gcn", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gcn {shlex.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def make_mask(size: tuple[int, int]) -> Image.Image:
    """White in a disc in the upper right quarter, and along two scratches."""
    (width, height), mask = size, Image.new("L", size)
    side, draw = min(size), ImageDraw.Draw(mask)
    draw.circle((width - side // 4, side // 4), side // 9, fill=255)
    thickness = max(2, side // 50)
    draw.line((width * 5 // 8, height * 7 // 8, width * 15 // 16, height // 2), 255, thickness)
    draw.line(
        (width * 3 // 4, height * 15 // 16, width * 31 // 32, height * 2 // 3), 255, thickness
    )
    return mask


def make_row(path: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train on an image and write its results to `folder`; returns a row of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as opened:
        exemplar = opened.convert("RGB")
    exemplar.save(folder / "exemplar.png")
    mask = make_mask(exemplar.size)
    mask.save(folder / "mask.png")
    missing = exemplar.copy()
    missing.paste(MISSING, mask=mask)
    missing.save(folder / "missing.png")
    run, hidden = str(folder / "run"), ["--mask", str(folder / "mask.png")]
    result = json.loads(gcn("train", str(path), *hidden, "-o", run, "--json", *options))
    model, (width, height) = ["--model", run, "--overwrite"], exemplar.size
    sample = folder / "sample.png"
    gcn("synthesize", *model, "--seed", "0", "--size", f"{width}x{height}", "-o", str(sample))
    with Image.open(sample) as image:
        tiled = Image.new("RGB", (2 * image.width, 2 * image.height))
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            tiled.paste(image, (x * image.width, y * image.height))
    tiled.save(folder / "tiled.png")
    gcn("reconstruct", str(path), *model, *hidden, "-o", str(folder / "repaired.png"))
    wider = ["--outpaint", f"0,0,{width},0", "-o", str(folder / "extended.png")]
    gcn("reconstruct", str(path), *model, *wider)
    quality = (result["quality"] or {}).get("quality")
    words = "not measured" if quality is None else f"{quality:.2f}"
    return {
        "name": path.stem.replace("_", " "),
        "images": [describe(folder / f"{name}.png", text) for name, text in CAPTIONS.items()],
        "quality": f"quality {words} (1.00 = as close as another crop of the exemplar), "
        f"{result['training_seconds']:.0f} s of training",
    }


def describe(path: Path, caption: str) -> dict[str, Any]:
    """An image for the page, with its path relative to the page."""
    with Image.open(path) as image:
        width, height = image.size
    relative = f"{path.parent.name}/{path.name}"
    return {"path": relative, "caption": caption, "width": width, "height": height}


def make_sheet(rows: list[dict[str, Any]], output: Path) -> Image.Image:
    """All images at ROW_HEIGHT, a line for each row."""
    lines = []
    for row in rows:
        scaled = []
        for described in row["images"]:
            with Image.open(output / described["path"]) as image:
                size = (round(image.width * ROW_HEIGHT / image.height), ROW_HEIGHT)
                scaled.append(image.convert("RGB").resize(size, Image.Resampling.BOX))
        lines.append(join(scaled, horizontal=True))
    return join(lines, horizontal=False)


def join(parts: list[Image.Image], *, horizontal: bool, spacing: int = 4) -> Image.Image:
    """Images in a row or a column on white."""
    lengths = [(part.width if horizontal else part.height) + spacing for part in parts]
    breadth = max(part.height if horizontal else part.width for part in parts)
    size = (sum(lengths) - spacing, breadth)
    joined = Image.new("RGB", size if horizontal else size[::-1], "white")
    for index, part in enumerate(parts):
        start = sum(lengths[:index])
        joined.paste(part, (start, 0) if horizontal else (0, start))
    return joined


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--output", type=Path, default=Path("gallery"))
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:end], argparse.Namespace(options=words[end + 1 :]))
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{arguments.folder}: no images ({', '.join(SUFFIXES)})")
    output, rows = arguments.output, []
    for path in paths:
        stored = output / path.stem / "row.json"
        if not stored.exists():
            stored.write_text(json.dumps(make_row(path, stored.parent, arguments.options)))
        rows.append(json.loads(stored.read_text()))
        print(f"{rows[-1]['name']}: {rows[-1]['quality']}", flush=True)
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True).get_template("gallery.html")
    (output / "index.html").write_text(template.render(rows=rows))
    make_sheet(rows, output).save(output / "sheet.jpg", quality=88)
    print(output / "index.html")


if __name__ == "__main__":
    main()
