"""docs/batch.md is true: its commands run, its keys are those printed, its scripts work."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.running import gcn, gcn_process

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "batch.md").read_text()
SMALL = [
    "--layers", "4@5,4@3/2", "--crop", "16", "--margin", "2", "--preview-every", "0",
    "--iterations", "4", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    noise = Image.effect_noise((40, 32), 60).convert("RGB")
    noise.save(folder / "texture.jpg")
    (folder / "textures").mkdir()
    for number in range(2):
        noise.save(folder / "textures" / f"t{number}.png")
    assert gcn("train", "texture.jpg", *SMALL, "-o", "run", cwd=folder).returncode == 0
    return folder


def commands() -> list[list[str]]:
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    Image.effect_noise((40, 32), 60).convert("RGB").save(tmp_path / "texture.jpg")
    (tmp_path / "textures").mkdir()
    Image.effect_noise((40, 32), 60).save(tmp_path / "textures" / "gray.png")
    ran = 0
    for name, *words in commands():
        short = SMALL if "train" in words else []
        if name == "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", *words, *short]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, check=False, env=environment, timeout=99
            )
        else:
            done = gcn(*words, *short, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr.decode())
        ran += 1
    assert ran == 8


def keys_of(row: str) -> set[str]:
    """The names in the second cell of a row of the page's tables, up to "of each"."""
    (cell,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", cell.partition(": of each")[0])) | set(
        re.findall(r"`(\w+)`", cell.partition("and `picture`")[1])
    )


COMMON = {"command", "seconds", "versions"}
COMPUTING = COMMON | {"device", "precision", "threads", "peak_memory_mib"}


@pytest.mark.parametrize(
    ("row", "words", "common"),
    [
        ("train", ["train", "texture.jpg", *SMALL, "-o", "run"], COMPUTING),
        ("train --each", ["train", "--each", "textures", *SMALL, "-o", "each"], COMMON),
        ("train --dry-run", ["train", "texture.jpg", *SMALL, "--dry-run", "-o", "new"], COMMON),
        ("synthesize", ["synthesize", "--model", "run", "-o", "s.png", "--overwrite"], COMPUTING),
        ("synthesize --dry-run", ["synthesize", "--model", "run", "--dry-run"], COMPUTING),
        ("reconstruct", ["reconstruct", "texture.jpg", "--model", "run", "-o", "r"], COMPUTING),
        ("inspect", ["inspect", "--model", "run", "--levels", "--picture", "texture.jpg"], COMMON),
    ],
)
def test_the_keys_of_every_object_are_those_of_the_page(
    row: str, words: list[str], common: set[str], here: Path
) -> None:
    done = (
        gcn_process(*words, "--json", cwd=here)
        if "--each" in words
        else gcn(*words, "--json", cwd=here)
    )
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    optional = {"quality"} if row == "synthesize" else set()
    assert printed.keys() - optional == common | keys_of(row)
    files = printed.get("files", printed.get("runs", []))
    assert all(f"`{key}`" in PAGE for one in files for key in one)


def test_a_dry_run_touches_nothing(here: Path) -> None:
    before = sorted(path for path in here.rglob("*"))
    done = gcn("train", "texture.jpg", *SMALL, "--dry-run", "-o", "elsewhere", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    assert b"expected_seconds: " in done.stdout
    done = gcn("synthesize", "--model", "run", "--size", "96", "--dry-run", cwd=here)
    assert b"evaluations: 25" in done.stdout
    assert sorted(path for path in here.rglob("*")) == before


def test_quiet_says_nothing_and_errors_are_still_said(here: Path) -> None:
    done = gcn("train", "texture.jpg", *SMALL, "-q", "-o", "quiet", cwd=here)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"quiet\n", b"")
    failed = gcn("train", "missing.jpg", "-q", cwd=here)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    loud = gcn("train", "texture.jpg", *SMALL, "-v", "-o", "loud", cwd=here)
    assert b"saved as after iteration 4" in loud.stderr
    both = gcn("train", "texture.jpg", "-q", "-v", cwd=here)
    assert both.returncode == 2
    assert b"--quiet, --verbose: give one of them" in both.stderr


