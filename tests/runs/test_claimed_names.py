"""Two jobs that choose the same name: neither loses its picture."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gcn_cli.cli.synthesize import write_all
from gcn_cli.images import TextureMap, open_picture, writing
from gcn_cli.images.writing import TakenError, write_bytes
from gcn_cli.model import Model
from gcn_cli.runs.folder import OutputFile, sample_targets, to_make
from tests.cli.running import TEXTURE, gcn

ONE, TWO = [TextureMap("", "RGB", 8)], [TextureMap("albedo", "RGB", 8), TextureMap("rough", "L", 8)]


def pictures(maps: list[TextureMap], count: int, taken: Path | None = None) -> Iterator[Tensor]:
    """Pictures of 8x8 pixels, of gray 10, 20, ...; before the first a file takes a name."""
    if taken is not None:
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_bytes(b"another's")
    for number in range(count):
        yield torch.full((sum(one.channels for one in maps), 8, 8), 10.0 * (number + 1))


def written(
    targets: list[OutputFile],
    maps: list[TextureMap],
    taken: Path | None,
    *,
    overwrite: bool = False,
) -> list[str]:
    """The names of the files that are written."""
    made = pictures(maps, len(targets), taken)
    kinds = [maps] * len(targets)
    records = write_all(targets, made, kinds, as_json=True, overwrite=overwrite)
    return [Path(one["path"]).name for one in records]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_default_name_taken_meanwhile_gives_way(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "samples"
    targets = sample_targets(None, tmp_path, [0], 2, (8, 8))
    taken = folder / "sample-0001.png"
    names = written(targets, ONE, taken, overwrite=overwrite)
    assert names == ["sample-0002.png", "sample-0003.png"]
    assert taken.read_bytes() == b"another's"
    assert left_in(folder) == ["sample-0001.png", *names]
    assert [float(open_picture(str(folder / name)).values.mean()) for name in names] == [10, 20]


@pytest.mark.parametrize("name", ["albedo", "rough"])
def test_linked_maps_keep_one_number(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "samples"
    targets = sample_targets(None, tmp_path, [0], 1, (8, 8), maps=["albedo", "rough"])
    taken = folder / f"sample-0001-{name}.png"
    names = written(targets, TWO, taken)
    assert names == ["sample-0002-albedo.png", "sample-0002-rough.png"]
    assert left_in(folder) == [taken.name, *names]


def test_a_default_name_taken_before_the_work_is_no_reason_to_stop(tmp_path: Path) -> None:
    targets = sample_targets(None, tmp_path, [0], 1, (8, 8))
    write_bytes(Path(targets[0].path), b"another's")
    assert to_make(targets, [""], "refuse") == targets


def test_a_name_of_the_user_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    asked = str(tmp_path / "mine.png")
    targets = sample_targets(asked, tmp_path, [0], 1, (8, 8), maps=["albedo", "rough"])
    taken = tmp_path / "mine-rough.png"
    with pytest.raises(TakenError, match=r"mine-rough\.png: .* name another file, or add --over"):
        written(targets, TWO, taken)
    assert taken.read_bytes() == b"another's"
    assert left_in(tmp_path) == [taken.name]
    assert written(targets, TWO, taken, overwrite=True) == ["mine-albedo.png", "mine-rough.png"]
    assert taken.read_bytes() != b"another's"


@pytest.mark.parametrize("links", [True, False])
def test_of_two_at_once_one_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Both have written all of it before either gives it the name."""
    ready = threading.Barrier(2, timeout=60)

    def last_thing_before() -> int:
        ready.wait()
        return 0o022

    monkeypatch.setattr(writing, "_umask", last_thing_before)
    if not links:
        monkeypatch.setattr(os, "link", refuse_to_link)
    ended: dict[bytes, str] = {}

    def write(data: bytes) -> None:
        try:
            write_bytes(tmp_path / "file", data, new=True)
            ended[data] = "written"
        except TakenError:
            ended[data] = "taken"

    jobs = [threading.Thread(target=write, args=(data,)) for data in (b"one", b"two")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(ended.values()) == ["taken", "written"]
    assert ended[(tmp_path / "file").read_bytes()] == "written"
    assert left_in(tmp_path) == ["file"]


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
    assert left_in(tmp_path) == []


def test_the_commands_keep_a_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    writing.write(255 * pixels, str(tmp_path / "texture.png"))
    words = ["texture.png", *TEXTURE, "--iterations", "2", "-o", "run"]
    assert gcn("train", *words, cwd=tmp_path).returncode == 0
    taken = tmp_path / "run" / "samples" / "sample-0001.png"
    monkeypatch.setattr(Model, "samples", lambda *_, **__: pictures(ONE, 1, taken))
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
