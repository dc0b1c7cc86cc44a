"""What a GPU is used for and how well: one JSON file of figures, in at most eight minutes.

    python examples/gpu_check.py RESULT.json [--images FOLDER] [--sweep FILE] [--samples FOLDER]
                                 [--skip PART,...] [--small]

Parts: tests (tests/test_gpu.py), iterations (time and share of the device's own matrix product rate
of a step of each preset, by phase), commands (whole processes: default, 512 pixels, best, object),
each (eight textures by `gcn train --each` with 1, 2, 4, 8 jobs), samples (2048 and 4096 pixels),
kernels (where the time of a sample and of a training step goes).
A sweep trains each line of FILE, `NAME OPTIONS...`, on every image of --images, and saves three
samples of each to --samples; examples/gpu_sweep.txt is a search for a preset. --small runs
everything on a processor at small sizes.
"""

import argparse
import hashlib
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from gcn_cli import images
from gcn_cli.model import load
from gcn_cli.runtime import choose_device

ROOT = Path(__file__).parents[1]
TEXTURES = 8
SMALL = [
    *("--set", "layers=4@5,4@3/2", "--set", "crop=16", "--set", "margin=2"),
    *("--iterations", "4", "--device", "cpu"),
]


def benchmark_figures(part: str, small: list[str]) -> Any:
    """Of a part of benchmark.py."""
    words = ["--json", "--only", part, *(["--small"] if small else [])]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "benchmark.py"), *words],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)[part]


def gcn(*words: str) -> dict[str, Any]:
    """What the command prints with --json; its wall-clock time added."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "gcn_cli", *words, "--json"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        return {"process_seconds": seconds, "error": done.stderr.strip().splitlines()[-12:]}
    return {**json.loads(done.stdout), "process_seconds": seconds}


def textures(folder: Path | None, into: Path, side: int, count: int) -> list[Path]:
    """`count` images of `side` x `side` pixels, from the images of a folder, turned if few."""
    files = images.expand_sources([str(folder or ROOT / "examples" / "textures")])
    paths = []
    for index in range(count):
        pixels = images.read_image(files[index % len(files)]).pixels
        turned = pixels[:3].rot90(index // len(files), (1, 2))
        if min(turned.shape[1:]) < side:
            turned = F.interpolate(turned[None], (side, side), mode="bicubic")[0].clamp(0, 255)
        paths.append(into / f"texture{index}.png")
        images.write(turned[:, :side, :side], str(paths[-1]))
    return paths


def command_figures(folder: Path, large: Path, small: list[str]) -> dict[str, Any]:
    """Whole processes: a training with its measuring."""
    texture = str(next(iter(sorted(folder.iterdir()))))
    runs = {"default": [texture]}
    if not small:
        runs |= {"512": [str(large)], "best": [str(large), "--preset", "best"]}
    figures = {}
    for name, words in runs.items():
        result = gcn("train", *words, *small, "-o", str(folder.parent / f"run {name}"))
        keys = ("process_seconds", "training_seconds", "quality", "peak_memory_mib", "error")
        figures[name] = {key: result[key] for key in keys if key in result}
    return figures


def each_figures(folder: Path, small: list[str], jobs: tuple[int, ...]) -> dict[str, Any]:
    """All textures, several at a time; whether the models do not depend on how many."""
    figures, digests = {}, set()
    for count in jobs:
        words = ["train", "--each", str(folder), "--jobs", str(count), *small]
        result = gcn(*words, "-o", str(folder.parent / f"runs {count}"))
        runs = result.get("runs", [])
        figures[f"{count} jobs"] = {
            "seconds": result["process_seconds"],
            "exit_codes": [run["exit_code"] for run in runs],
            "error": result.get("error"),
        }
        digests.add(tuple(parameter_digest(run["run"]) for run in runs))
    return {**figures, "same_models": len(digests) == 1}


def parameter_digest(run: str) -> str:
    """Of the parameters of a model."""
    digest = hashlib.sha256()
    for parameter in load(run, device="cpu").checkpoint.kind.net.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def sample_figures(run: Path, sides: tuple[int, ...]) -> dict[str, Any]:
    """Processes that make one sample, and the time of the work alone."""
    figures = {}
    for side in sides:
        path = str(run.parent / f"sample {side}.png")
        result = gcn("synthesize", "--model", str(run), "--size", str(side), "-o", path)
        keys = ("process_seconds", "seconds", "peak_memory_mib", "error")
        figures[str(side)] = {key: result[key] for key in keys if key in result}
    return figures


def sweep_figures(sweep: Path, sources: list[str], samples: Path) -> dict[str, Any]:
    """A training of each line on each image, and three samples of each model."""
    figures: dict[str, Any] = {}
    for line in filter(None, map(str.strip, sweep.read_text(encoding="utf-8").splitlines())):
        name, *words = shlex.split(line)
        for source in sources:
            run = samples / name / Path(source).stem
            trained = gcn("train", source, *words, "-o", str(run))
            made = gcn(
                *("synthesize", "--model", str(run), "--count", "3"),
                *("-o", str(samples / name / (Path(source).stem + "-{index}.png"))),
            )
            figures[f"{name}, {Path(source).stem}"] = {
                "process_seconds": trained["process_seconds"],
                "quality": trained.get("quality"),
                "error": trained.get("error") or made.get("error"),
            }
    return figures


def main() -> None:
    """Run all parts and write the figures after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--samples", type=Path, default=Path("sweep"))
    parser.add_argument("--skip", default="", help="parts to leave out, separated by commas")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device = choose_device("cpu" if options.small else "cuda")
    small = SMALL if options.small else []
    result: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
            "torch": torch.__version__,
        }
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder, large = Path(scratch, "textures"), Path(scratch, "large")
        side, count = (40, 2) if options.small else (256, TEXTURES)
        textures(options.images, folder, side, count)
        (big,) = textures(options.images, large, 2 * side, 1)
        jobs, sides = ((2,), (64,)) if options.small else ((1, 2, 4, 8), (2048, 4096))
        parts: dict[str, Callable[[], Any]] = {
            "tests": test_result,
            "iterations": lambda: benchmark_figures("iterations", small),
            "commands": lambda: command_figures(folder, big, small),
            "each": lambda: each_figures(folder, small, jobs),
            "samples": lambda: sample_figures(Path(scratch, "run default"), sides),
            "kernels": lambda: benchmark_figures("kernels", small),
        }
        if options.sweep:
            given = images.expand_sources([str(options.images or folder)])
            parts["sweep"] = lambda: sweep_figures(options.sweep, given, options.samples)
        for name, part in parts.items():
            if name in options.skip.split(","):
                continue
            started = time.perf_counter()
            try:
                result[name] = part()
            except Exception as error:  # the figures of other parts are kept
                result[name] = {"error": f"{type(error).__name__}: {error}"}
            result.setdefault("seconds", {})[name] = time.perf_counter() - started
            options.result.write_text(json.dumps(result, indent=1), encoding="utf-8")
            print(name, json.dumps(result[name]), flush=True)


def test_result() -> str:
    """The last line of pytest."""
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "tests/test_gpu.py"]
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    return (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    main()