def test_each_goes_on_past_a_bad_picture(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    Image.effect_noise((40, 32), 60).save(tmp_path / "textures" / "a [red] one.png")
    (tmp_path / "textures" / "bad.png").write_bytes(b"no picture")
    words = ["train", "--each", "textures", "-o", "out", *SMALL]
    done = gcn(*words, "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b"out/a [red] one\n"
    assert b"1 of 2 pictures failed; the table says why" in done.stderr
    assert b"exit code 2" in done.stderr
    assert not (tmp_path / "out" / "bad").exists()
    (tmp_path / "textures" / "bad.png").unlink()
    again = gcn(*words, cwd=tmp_path)
    assert again.returncode == 0
    assert b"complete, 4 iterations" in again.stderr
    for more, message in (
        (["--with", "x.png"], b"--with and --mask go with one picture"),
        (["--dry-run"], b"--each, --dry-run"),
    ):
        refused = gcn(*words, *more, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
    alone = gcn("train", "x.png", "--jobs", "2", cwd=tmp_path)
    assert b"--jobs: is for --each" in alone.stderr
    (tmp_path / "textures" / "a [red] one.jpg").touch()
    twins = gcn(*words, cwd=tmp_path)
    assert b"--each: two pictures named a [red] one" in twins.stderr


def begun(command: list[str], cwd: Path, model: Path) -> "subprocess.Popen[bytes]":
    """A command in a process of its own, once a model file is there."""
    environment = {**os.environ, "PATH": f"{stubs(cwd)}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while process.poll() is None and not model.exists():
        time.sleep(0.05)
    return process


def stubs(folder: Path) -> Path:
    """Stand-ins for a cluster's commands, and the installed gcn and torchrun."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    for name, text in (
        ("scontrol", '[ "$1" = show ] && echo localhost || echo "scontrol $*"'),
        ("srun", 'exec "$@"'),
        ("gcn", f'exec {sys.executable} -m gcn_cli "$@"'),
        ("torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"'),
    ):
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    return place


LONG = [*SMALL, "--iterations", "1000000", "--save-every", "0.1s"]


def test_a_signal_to_each_is_handed_on(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    for name in "ab":
        Image.effect_noise((40, 32), 60).save(tmp_path / "textures" / f"{name}.png")
    command = [sys.executable, "-m", "gcn_cli", "train", "--each", "textures", *LONG]
    process = begun(command, tmp_path, tmp_path / "runs" / "a" / "model.safetensors")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said.decode()
    assert b"SIGTERM: 2 of 2 pictures left; saved, the same command goes on" in said
    assert not (tmp_path / "runs" / "b").exists()


@pytest.fixture
def array_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in ("a.b", "c d"):
        Image.effect_noise((40, 32), 60).save(tmp_path / "pictures" / f"{name}.png")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    return tmp_path


def test_an_array_task_trains_its_picture_and_asks_to_come_again(array_task: Path) -> None:
    script = ["bash", str(ROOT / "examples/slurm/array.sbatch"), "pictures", "out"]
    model = array_task / "out" / "c d" / "model.safetensors"
    preempted = begun([*script, *LONG], array_task, model)
    preempted.send_signal(signal.SIGUSR1)
    said, _ = preempted.communicate(timeout=60)
    assert preempted.returncode == 0, said.decode()
    assert b"scontrol requeue 7_2" in said
    whole = begun([*script, *SMALL, "--overwrite"], array_task, Path("none"))
    said, _ = whole.communicate(timeout=60)
    assert whole.returncode == 0, said.decode()
    assert len(list((model.parent / "made").iterdir())) == 4
    assert not (array_task / "out" / "a.b").exists()


def test_many_gpus_as_two_processes_here(array_task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("JOB_ID", "7"), ("NNODES", "1"), ("JOB_NODELIST", "localhost")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = (ROOT / "examples/slurm/many_gpus.sbatch").read_text().replace("0-99", "0-3")
    (array_task / "job").write_text(script.replace(":29400", ":0"))
    done = begun(
        ["bash", "job", "pictures/a.b.png", "out/run", "2", *SMALL], array_task, Path("none")
    )
    said, _ = done.communicate(timeout=90)
    assert done.returncode == 0, said.decode()
    assert len(list((array_task / "out" / "run" / "made").iterdir())) == 4


def test_a_folder_by_xargs(array_task: Path) -> None:
    script = ["sh", str(ROOT / "examples/xargs.sh"), "pictures", "out", "2"]
    done = begun([*script, *SMALL], array_task, Path("none"))
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0, said.decode()
    assert sorted(path.name for path in (array_task / "out").iterdir()) == ["a.b", "c d"]


def test_tensorboard_has_measures_and_previews(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "texture.jpg", *SMALL, "--tensorboard", "-o", "board"]
    done = gcn(*words, "--preview-every", "2", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    (events,) = (here / "board" / "tensorboard").iterdir()
    written = events.read_bytes()
    assert all(name in written for name in (b"loss", b"likelihood", b"samples"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    without = gcn(*words, "--overwrite", cwd=here)
    assert without.returncode == 2
    assert b"--tensorboard: needs TensorBoard; pip install 'gcn-cli[tensorboard]'" in without.stderr
