"""Where runs and samples are found, and the lock of a run."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

import gcn_cli as gcn
from gcn_cli import images
from gcn_cli.errors import BusyError, InputError
from gcn_cli.images import TextureMap
from gcn_cli.images.engines import plain_layout
from gcn_cli.runs import folder
from gcn_cli.runs.folder import (
    OutputFile,
    check_run,
    next_seed,
    outputs_to_write,
    reconstruction_outputs,
    run_lock,
    run_name,
    sample_outputs,
)
from gcn_cli.runs.session import Session
from tests.small import SMALL_TEXTURE, small_image


def test_the_newest_run_is_the_default_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="gcn_cli")
    with pytest.raises(InputError, match="no runs"):
        folder.model_path(None)
    for age, name in ((50, "old"), (10, "new"), (30, "middle")):
        path = tmp_path / "runs" / name / folder.MODEL_FILE
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert folder.model_path(None) == Path("runs/new") / folder.MODEL_FILE
    assert "model: runs/new" in caplog.text
    assert folder.model_path("runs/old") == Path("runs/old") / folder.MODEL_FILE
    (tmp_path / "other.safetensors").touch()
    assert folder.model_path("other.safetensors") == Path("other.safetensors")
    (tmp_path / "old").mkdir()  # of images, say
    assert folder.model_path("old") == Path("runs/old") / folder.MODEL_FILE
    for name in ("olt", "runs/olt"):
        with pytest.raises(InputError, match=f"^{name}: .* did you mean runs/old\\?"):
            folder.model_path(name)
    with pytest.raises(InputError, match=r"^bark: no such model file or run; gcn inspect lists"):
        folder.model_path("bark")
    assert folder.default_run(["-"]) == Path("runs/stdin")
    assert folder.default_run([f"{tmp_path}/brick.wall.png"]) == Path("runs/brick.wall")


def test_the_next_seed_follows_the_largest_of_the_same_model(tmp_path: Path) -> None:
    model, samples = tmp_path / "bark" / folder.MODEL_FILE, tmp_path / "bark" / "samples"
    assert next_seed(None, model) == (0, samples)
    samples.mkdir(parents=True)
    for name in ("bark-2-0.png", "bark-7-1_albedo.webp", "bark-mine.png", "moss-9-0.png", "12.txt"):
        (samples / name).touch()
    assert next_seed(None, model) == (8, samples)
    record = {"software": "gcn 1", "command": "gcn synthesize", "model": "bark", "seed": 30}
    images.write(torch.zeros(3, 4, 4), str(samples / "tile.jpg"), record=record)
    images.write(torch.zeros(3, 4, 4), str(samples / "m.png"), record={**record, "model": "moss"})
    for output in (str(samples), str(samples / "new.png"), str(samples / "x-{seed}.tga")):
        assert next_seed(output, model) == (31, samples)
    for output in ("-", str(samples / "{seed}" / "a.png")):
        assert next_seed(output, model) == (0, None)


def names_of(outputs: list[OutputFile], maps: list[str]) -> list[str]:
    return [Path(path).name for output in outputs for path in output.paths(maps)]


def test_a_single_material_in_a_given_folder_has_no_numbers(tmp_path: Path) -> None:
    maps, model = ["albedo", "normal"], tmp_path / "bark" / folder.MODEL_FILE

    def outputs(output: Path | None, *, count: int = 1, is_material: bool = True) -> list[str]:
        target = None if output is None else str(output)
        layout = plain_layout([TextureMap(name, kind=name * is_material) for name in maps])
        files = sample_outputs(target, model, [3], count, (8, 8), layout=layout)
        return names_of(files, maps)

    assert outputs(tmp_path / "out") == ["bark_albedo.png", "bark_normal.png"]
    assert outputs(tmp_path / "out", is_material=False)[0] == "bark-3-0_albedo.png"
    assert outputs(None)[0] == "bark-3-0_albedo.png"
    assert outputs(tmp_path / "out", count=2)[2:] == ["bark-3-1_albedo.png", "bark-3-1_normal.png"]
    assert outputs(tmp_path / "x.tif") == ["x_albedo.tif", "x_normal.tif"]
    record = {"software": "gcn 1", "command": "gcn synthesize", "model": "bark", "seed": 3}
    images.write(torch.zeros(3, 4, 4), str(tmp_path / "out" / "bark_albedo.png"), record=record)
    assert next_seed(str(tmp_path / "out"), model) == (4, tmp_path / "out")


def test_templates_name_the_map(tmp_path: Path) -> None:
    model, maps = tmp_path / "bark" / folder.MODEL_FILE, ["albedo", "normal"]
    layout = plain_layout([TextureMap(name) for name in maps])
    (output,) = sample_outputs("{map}/{model}.v2-{seed}.png", model, [3], 1, (8, 8), layout=layout)
    assert output.paths(maps) == [f"{name}/bark.v2-3.png" for name in maps]
    (output,) = sample_outputs("{model}-{seed}.png", model, [3], 1, (8, 8), layout=layout)
    assert names_of([output], maps) == ["bark-3_albedo.png", "bark-3_normal.png"]
    with pytest.raises(InputError, match=r"\{map\} is for linked maps"):
        sample_outputs("{model}-{map}.png", model, [3], 1, (8, 8))
    with pytest.raises(InputError, match=r"knows \{seed\}, .* and \{map\}, and numbers"):
        sample_outputs("{name}.png", model, [3], 1, (8, 8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert next_seed(str(tmp_path), tmp_path / "bark" / folder.MODEL_FILE)[0] == 0
    (tmp_path / "a.png").touch()
    assert images.expand_sources([str(tmp_path)]) == [str(tmp_path / "a.png")]


def test_samples_go_to_folders_and_images_only(tmp_path: Path) -> None:
    (tmp_path / "samples").touch()
    for output in (str(tmp_path / "samples"), None):
        with pytest.raises(InputError, match="/samples: is neither a folder nor named like an im"):
            sample_outputs(output, tmp_path / "model.safetensors", [0], 1, (8, 8))
    (sample,) = sample_outputs("a.png/", tmp_path / "model.safetensors", [0], 1, (8, 8))
    assert Path(sample.path).parent == Path("a.png")
    (sample,) = sample_outputs("{seed:03}.png", tmp_path / "model.safetensors", [7], 1, (8, 8))
    assert sample.path == "007.png"
    (sample,) = sample_outputs(".//a/{seed}.png", tmp_path / "model.safetensors", [7], 1, (8, 8))
    assert sample.path == "a/7.png"


@pytest.mark.parametrize("output", [None, "{model}-{seed:06}.png"])
def test_a_hundred_thousand_names_take_no_objects_of_their_own(
    output: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of many files are text: a path object of each takes most of a minute for a million."""
    created: list[Path] = []

    def counted(*parts: str) -> Path:
        created.append(Path(*parts))
        return created[-1]

    monkeypatch.setattr("gcn_cli.runs.folder.Path", counted)
    model = tmp_path / "bark" / folder.MODEL_FILE
    outputs = sample_outputs(output, model, range(1000), 1, (8, 8))
    assert len(outputs_to_write(outputs, [""], "refuse")) == 1000
    assert len(created) < 20


