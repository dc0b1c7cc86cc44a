"""Train on every image of a folder, score samples with any command, and print a table.

    python examples/quality_table.py FOLDER --measure "python texmetric.py --json" \
        [--preset quick] [--samples 3] [--output runs/table] [-- options for gcn train]

`MEASURE IMAGE SAMPLE...` must print JSON: an object with an entry for each sample path, an object
of numbers. Prints a line for each image, then medians and maxima. OUTPUT/table.json holds the rows;
images with a row are not trained again. `gcn` must be installed.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METRICS = ("score", "variety", "copy_frac", "copy_self", "coherence", "coh_self")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def run(*command: str) -> str:
    """Run a command and return its stdout; exit with its messages if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def make_row(image: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on an image, sample, and score the samples."""
    folder = arguments.output / image.stem
    times = [time.monotonic()]
    options = ["--preset", arguments.preset, "-o", str(folder), *arguments.options]
    run("gcn", "train", str(image), *options)
    times.append(time.monotonic())
    samples = run(
        "gcn", "synthesize", "--model", str(folder), "--count", str(arguments.samples),
        "--seed", "0", "-o", str(folder / "judged"), "--overwrite",
    ).split()  # fmt: skip
    times.append(time.monotonic())
    scores = json.loads(run(*shlex.split(arguments.measure), str(image), *samples))
    means = {
        name: round(statistics.fmean(scores[sample][name] for sample in samples), 3)
        for name in METRICS
        if name in scores[samples[0]]
    }
    return {
        "image": image.stem,
        "train_seconds": round(times[1] - times[0], 1),
        "sample_seconds": round((times[2] - times[1]) / len(samples), 2),
        **means,
        "diversity": round(scores.get("_between_samples", {}).get("diversity", float("nan")), 3),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--measure", required=True, help="command that scores samples")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/table"))
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:end], argparse.Namespace(options=words[end + 1 :]))
    images = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not images:
        sys.exit(f"{arguments.folder}: no images ({', '.join(SUFFIXES)})")
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / "table.json"
    rows = json.loads(table.read_text()) if table.exists() else {}
    for image in images:
        if image.stem not in rows:
            rows[image.stem] = make_row(image, arguments)
            table.write_text(json.dumps(rows, indent=1))
        row = rows[image.stem]
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    for name in ("score", "variety", "train_seconds", "sample_seconds"):
        values = [row[name] for row in rows.values() if name in row]
        if values:
            print(f"{name}: median {statistics.median(values):.3f}  worst {max(values):.3f}")


if __name__ == "__main__":
    main()
