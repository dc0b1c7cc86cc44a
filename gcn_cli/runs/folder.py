"""A run's folder, runs/<stem>/: its lock, its model file, and the names of the files written.

A run holds model.safetensors, metrics.jsonl, previews/ and samples/.
"""

import hashlib
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Any, BinaryIO, Literal

from gcn_cli.errors import BusyError, InputError
from gcn_cli.images import FORMATS, is_image_file, read_record
from gcn_cli.images.engines import ENGINES, Layout
from gcn_cli.images.provenance import contradiction

log = logging.getLogger(__name__)

RUNS = Path("runs")
MODEL_FILE = "model.safetensors"
MAX_IMAGES = 1_000_000  # of one command
LONGEST_NAME = 255  # bytes, on most file systems
TEMPLATE_FIELD = re.compile(r"\{(seed|index|size|model|map)\b")
MAP_PLACE = "\0"  # stands for {map} in the path of an image; no file's name has it


def default_run(sources: Sequence[str]) -> Path:
    """The folder of a training without --output, named after the first source."""
    return RUNS / ("stdin" if sources[0] == "-" else run_name(sources[0]))


def run_name(source: str) -> str:
    """The name of the run of an image or a folder: its name without suffix."""
    path = Path(os.path.abspath(source))
    return path.stem if path.stem.strip(".") else path.name  # the stem of "...png" is ".."


