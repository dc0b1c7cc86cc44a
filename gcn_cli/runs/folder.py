"""Where runs live: runs/<stem>/ with the model file, metrics.jsonl, previews/ and samples/.

One job at a time in a run's folder: a lock that a killed job does not leave behind.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gcn_cli.errors import BusyError, InputError
from gcn_cli.images import names_file, write_bytes

log = logging.getLogger(__name__)

ROOT = Path("runs")
MODEL = "model.safetensors"


def run_for(sources: list[str]) -> Path:
    """The default folder of a training: named after its first source."""
    name = "stdin" if sources[0] == "-" else Path(os.path.abspath(sources[0])).stem
    return ROOT / name


def refuse_inside(sources: Sequence[str], run: str) -> None:
    """Raise InputError where a training would learn from files of its own run."""
    folder = Path(run).absolute()
    for source in sources:
        if source != "-" and folder in Path(source).absolute().parents:
            raise InputError(f"{source}: lies in {run}, where the run goes; move it, or use -o")


def make_folder(run: Path) -> None:
    """Make a run's folder, where it is not there. Raises InputError where none can be written."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_bytes(run / ".writable", b"")
        (run / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"--output {run}: {error.strerror}; name a folder that can be written"
        ) from error


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


def map_path(path: str, name: str) -> Path:
    """Where one of several linked maps goes: its name before the ending."""
    whole = Path(path)
    return whole.with_name(f"{whole.stem}-{name}{whole.suffix}") if name else whole


def next_free(folder: Path, stem: str) -> int:
    """The first number that no <stem>-NNNN.png in `folder` has."""
    names = (path.stem.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*.png"))
    taken = [name.partition("-")[0] for name in names]  # a linked map's name comes after
    return max((int(number) for number in taken if number.isdigit()), default=0) + 1


@dataclass(frozen=True)
class OutputFile:
    """Where one picture goes: picture `number` of a seed.

    A `default` name is not the user's: where another job takes it, the next free name will do.
    """

    path: str
    seed: int
    number: int
    default: bool = False


def next_target(target: OutputFile) -> OutputFile:
    """The same picture under the next free name, for a default name that was taken meanwhile."""
    path = Path(target.path)
    stem, _, number = path.stem.rpartition("-")
    # A folder on a network may not yet list the file that took the name.
    free = max(next_free(path.parent, stem), int(number) + 1)
    return replace(target, path=str(_numbered(path.parent, free)))


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"sample-{number:04d}.png"


def sample_targets(
    output: str | None,
    run: Path,
    seeds: Sequence[int],
    count: int,
    size: tuple[int, int],
    *,
    maps: Sequence[str] = ("",),
) -> list[OutputFile]:
    """Where `count` pictures of each seed go: a file, a folder, a template, "-" for stdout.

    By default the next free names in the run's samples/. A template has {seed}, {index} (of the
    picture among those of its seed, from 0), {size} (width x height) and {model}. Raises InputError
    where several pictures would share a file.
    """
    jobs = [(seed, number) for seed in seeds for number in range(count)]
    if output is not None and "{" in output:
        paths = [_filled(output, run, seed, number, size) for seed, number in jobs]
        if len(set(paths)) < len(paths):
            raise InputError(
                f"--output {output}: several pictures of one name; add {{seed}}{{index}}"
            )
    elif output == "-" or (output is not None and names_file(output)):
        if len(jobs) > 1:
            raise InputError(
                f"--output {output}: one file for {len(jobs)} pictures; name a folder, or use "
                "{seed} and {index} in the name"
            )
        paths = [output]
    else:
        folder = run / "samples" if output is None else Path(output)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output {output}: is no folder, nor a picture by its name")
        first = next_free(folder, "sample") if output is None else 1
        paths = [str(_numbered(folder, first + k)) for k in range(len(jobs))]
    if "-" in paths and len(maps) > 1:
        raise InputError(f"--output -: a picture of {len(maps)} linked maps; name a file or folder")
    default = output is None
    return [OutputFile(path, *job, default) for path, job in zip(paths, jobs, strict=True)]


Existing = Literal["refuse", "overwrite", "skip"]
"""What becomes of files that are there already."""


def to_make(
    targets: Sequence[OutputFile], maps: Sequence[str], existing: Existing
) -> list[OutputFile]:
    """Those of `targets` that are to be made. Raises InputError where a file is in the way."""
    left = []
    for target in targets:
        files = [map_path(target.path, name) for name in maps if target.path != "-"]
        if existing == "skip" and files and all(path.exists() for path in files):
            continue
        for path in files:
            refuse_existing(path, target.default or existing != "refuse")
        left.append(target)
    return left


def reconstruction_targets(output: str, sources: Sequence[str], variants: int | None) -> list[Path]:
    """Where pictures made of `sources` go: a file, or a folder of files named after the sources.

    With a number of `variants` each source has so many, numbered from 1. Raises InputError where
    several pictures would share a file.
    """
    if names_file(output):
        if len(sources) * (variants or 1) > 1:
            raise InputError(f"--output {output}: one file for several pictures; name a folder")
        return [Path(output)]
    numbers = [""] if variants is None else [f"-{k + 1}" for k in range(variants)]
    stems = ["stdin" if source == "-" else Path(source).stem for source in sources]
    paths = [Path(output) / f"{stem}{number}.png" for stem in stems for number in numbers]
    if len(set(paths)) < len(paths):
        raise InputError(f"--output {output}: two pictures of one name; give each its own command")
    return paths


def _filled(template: str, run: Path, seed: int, number: int, size: tuple[int, int]) -> str:
    known = {"seed": seed, "index": number, "size": f"{size[0]}x{size[1]}"}
    try:
        path = template.format(**known, model=run.resolve().name)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"--output {template}: a template knows {{seed}}, {{index}}, {{size}} and {{model}}"
        ) from error
    if not names_file(path):
        raise InputError(f"--output {template}: must end in a picture format, as .png")
    return path


LOCK_NAME = ".lock"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is there.

    The system takes it back when the process ends, however that comes about; the empty file stays.
    Raises BusyError where another process has it. No lock where the system has none (Windows).
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (run / LOCK_NAME).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{run}: another job is training here; wait for it, or name another run with -o"
            ) from error
        yield


def refuse_newer(run: Path) -> None:
    """Raise BusyError where another job has trained in a folder since this one did not find it."""
    if (run / MODEL).exists():
        raise BusyError(
            f"{run}: another job has trained here since this one began; the same command again "
            "goes on from there, or name another run with -o"
        )
