"""Two jobs that choose the same name: neither loses its image."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gcn_cli.cli.output import write_all
from gcn_cli.errors import TakenError
from gcn_cli.images import TextureMap, read_image, writing
from gcn_cli.images.writing import write_bytes
from gcn_cli.model import Model
from gcn_cli.runs.folder import OutputFile, outputs_to_write, sample_outputs
from tests.cli.running import TEXTURE, gcn

ONE, TWO = [TextureMap("", "RGB", 8)], [TextureMap("albedo", "RGB", 8), TextureMap("rough", "L", 8)]


def images_of(maps: list[TextureMap], count: int, taken: Path | None = None) -> Iterator[Tensor]:
    """Images of 8x8 pixels, gray 10, 20, ...; another job writes `taken` before the first."""
    if taken is not None:
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_bytes(b"another's")
    channels = sum(texture_map.channels for texture_map in maps)
    for index in range(count):
        yield torch.full((channels, 8, 8), 10.0 * (index + 1))


def written(
    outputs: list[OutputFile],
    maps: list[TextureMap],
    taken: Path | None,
    *,
    overwrite: bool = False,
) -> list[str]:
    """The names of the files that are written."""
    samples = images_of(maps, len(outputs), taken)
    records = write_all(outputs, samples, [maps] * len(outputs), as_json=True, overwrite=overwrite)
    return [Path(record["path"]).name for record in records]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_default_name_taken_meanwhile_gives_way(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "samples"
    outputs = sample_outputs(None, tmp_path, [0], 2, (8, 8))
    taken = folder / "sample-0001.png"
    names = written(outputs, ONE, taken, overwrite=overwrite)
    assert names == ["sample-0002.png", "sample-0003.png"]
    assert taken.read_bytes() == b"another's"
    assert files_in(folder) == ["sample-0001.png", *names]
    assert [float(read_image(str(folder / name)).pixels.mean()) for name in names] == [10, 20]


@pytest.mark.parametrize("name", ["albedo", "rough"])
def test_linked_maps_share_one_number(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "samples"
    outputs = sample_outputs(None, tmp_path, [0], 1, (8, 8), maps=["albedo", "rough"])
    taken = folder / f"sample-0001-{name}.png"
    names = written(outputs, TWO, taken)
    assert names == ["sample-0002-albedo.png", "sample-0002-rough.png"]
    assert files_in(folder) == [taken.name, *names]


def test_a_default_name_taken_before_sampling_is_not_refused(tmp_path: Path) -> None:
    outputs = sample_outputs(None, tmp_path, [0], 1, (8, 8))
    write_bytes(Path(outputs[0].path), b"another's")
    assert outputs_to_write(outputs, [""], "refuse") == outputs


def test_an_explicit_name_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    output = str(tmp_path / "mine.png")
    outputs = sample_outputs(output, tmp_path, [0], 1, (8, 8), maps=["albedo", "rough"])
    taken = tmp_path / "mine-rough.png"
    with pytest.raises(TakenError, match=r"mine-rough\.png: .* name another file, or add --over"):
        written(outputs, TWO, taken)
    assert taken.read_bytes() == b"another's"
    assert files_in(tmp_path) == [taken.name]
    assert written(outputs, TWO, taken, overwrite=True) == ["mine-albedo.png", "mine-rough.png"]
    assert taken.read_bytes() != b"another's"


@pytest.mark.parametrize("links", [True, False])
def test_one_of_two_simultaneous_writers_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Both have written their file before either renames it."""
    ready = threading.Barrier(2, timeout=60)

    def wait() -> int:  # called just before the rename
        ready.wait()
        return 0o022

    monkeypatch.setattr(writing, "_umask", wait)
    if not links:
        monkeypatch.setattr(os, "link", refuse_to_link)
    results: dict[bytes, str] = {}

    def write(data: bytes) -> None:
        try:
            write_bytes(tmp_path / "file", data, new=True)
            results[data] = "written"
        except TakenError:
            results[data] = "taken"

    jobs = [threading.Thread(target=write, args=(data,)) for data in (b"one", b"two")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(results.values()) == ["taken", "written"]
    assert results[(tmp_path / "file").read_bytes()] == "written"
    assert files_in(tmp_path) == ["file"]


def refuse_to_link(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_without_links_no_empty_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse_to_link)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "file", b"new", new=True)
    assert files_in(tmp_path) == []


def test_the_commands_keep_a_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    writing.write(255 * pixels, str(tmp_path / "texture.png"))
    words = ["texture.png", *TEXTURE, "--iterations", "2", "-o", "run"]
    assert gcn("train", *words, cwd=tmp_path).returncode == 0
    taken = tmp_path / "run" / "samples" / "sample-0001.png"
    monkeypatch.setattr(Model, "samples", lambda *_, **__: images_of(ONE, 1, taken))
    done = gcn("synthesize", "--model", "run", cwd=tmp_path)
    assert done.stdout == b"run/samples/sample-0002.png\n"
    taken = tmp_path / "mine.png"
    words = ["synthesize", "--model", "run", "-o", "mine.png"]
    failed = gcn(*words, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"gcn: error: mine.png: another job wrote it meanwhile")
    assert len(failed.stderr.splitlines()) == 1
    assert taken.read_bytes() == b"another's"
    assert gcn(*words, "--overwrite", cwd=tmp_path).returncode == 0
    assert taken.read_bytes() != b"another's"
    taken = tmp_path / "sheet.png"
    failed = gcn("synthesize", "--model", "run", "--sheet", "sheet.png", cwd=tmp_path)
    assert failed.returncode == 1
    assert taken.read_bytes() == b"another's"
