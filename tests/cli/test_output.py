"""Two jobs that choose the same name: neither loses its image."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gcn_cli.cli import sample_files
from gcn_cli.cli.output import check_files, write_all
from gcn_cli.errors import TakenError
from gcn_cli.images import TextureMap, read_image, writing
from gcn_cli.images.engines import plain_layout
from gcn_cli.images.writing import write_bytes
from gcn_cli.model import Model
from gcn_cli.runs.folder import OutputFile, outputs_to_write, sample_outputs
from tests.cli.running import TEXTURE, gcn

SINGLE = [TextureMap("", "RGB", 8)]
LINKED = [TextureMap("albedo", "RGB", 8), TextureMap("rough", "L", 8)]
OTHER_JOB = b"written by another job"
ORIGIN = {"software": "gcn 1", "model": "run", "model_sha256": "00", "options": {}}


def model_in(folder: Path) -> Path:
    return folder / "run" / "model.safetensors"


def samples(maps: list[TextureMap], count: int, taken: Path | None = None) -> Iterator[Tensor]:
    """Images of 8x8 pixels of gray 10, 20, ...; another job takes a name before the first."""
    if taken is not None:
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_bytes(OTHER_JOB)
    for index in range(count):
        channels = sum(texture_map.channels for texture_map in maps)
        yield torch.full((channels, 8, 8), 10.0 * (index + 1))


def write(
    outputs: list[OutputFile],
    maps: list[TextureMap],
    taken: Path | None,
    *,
    overwrite: bool = False,
) -> list[str]:
    """Names of the files that are written."""
    images = samples(maps, len(outputs), taken)
    records = write_all(
        outputs,
        images,
        [plain_layout(maps)] * len(outputs),
        as_json=True,
        overwrite=overwrite,
        origins=repeat(ORIGIN),
    )
    return [Path(record["path"]).name for record in records]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_default_name_taken_meanwhile_changes_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    outputs = sample_outputs(None, tmp_path / "bark.safetensors", [3], 2, (8, 8))
    taken = folder / "bark-3-0.png"
    names = write(outputs, SINGLE, taken)
    assert names == ["bark-3-0-2.png", "bark-3-1.png"]
    assert taken.read_bytes() == OTHER_JOB
    assert names_in(folder) == sorted(["bark-3-0.png", *names])
    assert [float(read_image(str(folder / name)).pixels.mean()) for name in names] == [10, 20]
    assert write(outputs, SINGLE, taken) == ["bark-3-0-3.png", "bark-3-1-2.png"]
    assert write(outputs, SINGLE, taken, overwrite=True) == ["bark-3-0.png", "bark-3-1.png"]
    assert taken.read_bytes() != OTHER_JOB


@pytest.mark.parametrize("name", ["albedo", "rough"])
def test_linked_maps_share_one_number(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run" / "samples"
    outputs = sample_outputs(None, model_in(tmp_path), [0], 1, (8, 8), layout=plain_layout(LINKED))
    taken = folder / f"run-0-0_{name}.png"
    names = write(outputs, LINKED, taken)
    assert names == ["run-0-0-2_albedo.png", "run-0-0-2_rough.png"]
    assert names_in(folder) == sorted([taken.name, *names])


def test_a_default_name_taken_before_sampling_is_no_error(tmp_path: Path) -> None:
    outputs = sample_outputs(None, model_in(tmp_path), [0], 1, (8, 8))
    write_bytes(Path(outputs[0].path), OTHER_JOB)
    (free,) = outputs_to_write(outputs, [""], "refuse")
    assert Path(free.path).name == "run-0-0-2.png"
    assert outputs_to_write(outputs, [""], "overwrite") == outputs


def test_a_given_name_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    name = str(tmp_path / "mine.png")
    outputs = sample_outputs(name, model_in(tmp_path), [0], 1, (8, 8), layout=plain_layout(LINKED))
    taken = tmp_path / "mine_rough.png"
    with pytest.raises(TakenError, match=r"mine_rough\.png: .* name another file, or add --over"):
        write(outputs, LINKED, taken)
    assert taken.read_bytes() == OTHER_JOB
    assert names_in(tmp_path) == [taken.name]
    assert write(outputs, LINKED, taken, overwrite=True) == ["mine_albedo.png", "mine_rough.png"]
    assert taken.read_bytes() != OTHER_JOB


def test_skipping_jobs_make_what_is_missing_and_keep_what_appears(tmp_path: Path) -> None:
    """Two jobs with --skip-existing share a folder; the second finds files of the first."""
    outputs = sample_outputs(
        str(tmp_path), model_in(tmp_path), [0], 2, (8, 8), layout=plain_layout(LINKED)
    )
    taken = tmp_path / "run-0-0_albedo.png"
    pictures = samples(LINKED, 2, taken)
    records = write_all(
        outputs,
        pictures,
        [plain_layout(LINKED)] * 2,
        as_json=True,
        overwrite=False,
        skip_existing=True,
        origins=repeat(ORIGIN),
    )
    names = [Path(record["path"]).name for record in records]
    assert names == ["run-0-0_rough.png", "run-0-1_albedo.png", "run-0-1_rough.png"]
    assert names_in(tmp_path) == [taken.name, *names]
    assert taken.read_bytes() == OTHER_JOB


def test_an_image_with_alpha_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.rand(4, 48, 48, generator=torch.Generator().manual_seed(0))
    writing.write(255 * pixels, str(tmp_path / "soft.png"))
    train = ["train", "soft.png", "--alpha", "channel", *TEXTURE, "--iterations", "2", "-o", "run"]
    assert gcn(*train, cwd=tmp_path).returncode == 0

    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    for name in ("samples", "texture_metrics", "auto_encode", "denoise"):
        monkeypatch.setattr(Model, name, no_work)
    for words in (
        ["synthesize", "-o", "x.jpg"],
        ["synthesize", "-o", "{seed}.bmp", "--dry-run"],
        ["synthesize", "--sheet", "x.ppm"],
        ["synthesize", "-o", "x.jpg", "--json"],
        ["reconstruct", "soft.png", "-o", "x.jpg"],
        ["reconstruct", "soft.png", "--denoise", "auto", "-o", "x.jpg"],
        ["reconstruct", "soft.png", "--denoise", "auto", "-o", "x.psd"],
        ["reconstruct", "soft.png", "-o", "x.png", "--quality", "80"],
        ["inspect", "filters", "x.psd"],
    ):
        done = gcn(*words, "--model", "run", cwd=tmp_path)
        assert done.returncode == 2, words
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(b"gcn: error: ")
    assert names_in(tmp_path) == ["run", "soft.png"]
    assert not (tmp_path / "run" / "samples").exists()


def test_the_command_keeps_a_file_that_another_job_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    writing.write(255 * pixels, str(tmp_path / "texture.png"))
    done = gcn("train", "texture.png", *TEXTURE, "--iterations", "2", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0
    taken = tmp_path / "run" / "samples" / "run-0-0.png"
    monkeypatch.setattr(Model, "samples", lambda *_, **__: samples(SINGLE, 1, taken))
    done = gcn("synthesize", "--model", "run", cwd=tmp_path)
    assert done.stdout == b"run/samples/run-0-0-2.png\n"
    taken = tmp_path / "mine.png"
    arguments = ["synthesize", "--model", "run", "-o", "mine.png"]
    failed = gcn(*arguments, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"gcn: error: mine.png: another job wrote it meanwhile")
    assert len(failed.stderr.splitlines()) == 1
    assert taken.read_bytes() == OTHER_JOB
    assert gcn(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
    assert taken.read_bytes() != OTHER_JOB
    taken = tmp_path / "sheet.png"
    failed = gcn("synthesize", "--model", "run", "--sheet", "sheet.png", cwd=tmp_path)
    assert failed.returncode == 1
    assert taken.read_bytes() == OTHER_JOB


def test_one_file_of_each_format_and_map_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr("gcn_cli.images.check_format", lambda path, *_: checked.append(path))
    files = [
        (f"{seed}.{suffix}", one)
        for seed in range(9)
        for suffix in ("png", "tif")
        for one in LINKED
    ]
    check_files(files, (8, 8), None)
    assert checked == ["0.png", "0.png", "0.tif", "0.tif"]


def test_links_are_followed_only_for_a_sheet_or_a_lit_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following links takes most of the time of a million names."""
    followed: list[str] = []
    real = SimpleNamespace(path=SimpleNamespace(realpath=followed.append))
    monkeypatch.setattr(sample_files, "os", real)
    layout = plain_layout(SINGLE)
    outputs = sample_outputs("{seed}.png", model_in(Path()), range(9), 1, (8, 8), layout=layout)
    chosen, model = sample_files.OutputOptions(output="{seed}.png"), SimpleNamespace(maps=SINGLE)
    sample_files.check_sample_files(outputs, layout, cast(Any, model), chosen, (8, 8), None, None)
    assert followed == []
