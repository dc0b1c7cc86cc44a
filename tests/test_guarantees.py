"""docs/guarantees.md is true: keys of the JSON objects, exit codes, signals, cluster scripts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.running import gcn, gcn_process
from tests.commands import DOCS, ROOT, SMALL_TEXTURE

pytestmark = pytest.mark.slow

PAGE = (DOCS / "guarantees.md").read_text()
LONG = [*SMALL_TEXTURE, "--iterations", "1000000", "--save-every", "0.1s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a folder of two, and a finished run."""
    folder = tmp_path_factory.mktemp("guarantees")
    noise = Image.effect_noise((40, 32), 60).convert("RGB")
    noise.save(folder / "texture.jpg")
    (folder / "textures").mkdir()
    for index in range(2):
        noise.save(folder / "textures" / f"t{index}.png")
    assert gcn("train", "texture.jpg", *SMALL_TEXTURE, "-o", "run", cwd=folder).returncode == 0
    return folder


def keys_of(row: str) -> tuple[set[str], set[str]]:
    """The keys in a row of the page's tables: of the object, and of each of its entries."""
    (cell,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", PAGE, re.MULTILINE)
    whole, _, entries = cell.partition(": ")
    return tuple(set(re.findall(r"`(\w+)`", part)) for part in (whole, entries))  # type: ignore[return-value]


COMMON = {"command", "seconds", "versions"}
COMPUTING = COMMON | {"device", "precision", "threads", "peak_memory_mib"}
MODEL = ("--model", "run")


@pytest.mark.parametrize(
    ("row", "words", "common"),
    [
        ("train", ["train", "texture.jpg", *SMALL_TEXTURE, "-o", "run"], COMPUTING),
        ("train --each", ["train", "--each", "textures", *SMALL_TEXTURE, "-o", "each"], COMMON),
        (
            "train --dry-run",
            ["train", "texture.jpg", *SMALL_TEXTURE, "--dry-run", "-o", "new"],
            COMMON,
        ),
        ("synthesize", ["synthesize", "--model", "run", "-o", "s.png", "--overwrite"], COMPUTING),
        ("synthesize --dry-run", ["synthesize", "--model", "run", "--dry-run"], COMPUTING),
        (
            "reconstruct",
            ["reconstruct", "texture.jpg", *MODEL, "--steps", "2", "-o", "r"],
            COMPUTING,
        ),
        ("inspect", ["inspect", *MODEL], COMMON),
        (
            "inspect image",
            ["inspect", "image", "texture.jpg", *MODEL, "--unusual", "m.png"],
            COMMON,
        ),
        ("inspect levels", ["inspect", "levels", *MODEL], COMMON),
        ("inspect compare", ["inspect", "compare", "texture.jpg", "run", "run"], COMMON),
        ("inspect IMAGE", ["inspect", "run/samples/run-0-0.png"], COMMON),
        ("inspect FOLDER", ["inspect", "."], COMMON),
    ],
)
def test_the_keys_of_every_object_are_those_of_the_page(
    row: str, words: list[str], common: set[str], folder: Path
) -> None:
    if row == "inspect IMAGE":
        gcn("synthesize", *MODEL, "--seed", "0", "--skip-existing", cwd=folder)
    run = gcn_process if "--each" in words else gcn
    done = run(*words, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    keys, entry_keys = keys_of(row)
    optional = {"synthesize": {"quality", "sheet"}, "train": {"report"}}.get(row, set())
    assert printed.keys() - optional == (common | keys) - optional
    for value in printed.values():
        for entry in value if isinstance(value, list) and row != "inspect" else ():
            if isinstance(entry, dict):
                assert entry.keys() <= entry_keys
    if row in ("inspect image", "inspect IMAGE"):
        assert printed["image" if row == "inspect image" else "record"].keys() <= entry_keys


def test_a_dry_run_touches_nothing(folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*"))
    done = gcn("train", "texture.jpg", *SMALL_TEXTURE, "--dry-run", "-o", "elsewhere", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert b"expected_seconds: " in done.stdout
    done = gcn("synthesize", "--model", "run", "--size", "96", "--dry-run", cwd=folder)
    assert b"evaluations: 25" in done.stdout
    assert sorted(path for path in folder.rglob("*")) == before


def test_quiet_prints_errors_only(folder: Path) -> None:
    done = gcn("train", "texture.jpg", *SMALL_TEXTURE, "-q", "-o", "quiet", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"quiet\n", b"")
    failed = gcn("train", "missing.jpg", "-q", cwd=folder)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    loud = gcn("train", "texture.jpg", *SMALL_TEXTURE, "-v", "-o", "loud", cwd=folder)
    assert b"saved after iteration 4" in loud.stderr
    both = gcn("train", "texture.jpg", "-q", "-v", cwd=folder)
    assert both.returncode == 2
    assert b"--quiet, --verbose: give one of them" in both.stderr


def test_each_continues_after_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    Image.effect_noise((40, 32), 60).save(tmp_path / "textures" / "a [red] one.png")
    (tmp_path / "textures" / "bad.png").write_bytes(b"no picture")
    words = ["train", "--each", "textures", "-o", "out", *SMALL_TEXTURE]
    done = gcn(*words, "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b"out/a [red] one\n"
    assert b"1 of 2 trainings failed; the lines above say why" in done.stderr
    assert b"exit code 2" in done.stderr
    assert not (tmp_path / "out" / "bad").exists()
    (tmp_path / "textures" / "bad.png").unlink()
    again = gcn(*words, cwd=tmp_path)
    assert again.returncode == 0
    assert b"complete, 4 iterations" in again.stderr
    for more, message in (
        (["--map", "textures/a [red] one.png"], b"--each, --map: is for one image"),
        (["--dry-run"], b"--each, --dry-run"),
    ):
        refused = gcn(*words, *more, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
    alone = gcn("train", "x.png", "--jobs", "2", cwd=tmp_path)
    assert b"--jobs: is for --each" in alone.stderr
    (tmp_path / "textures" / "a [red] one.jpg").touch()
    twins = gcn(*words, cwd=tmp_path)
    assert b"--each: two images named a [red] one" in twins.stderr


def started(command: list[str], cwd: Path, model: Path) -> "subprocess.Popen[bytes]":
    """A command in its own process, once the model file exists."""
    environment = {**os.environ, "PATH": f"{stubs(cwd)}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while process.poll() is None and not model.exists():
        time.sleep(0.05)
    return process


def stubs(folder: Path) -> Path:
    """A folder of stand-ins for the commands of a cluster, and of gcn and torchrun."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in (
        ("scontrol", '[ "$1" = show ] && echo localhost || echo "scontrol $*"'),
        ("srun", 'exec "$@"'),
        ("gcn", f'exec {sys.executable} -m gcn_cli "$@"'),
        ("torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return programs


def test_each_passes_signals_on(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    for name in "ab":
        Image.effect_noise((40, 32), 60).save(tmp_path / "textures" / f"{name}.png")
    command = [sys.executable, "-m", "gcn_cli", "train", "--each", "textures", *LONG]
    process = started(command, tmp_path, tmp_path / "runs" / "a" / "model.safetensors")
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output.decode()
    assert b"SIGHUP: 2 of 2 trainings are not finished; saved; run the same command again" in output
    assert not (tmp_path / "runs" / "b").exists()


@pytest.fixture
def array_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.b", "c d"):
        Image.effect_noise((40, 32), 60).save(tmp_path / "images" / f"{name}.png")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    return tmp_path


def test_an_array_task_trains_its_image_and_requeues_itself(array_task: Path) -> None:
    script = ["bash", str(ROOT / "examples/slurm/array.sbatch"), "images", "out"]
    model = array_task / "out" / "c d" / "model.safetensors"
    preempted = started([*script, *LONG], array_task, model)
    preempted.send_signal(signal.SIGUSR1)
    output, _ = preempted.communicate(timeout=60)
    assert preempted.returncode == 0, output.decode()
    assert b"scontrol requeue 7_2" in output
    whole = started([*script, *SMALL_TEXTURE, "--overwrite"], array_task, Path("none"))
    output, _ = whole.communicate(timeout=60)
    assert whole.returncode == 0, output.decode()
    assert len(list((model.parent / "samples").iterdir())) == 4
    assert not (array_task / "out" / "a.b").exists()


def test_many_gpus_with_two_processes(array_task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("JOB_ID", "7"), ("NNODES", "1"), ("JOB_NODELIST", "localhost")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = (ROOT / "examples/slurm/many_gpus.sbatch").read_text().replace("0-99", "0-3")
    (array_task / "job").write_text(script.replace(":29400", ":0"))
    done = started(
        ["bash", "job", "images/a.b.png", "out/run", "2", *SMALL_TEXTURE], array_task, Path("none")
    )
    output, _ = done.communicate(timeout=90)
    assert done.returncode == 0, output.decode()
    assert len(list((array_task / "out" / "run" / "samples").iterdir())) == 4


def test_a_folder_by_xargs(array_task: Path) -> None:
    script = ["sh", str(ROOT / "examples/xargs.sh"), "images", "out", "2"]
    done = started([*script, *SMALL_TEXTURE], array_task, Path("none"))
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 0, output.decode()
    assert sorted(path.name for path in (array_task / "out").iterdir()) == ["a.b", "c d"]


def test_tensorboard_has_metrics_and_previews(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "texture.jpg", *SMALL_TEXTURE, "--tensorboard", "-o", "board"]
    done = gcn(*words, "--preview-every", "2", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    (events,) = (folder / "board" / "tensorboard").iterdir()
    written = events.read_bytes()
    assert all(name in written for name in (b"loss", b"likelihood", b"samples"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    without = gcn(*words, "--overwrite", cwd=folder)
    assert without.returncode == 2
    assert b"--tensorboard: needs TensorBoard; pip install 'gcn-cli[tensorboard]'" in without.stderr
