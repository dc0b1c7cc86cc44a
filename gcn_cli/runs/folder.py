"""A run's folder, runs/<stem>/: its lock, its model file, and the names of the files written.

A run holds model.safetensors, metrics.jsonl, previews/ and samples/.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from gcn_cli.errors import BusyError, InputError
from gcn_cli.images import is_image_file

log = logging.getLogger(__name__)

RUNS = Path("runs")
MODEL_FILE = "model.safetensors"
LONGEST_NAME = 255  # bytes, on most file systems


def default_run(sources: Sequence[str]) -> Path:
    """The folder of a training without --output, named after the first source."""
    return RUNS / ("stdin" if sources[0] == "-" else run_name(sources[0]))


def run_name(source: str) -> str:
    """The name of the run of an image or a folder: its name without suffix."""
    path = Path(os.path.abspath(source))
    return path.stem if path.stem.strip(".") else path.name  # the stem of "...png" is ".."


def model_path(run: str | None) -> Path:
    """The model file of a run (a folder or the file itself); None is the newest run, logged."""
    if run is not None:
        _exists(Path(run), "--model ")
        path = Path(run)
        return path / MODEL_FILE if path.is_dir() else path
    files = sorted(RUNS.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise InputError(f"no runs under {RUNS}/; train one with 'gcn train IMAGE', or use --model")
    log.info("model: %s", files[-1].parent)
    return files[-1]


def check_run(sources: Sequence[str], run: str) -> None:
    """Raise InputError if a run cannot have this name, or a source lies in its folder.

    Links are followed: neither a link in the folder nor the file of a link may lie there.
    """
    _exists(Path(run), "--output ")
    folder = Path(os.path.realpath(run))
    for source in sources:
        file, parent = (Path(os.path.realpath(p)) for p in (source, os.path.dirname(source)))
        if source == "-" or folder.is_file():  # the run needs a folder, which is said later
            continue
        if folder in (file, *file.parents, parent, *parent.parents):
            raise InputError(f"{source}: lies in {run}, where the run goes; move it, or use -o")


@contextmanager
def run_lock(run: Path, *, new: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created; the system releases it after a crash.

    `new`: the run did not exist when the training began. Raises InputError if the folder cannot be
    written to, BusyError if another process holds the lock, or has trained a new run meanwhile.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("ab")
    except OSError as error:
        raise InputError(
            f"--output {run}: {error.strerror}; name a folder that can be written"
        ) from error
    with file:
        if not _lock(file, run):
            raise BusyError(
                f"{run}: another job is training here; wait for it, or name another run with -o"
            )
        if new and (run / MODEL_FILE).exists():
            raise BusyError(
                f"{run}: another job has trained here since this one began; run the same command "
                "again to resume it, or name another run with -o"
            )
        yield


def _lock(file: BinaryIO, run: Path) -> bool:
    """Lock a file until it is closed; false if another process holds the lock.

    True, with a warning, on a file system that has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        log.warning(
            "%s: no lock, the file system says: %s; start no second training in this folder",
            run, error.strerror,
        )  # fmt: skip
    return True


@dataclass(frozen=True)
class OutputFile:
    """The file of one image: the image `index` (from 0) of a seed.

    A `default` name was not chosen by the user and gives way if another job takes it.
    """

    path: str
    seed: int
    index: int
    default: bool = False

    def with_free_name(self) -> "OutputFile":
        """The same image under the next free number."""
        path = Path(self.path)
        stem, _, number = path.stem.rpartition("-")
        # A folder on a network may not list the file that took the name yet.
        free = max(next_free(path.parent, stem), int(number) + 1)
        return replace(self, path=_numbered(path.parent, free))


Existing = Literal["refuse", "overwrite", "skip"]
"""What happens to output files that exist."""