def test_sources_lie_outside_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    for name in ("texture.png", "run/kept.png"):
        (tmp_path / name).touch()
    (tmp_path / "run" / "inside.png").symlink_to(tmp_path / "texture.png")
    (tmp_path / "outside.png").symlink_to(tmp_path / "run" / "kept.png")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    for source, run in (
        (f"{tmp_path}/run/a/b.png", f"{tmp_path}/run"),
        ("kept.png", "."),
        ("inside.png", "../run"),
        ("../outside.png", "."),
        ("../link/kept.png", "."),
        ("kept.png", "../link"),
        (".", "."),
    ):
        with pytest.raises(InputError, match=r"lies in .*, where the run goes"):
            check_run([source], run)
    for sources, run in (
        (["-", "../texture.png"], "."),
        ([f"{tmp_path}/texture.png"], "../link"),
        (["../run/../texture.png"], "."),
        (["."], "below"),
    ):
        check_run(sources, run)


def test_runs_are_named_after_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = tmp_path.name
    for source, expected in (
        (".", name),
        ("a/..", name),
        ("b/...png", "...png"),
        ("..png", "..png"),
    ):
        assert run_name(source) == expected


def test_a_template_is_refused_where_none_is_filled_in(tmp_path: Path) -> None:
    for output in ("{seed}.png", "out/{model}-{index:03}.png", "{map}"):
        with pytest.raises(
            InputError, match=r"reconstruct fills in no \{\.\.\.\}; name a file, or a f"
        ):
            reconstruction_outputs(output, ["a.png"], None)
    assert reconstruction_outputs("{a}.png", ["a.png"], None) == [Path("{a}.png")]


