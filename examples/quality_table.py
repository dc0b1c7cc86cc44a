"""Train on every picture of a folder, sample, judge with any command, print a table.

    python examples/quality_table.py PICTURES --measure "python texmetric.py --json"         [--preset quick] [--samples 3] [--output runs/table] [-- more train options]

The measure is called as `MEASURE PICTURE SAMPLE...` and prints JSON: an object with an entry for
every sample, each an object of figures. `gcn` must be installed. One line a picture as it is
done, then medians and the worst; everything also as JSON in OUTPUT/table.json. Pictures that have
a row there already are not done again.
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

FIGURES = ("score", "variety", "copy_frac", "copy_self", "coherence", "coh_self")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def run(*words: str) -> str:
    """Stdout of a command; its failure ends the table with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def row(picture: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, sample and judge one picture."""
    folder = options.output / picture.stem
    begun = time.monotonic()
    train = ["--preset", options.preset, "-o", str(folder), *options.train]
    run("gcn", "train", str(picture), *train)
    trained = time.monotonic()
    paths = run(
        "gcn", "synthesize", "--model", str(folder), "--count", str(options.samples),
        "-o", str(folder / "judged"), "--overwrite",
    ).split()  # fmt: skip
    sampled = time.monotonic()
    judged = json.loads(run(*shlex.split(options.measure), str(picture), *paths))
    figures = [judged[path] for path in paths]
    return {
        "picture": picture.stem,
        "train_seconds": round(trained - begun, 1),
        "sample_seconds": round((sampled - trained) / len(paths), 2),
        **{
            name: round(statistics.fmean(one[name] for one in figures), 3)
            for name in FIGURES
            if name in figures[0]
        },
        "diversity": round(judged.get("_between_samples", {}).get("diversity", float("nan")), 3),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--measure", required=True, help="command that judges samples")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/table"))
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:own], argparse.Namespace(train=words[own + 1 :]))
    found = sorted(p for p in options.pictures.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        sys.exit(f"{options.pictures}: no pictures ({', '.join(PICTURES)})")
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "table.json"
    rows = json.loads(table.read_text()) if table.exists() else []
    for picture in found:
        if picture.stem not in [one["picture"] for one in rows]:
            rows.append(row(picture, options))
            table.write_text(json.dumps(rows, indent=1))
        one = next(one for one in rows if one["picture"] == picture.stem)
        print("  ".join(f"{name} {value}" for name, value in one.items()), flush=True)
    for name in ("score", "variety", "train_seconds", "sample_seconds"):
        values = [one[name] for one in rows if name in one]
        if values:
            print(f"{name}: median {statistics.median(values):.3f}  worst {max(values):.3f}")


if __name__ == "__main__":
    main()
