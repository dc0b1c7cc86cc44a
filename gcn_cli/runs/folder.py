"""Where runs live: runs/<stem>/ with the model file, metrics.jsonl, previews/ and samples/."""

import logging
from pathlib import Path

from gcn_cli.errors import InputError
from gcn_cli.images import names_file

log = logging.getLogger(__name__)

ROOT = Path("runs")
MODEL = "model.safetensors"


def run_for(sources: list[str]) -> Path:
    """The default folder of a training: named after its first source."""
    name = "stdin" if sources[0] == "-" else Path(sources[0]).resolve().stem
    return ROOT / name


def model_path(asked: str | None) -> Path:
    """The model file that --model names, or that of the newest run, which is then named."""
    if asked is not None:
        path = Path(asked)
        return path / MODEL if path.is_dir() else path
    found = sorted(ROOT.glob(f"*/{MODEL}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"no runs under {ROOT}/; train one with 'gcn train PICTURE', or --model")
    log.info("model: %s", found[-1].parent)
    return found[-1]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError where a file would be replaced without --overwrite."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; add --overwrite to replace it, or name another")


def next_free(folder: Path, stem: str) -> int:
    """The first number that no <stem>-NNNN.png in `folder` has."""
    taken = [p.stem.removeprefix(f"{stem}-") for p in folder.glob(f"{stem}-*.png")]
    return max((int(number) for number in taken if number.isdigit()), default=0) + 1


def sample_paths(output: str | None, default: Path, count: int, *, overwrite: bool) -> list[str]:
    """Where pictures go: a file, a folder, "-" for stdout, or the next free names in `default`.

    Raises InputError where they would replace a file, or several would share one.
    """
    if output == "-" or (output is not None and names_file(output)):
        if count > 1:
            raise InputError(f"--output {output}: one file for {count} pictures; name a folder")
        paths = [output]
    else:
        folder = default if output is None else Path(output)
        first = next_free(folder, "sample") if output is None else 1
        paths = [str(folder / f"sample-{n:04d}.png") for n in range(first, first + count)]
    for path in paths:
        if path != "-":
            refuse_existing(Path(path), overwrite)
    return paths