LONG, BYTES = "é" * 125 + "a", os.fsdecode(b"caf\xe9")


def test_names_are_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    (numbered, other) = reconstruction_outputs(str(tmp_path), [f"{LONG}.png", f"{LONG}b.png"], 1)
    assert numbered != other
    (plain,) = reconstruction_outputs(str(tmp_path), [f"{LONG}.png"], None)
    assert plain.name == f"{LONG}.png"
    model = tmp_path / f"{LONG}b.safetensors"
    (sample,) = sample_outputs(str(tmp_path), model, [3], 1, (8, 8))
    linked = Path(folder.map_path(sample.path, LONG))
    for path in (numbered, other, plain, linked):
        path.touch()
    assert len(os.fsencode(Path(sample.path).name)) == 255
    third = Path(sample.with_free_name().with_free_name().path).name
    assert (third[-6:], len(os.fsencode(third))) == ("-3.png", 255)
    assert folder.map_path(f"{BYTES}.png", "gray") == f"{BYTES}_gray.png"


def test_impossible_names_and_links_to_nothing_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "link.png", "exists; add --overwrite"),
        (tmp_path / f"{LONG}{LONG}.png", "File name too long; use another name"),
        (tmp_path / "file" / "a.png", "Not a directory; use another name"),
    ):
        with pytest.raises(InputError, match=message):
            outputs_to_write([OutputFile(str(path), 0, 0)], [""], "refuse")
    with pytest.raises(InputError, match=r"--output .*: File name too long"):
        check_run(["-"], str(tmp_path / LONG / f"{LONG}{LONG}"))
    with pytest.raises(InputError, match=r"--model .*: File name too long"):
        folder.model_path(LONG * 2)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_training_goes_on_where_there_are_no_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level("WARNING", logger="gcn_cli"), run_lock(tmp_path):
        pass
    (warning,) = caplog.messages
    assert os.strerror(number) in warning


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from gcn_cli.runs.folder import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(BusyError, match="another job is training here"), run_lock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    with run_lock(tmp_path):
        pass


@pytest.fixture
def other_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExitStack]:
    """A job that creates the folder and takes its lock while the tested one begins."""
    run, begin = tmp_path / "run", Session.begin
    with ExitStack() as stack:

        def overtaken(*arguments: Any) -> Session:
            session = begin(*arguments)
            run.mkdir()
            stack.enter_context(run_lock(run))
            (run / folder.MODEL_FILE).write_bytes(b"the other's")
            return session

        monkeypatch.setattr(Session, "begin", overtaken)
        yield stack


def test_the_later_of_two_jobs_is_refused(other_job: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(BusyError, match="another job is training here"):
        gcn.train(small_image(), output=tmp_path / "run", iterations=2, **SMALL_TEXTURE)
    assert (tmp_path / "run" / folder.MODEL_FILE).read_bytes() == b"the other's"


def test_the_later_job_does_not_overwrite_the_model_of_the_other(
    other_job: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = folder._lock

    def later(file: BinaryIO, run: Path) -> bool:  # the lock is taken after it
        other_job.close()
        return lock(file, run)

    monkeypatch.setattr(folder, "_lock", later)
    with pytest.raises(BusyError, match="another job has trained here since"):
        gcn.train(small_image(), output=tmp_path / "run", iterations=2, **SMALL_TEXTURE)
    assert (tmp_path / "run" / folder.MODEL_FILE).read_bytes() == b"the other's"
