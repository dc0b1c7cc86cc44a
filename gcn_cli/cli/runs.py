"""Where runs live: runs/<stem>/ with the model file, metrics.jsonl, previews/ and samples/."""

from pathlib import Path

from gcn_cli.cli.console import say
from gcn_cli.errors import InputError

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
    say(f"model: {found[-1].parent}")
    return found[-1]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError where a file would be replaced without --overwrite."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; add --overwrite to replace it, or name another")


def next_free(folder: Path, stem: str) -> int:
    """The first number that no <stem>-NNNN.png in `folder` has."""
    taken = [p.stem.removeprefix(f"{stem}-") for p in folder.glob(f"{stem}-*.png")]
    return max((int(number) for number in taken if number.isdigit()), default=0) + 1