def sample_outputs(
    output: str | None,
    run: Path,
    seeds: Sequence[int],
    count: int,
    size: tuple[int, int],
    *,
    maps: Sequence[str] = ("",),
) -> list[OutputFile]:
    """The files of `count` images for each seed, by --output.

    A file, a folder, "-" for stdout, or a template with {seed}, {index}, {size} (WIDTHxHEIGHT) and
    {model}; None takes the next free names in the run's samples/. `size` is (width, height),
    `maps` the names of linked maps. Raises InputError if several images would share a file.
    """
    images = [(seed, index) for seed in seeds for index in range(count)]
    if output is not None and "{" in output:
        paths = [_from_template(output, run, seed, index, size) for seed, index in images]
        if len(set(paths)) < len(paths):
            raise InputError(
                f"--output {output}: several images get one name; add {{seed}}{{index}}"
            )
    elif output == "-" or (output is not None and is_image_file(output)):
        if len(images) > 1:
            raise InputError(
                f"--output {output}: one file for {len(images)} images; name a folder, or use "
                "{seed} and {index} in the name"
            )
        paths = [output]
    else:
        folder = run / "samples" if output is None else Path(output)
        if _exists(folder, "--output ") and not folder.is_dir():
            raise InputError(f"--output {output}: is neither a folder nor named like an image")
        first = next_free(folder, "sample") if output is None else 1
        paths = [_numbered(folder, first + k) for k in range(len(images))]
    if "-" in paths and len(maps) > 1:
        raise InputError(f"--output -: an image has {len(maps)} linked maps; name a file or folder")
    default = output is None
    return [OutputFile(path, *image, default) for path, image in zip(paths, images, strict=True)]


def reconstruction_outputs(output: str, sources: Sequence[str], variants: int | None) -> list[Path]:
    """The files of images made from `sources`: one file, or a folder of files named after them.

    `variants` is the number of images for each source, numbered from 1; None is one, without a
    number. Raises InputError if several images would share a file.
    """
    if is_image_file(output):
        if len(sources) * (variants or 1) > 1:
            raise InputError(f"--output {output}: one file for several images; name a folder")
        return [Path(output)]
    endings = [""] if variants is None else [f"-{k + 1}" for k in range(variants)]
    stems = ["stdin" if source == "-" else Path(source).stem for source in sources]
    paths = [Path(output) / fitting(stem, f"{ending}.png") for stem in stems for ending in endings]
    if len(set(paths)) < len(paths):
        raise InputError(f"--output {output}: two images get one name; run a command for each")
    return paths


def outputs_to_write(
    outputs: Sequence[OutputFile], maps: Sequence[str], existing: Existing
) -> list[OutputFile]:
    """The outputs that are left to write. Raises InputError if a file exists and must not be."""
    left = []
    for output in outputs:
        paths = [map_path(output.path, name) for name in maps if output.path != "-"]
        if existing == "skip" and paths and all(path.exists() for path in paths):
            continue
        for path in paths:
            refuse_existing(path, output.default or existing != "refuse")
        left.append(output)
    return left


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError if a file exists and --overwrite is not given, or its name is impossible."""
    if _exists(path) and not overwrite:
        raise InputError(f"{path}: exists; add --overwrite to replace it, or name another")


def _exists(path: Path, option: str = "") -> bool:
    """Whether a name is in use, also by a link to nothing. Raises InputError if it cannot be."""
    try:
        path.lstat()
    except FileNotFoundError as error:
        if all(len(os.fsencode(part)) <= LONGEST_NAME for part in path.parts):
            return False
        raise InputError(f"{option}{path}: File name too long; use another name") from error
    except OSError as error:
        raise InputError(f"{option}{path}: {error.strerror}; use another name") from error
    return True


def map_path(path: str, name: str) -> Path:
    """The file of a linked map: its name is put before the suffix."""
    file = Path(path)
    return file.with_name(fitting(f"{file.stem}-{name}", file.suffix)) if name else file


def fitting(stem: str, ending: str) -> str:
    """A file name of at most 255 bytes; a checksum keeps names different that are cut."""
    encoded, room = os.fsencode(stem), LONGEST_NAME - len(os.fsencode(ending))
    if len(encoded) > room:
        checksum = hashlib.sha256(encoded).hexdigest()[:8]
        stem = f"{encoded[: room - 9].decode(errors='ignore')}-{checksum}"
    return f"{stem}{ending}"


def next_free(folder: Path, stem: str) -> int:
    """The number after the largest of the files <stem>-NNNN.png and <stem>-NNNN-<map>.png."""
    names = (path.stem.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*.png"))
    numbers = (name.partition("-")[0] for name in names)
    return max((int(number) for number in numbers if number.isdigit()), default=0) + 1


def _numbered(folder: Path, number: int) -> str:
    return str(folder / f"sample-{number:04d}.png")


def _from_template(template: str, run: Path, seed: int, index: int, size: tuple[int, int]) -> str:
    fields = {"seed": seed, "index": index, "size": f"{size[0]}x{size[1]}"}
    try:
        path = template.format(**fields, model=run.resolve().name)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"--output {template}: a template knows {{seed}}, {{index}}, {{size}} and {{model}}"
        ) from error
    if not is_image_file(path):
        raise InputError(f"--output {template}: must end in an image format such as .png")
    return path