def model_path(run: str | None) -> Path:
    """The model file of a run (a folder, the file itself, or a name under runs/).

    None is the newest run, which is logged. A run without a model file has a path, too: reading it
    raises InputError. Raises InputError for what is no file and no run.
    """
    if run is not None:
        there, path = _exists(Path(run), "--model "), Path(run)
        named = RUNS / run / MODEL_FILE
        if not (path.is_file() or (path / MODEL_FILE).exists()) and named.exists():
            return named
        if there:
            return path / MODEL_FILE if path.is_dir() and path.name != MODEL_FILE else path
        raise InputError(f"{run}: no such model file or run{_similar_run(run)}")
    files = sorted(RUNS.glob(f"*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise InputError(f"no runs under {RUNS}/; train one with 'gcn train IMAGE', or use --model")
    log.info("model: %s", files[-1].parent)
    return files[-1]


def _similar_run(name: str) -> str:
    """The remedy for the name of a run that is not there."""
    runs = {path.parent.name: path.parent for path in RUNS.glob(f"*/{MODEL_FILE}")}
    similar = get_close_matches(Path(name).name, runs, 1)
    if similar:
        return f"; did you mean {runs[similar[0]]}?"
    return "; gcn inspect lists the runs" if runs else "; train one with 'gcn train IMAGE'"


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
    """The file, or files of linked maps, of one image: the image `index` (from 0) of a seed.

    A `default` name was not chosen by the user and gives way if it is taken; `copy` is its number.
    `beside` is the suffix of a file that describes the material of the images.
    """

    path: str
    seed: int
    index: int
    default: bool = False
    copy: int = 1
    beside: str = ""

    def paths(self, maps: Sequence[str]) -> list[str]:
        """The image files, one for each name of a linked map; "-" is stdout."""
        return [map_path(self.path, name) for name in maps]

    @property
    def material(self) -> str | None:
        """The file that describes the material of the images, if one is written."""
        if not self.beside:
            return None
        path = Path(self.path)
        return str(path.with_name(fitting(path.stem, self.beside)))

    def all_paths(self, maps: Sequence[str]) -> list[str]:
        """All files that are written."""
        return self.paths(maps) + ([] if self.material is None else [self.material])

    def with_free_name(self, maps: Sequence[str] = ("",)) -> "OutputFile":
        """The same image under the next free name, <name>-2.png or above; `maps`: linked maps."""
        path = Path(self.path)
        stem = path.stem if self.copy == 1 else path.stem.removesuffix(f"-{self.copy}")
        for copy in itertools.count(self.copy + 1):
            name = path.with_name(fitting(stem, f"-{copy}{path.suffix}"))
            free = replace(self, path=str(name), copy=copy)
            if not any(map(_exists, free.all_paths(maps))):
                return free
        raise AssertionError("numbers do not end")


Existing = Literal["refuse", "overwrite", "skip", "update"]
"""What happens to output files that exist: update replaces those that were made otherwise."""


def model_name(model: Path) -> str:
    """The name of a model file: that of its run, or its own if it has one."""
    return model.parent.resolve().name if model.name == MODEL_FILE else model.stem


def sample_outputs(
    output: str | None,
    model: Path,
    seeds: Sequence[int],
    count: int,
    size: tuple[int, int],
    *,
    layout: Layout | None = None,
) -> list[OutputFile]:
    """The files of `count` images for each seed, by --output.

    A file, a folder, "-" for stdout, or a template with {seed}, {index}, {size} (WIDTHxHEIGHT),
    {model} and {map}; None is the folder samples/ beside the model file. In folders the names are
    {model}-{seed}-{index}.png, and that of a single material in a given folder is {model}.png;
    `layout` has the names of its files, which follow. `size` is (width, height). Raises InputError
    if several images would share a file.
    """
    engine = None if layout is None else layout.engine
    maps = [""] if layout is None else layout.names
    name = f"{engine.prefix if engine else ''}{model_name(model)}"
    if len(seeds) * count > MAX_IMAGES:
        raise InputError(
            f"--count {count}: {len(seeds) * count} images, one command makes {MAX_IMAGES} at most"
        )
    images = [(seed, index) for seed in seeds for index in range(count)]
    if output is not None and "{" in output:
        template = _checked_template(output)
        fields = {"size": f"{size[0]}x{size[1]}", "map": MAP_PLACE, "model": model_name(model)}
        paths = [template.format(seed=seed, index=index, **fields) for seed, index in images]
        if not is_image_file(paths[0]):
            raise InputError(f"--output {output}: must end in an image format such as .png")
        if len(set(paths)) < len(paths):
            raise InputError(
                f"--output {output}: several images get one name; add {{seed}}{{index}}"
            )
        if len(maps) == 1 and any(MAP_PLACE in path for path in paths):
            raise InputError(f"--output {output}: {{map}} is for linked maps; this model has none")
    elif output == "-" or (output is not None and is_image_file(output)):
        if len(images) > 1:
            raise InputError(
                f"--output {output}: one file for {len(images)} images; name a folder, or use "
                "{seed} and {index} in the name"
            )
        paths = [str(Path(output))]
    else:
        folder = _samples_folder(output, model)
        assert folder is not None
        if _exists(folder, "--output ") and not folder.is_dir():
            raise InputError(
                f"--output {folder}: is neither a folder nor named like an image; name another"
            )
        endings = [f"-{seed}-{index}.png" for seed, index in images]
        if layout is not None and layout.is_material and output is not None and len(images) == 1:
            endings = [".png"]
        place = str(folder / "-")[:-1]
        paths = [place + fitting(name, ending) for ending in endings]
    if "-" in paths and len(maps) > 1:
        raise InputError(f"--output -: an image has {len(maps)} linked maps; name a file or folder")
    default, beside = output is None, engine.beside if engine else ""
    return [
        OutputFile(path, *image, default, beside=beside)
        for path, image in zip(paths, images, strict=True)
    ]


def next_seed(output: str | None, model: Path) -> tuple[int, Path | None]:
    """The seed after the largest of this model's images in the folder of --output, and the folder.

    Images are known by their names, or by their records. Seed 0 where there are none, and where no
    folder can be told: of stdout, and of templates of folders.
    """
    folder, name, last = _samples_folder(output, model), model_name(model), -1
    if folder is None or not folder.is_dir():
        return 0, folder
    prefixes = "|".join({re.escape(engine.prefix) for engine in ENGINES.values()})
    for path in folder.iterdir():
        named = re.fullmatch(rf"(?:{prefixes}){re.escape(name)}-(\d+)-\d+([-_].*)?", path.stem)
        if named is not None:
            last = max(last, int(named[1]))
        elif path.suffix.lower() in FORMATS:
            record = read_record(path) or {}
            seed, is_sample = record.get("seed"), "synthesize" in str(record.get("command"))
            if record.get("model") == name and is_sample and isinstance(seed, int):
                last = max(last, seed)
    return last + 1, folder


def _samples_folder(output: str | None, model: Path) -> Path | None:
    """The folder of the images by --output; None if it is none, or differs between images."""
    if output is None:
        return model.parent / "samples"
    if output == "-" or "{" in os.path.dirname(output):
        return None
    return Path(output).parent if "{" in output or is_image_file(output) else Path(output)


def reconstruction_outputs(output: str, sources: Sequence[str], variants: int | None) -> list[Path]:
    """The files of images made from `sources`: one file, or a folder of files named after them.

    `variants` is the number of images for each source, numbered from 1; None is one, without a
    number. Raises InputError if several images would share a file.
    """
    if TEMPLATE_FIELD.search(output):
        raise InputError(
            f"--output {output}: reconstruct fills in no {{...}}; name a file, or a folder, where "
            "results are named after each IMAGE and numbered by --count"
        )
    if is_image_file(output):
        if len(sources) * (variants or 1) > 1:
            raise InputError(f"--output {output}: one file for several images; name a folder")
        return [Path(output)]
    if len(sources) * (variants or 1) > MAX_IMAGES:
        raise InputError(f"--count {variants}: one command makes {MAX_IMAGES} images at most")
    endings = [""] if variants is None else [f"-{k + 1}" for k in range(variants)]
    stems = ["stdin" if source == "-" else Path(source).stem for source in sources]
    paths = [Path(output) / fitting(stem, f"{ending}.png") for stem in stems for ending in endings]
    if len(set(paths)) < len(paths):
        raise InputError(f"--output {output}: two images get one name; run a command for each")
    return paths


def outputs_to_write(
    outputs: Sequence[OutputFile],
    maps: Sequence[str],
    existing: Existing,
    expected: Callable[[OutputFile], Mapping[str, Any]] | None = None,
) -> list[OutputFile]:
    """The outputs that are left to write. Raises InputError if a file exists and must not be.

    To skip or update, an image is there if all its maps are, and if their records do not contradict
    what is `expected` of the output.
    """
    left = []
    for output in outputs:
        paths = output.all_paths(maps) if output.path != "-" else []
        there = [path for path in paths if _exists(path)]
        if there and existing in ("skip", "update"):
            assert expected is not None
            made = [path for path in there if path != output.material]  # images, with records
            found = ((path, contradiction(path, expected(output))) for path in made)
            others = [(path, words) for path, words in found if words is not None]
            if others and existing == "skip":
                raise InputError(
                    f"{others[0][0]}: {others[0][1]}; add --overwrite to replace it, or name "
                    "another folder"
                )
            if len(there) == len(paths) and not others:
                continue
        elif there and output.default and existing == "refuse":
            output = output.with_free_name(maps)  # noqa: PLW2901
        elif there:
            refuse_existing(there[0], existing != "refuse")
        left.append(output)
    return left


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise InputError if a file exists and --overwrite is not given, or its name is impossible."""
    if _exists(path) and not overwrite:
        raise InputError(f"{path}: exists; add --overwrite to replace it, or name another")


def _exists(path: str | Path, option: str = "") -> bool:
    """Whether a name is in use, also by a link to nothing. Raises InputError if it cannot be."""
    try:
        os.lstat(path)
    except FileNotFoundError as error:
        name = os.fsencode(path)
        if len(name) <= LONGEST_NAME or all(
            len(os.fsencode(part)) <= LONGEST_NAME for part in Path(path).parts
        ):
            return False
        raise InputError(f"{option}{path}: File name too long; use another name") from error
    except OSError as error:
        raise InputError(f"{option}{path}: {error.strerror}; use another name") from error
    return True


def map_path(path: str, name: str) -> str:
    """The file of a linked map: its name is put in the place of {map}, or before the suffix."""
    if not name or MAP_PLACE in path:
        return path.replace(MAP_PLACE, name)
    file = Path(path)
    return str(file.with_name(fitting(f"{file.stem}_{name}", file.suffix)))


def fitting(stem: str, ending: str) -> str:
    """A file name of at most 255 bytes; a checksum keeps names different that are cut."""
    encoded, room = os.fsencode(stem), LONGEST_NAME - len(os.fsencode(ending))
    if len(encoded) > room:
        checksum = hashlib.sha256(encoded).hexdigest()[:8]
        stem = f"{encoded[: room - 9].decode(errors='ignore')}-{checksum}"
    return f"{stem}{ending}"


def _checked_template(template: str) -> str:
    """A template for `str.format`. Raises InputError for unknown fields."""
    known = ("seed", "index", "size", "map", "model")
    try:
        for _, name, width, conversion in Formatter().parse(template):
            if name is not None and (name not in known or conversion is not None):
                raise KeyError(name)
            if width and (
                name not in ("seed", "index") or not re.fullmatch(r"0?[1-9]\d?d?", width)
            ):
                raise ValueError(width)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"--output {template}: a template knows {{seed}}, {{index}}, {{size}}, {{model}} and "
            "{map}, and numbers with zeros, as {seed:03}"
        ) from error
    return template if template.endswith("/") else str(Path(template))
