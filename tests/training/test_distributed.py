"""Processes that share a job, started as users start them: by torchrun, over gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli.checkpoint import Checkpoint, load
from gcn_cli.errors import InputError
from gcn_cli.training.distributed import SINGLE_PROCESS, ProcessGroup
from tests.cli.running import gcn

LADDER = ["--layers", "4@5,4@3/2", "--crop", "16", "--margin", "2", "--iterations", "10"]
OCTAVES = [*LADDER, "--octaves", "2", "--batch-size", "2"]  # one image for two processes
CONTRAST = [
    "--learner", "cd", "--size", "16", "--layers", "4@5/2+2", "--iterations", "4",
    "--batch-size", "3",
]  # fmt: skip
CHAINS = [
    "--learner", "mle", "--size", "16", "--layers", "4@5/2+2,4@3+1", "--iterations", "3",
    "--chains", "3",
]  # fmt: skip
MACHINE = ["--preview-every", "0", "--threads", "1", "--device", "cpu", "--precision", "float32"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    noise = Image.effect_noise((40, 32), 60).convert("RGB")
    noise.save(tmp_path / "texture.png")
    (tmp_path / "folder").mkdir()
    for number in range(5):
        noise.crop((number, 0, number + 16, 16)).save(tmp_path / "folder" / f"{number}.png")
    return tmp_path


def launcher(processes: int, *more: str) -> list[str]:
    words = ["--nproc-per-node", str(processes), "--standalone", *more]
    return [sys.executable, "-m", "torch.distributed.run", *words, "-m", "gcn_cli"]


def together(processes: int, *words: str, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
    command = [*launcher(processes), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, env=ENVIRONMENT, timeout=120)  # noqa: PLW1510


def assert_close(one: Checkpoint, other: Checkpoint, tolerance: float) -> None:
    assert one.iteration == other.iteration
    for name, tensor in one.learner_state.items():
        found = other.learner_state[name]
        if tensor.is_floating_point():
            largest = float(tensor.abs().max())
            torch.testing.assert_close(found, tensor, rtol=0, atol=tolerance * max(largest, 1e-3))
        else:  # random states, counts
            assert torch.equal(found, tensor), name


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("texture.png", LADDER),
        ("texture.png", OCTAVES),
        ("folder", CONTRAST),
        ("texture.png", CHAINS),
    ],
)
def test_two_processes_learn_what_one_does(source: str, settings: list[str], here: Path) -> None:
    alone = gcn("train", source, *settings, *MACHINE, "-o", "one", cwd=here)
    assert alone.returncode == 0, alone.stderr.decode()
    done = together(2, "train", source, *settings, *MACHINE, "-o", "two", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"two\n"  # of both, the first speaks
    one, two = (load(here / run / "model.safetensors") for run in ("one", "two"))
    assert_close(one, two, 1e-3)


def test_another_number_of_processes_goes_on(here: Path) -> None:
    words = ["train", "texture.png", *LADDER, *MACHINE]
    alone = gcn(*words, "-o", "whole", cwd=here)
    assert alone.returncode == 0, alone.stderr.decode()
    cut = together(3, *words, "-o", "cut", "--max-time", "0.01s", cwd=here)
    assert cut.returncode == 0, cut.stderr.decode()
    assert load(here / "cut" / "model.safetensors").iteration == 1
    rest = gcn(*words, "-o", "cut", cwd=here)
    assert rest.returncode == 0, rest.stderr.decode()
    one, two = (load(here / run / "model.safetensors") for run in ("whole", "cut"))
    assert_close(one, two, 1e-3)


def test_processes_share_seeds_and_an_interrupted_job_makes_what_is_missing(here: Path) -> None:
    assert gcn("train", "texture.png", *LADDER, *MACHINE, "-o", "run", cwd=here).returncode == 0
    words = ["synthesize", "--model", "run", "--seeds", "0-4", "--size", "32", "--threads", "1"]
    assert gcn(*words, "-o", "one", cwd=here).returncode == 0
    done = together(2, *words, "-o", "two", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    names = [f"sample-{number:04d}.png" for number in range(1, 6)]
    assert sorted(path.name for path in (here / "two").iterdir()) == names
    assert all((here / "one" / n).read_bytes() == (here / "two" / n).read_bytes() for n in names)
    (here / "two" / names[2]).unlink()
    again = gcn(*words, "-o", "two", "--skip-existing", cwd=here)
    assert again.stdout.decode() == f"two/{names[2]}\n"
    assert (here / "one" / names[2]).read_bytes() == (here / "two" / names[2]).read_bytes()
    unnamed = together(2, *words, cwd=here)
    assert unnamed.returncode == 1
    assert b"several processes share the pictures; name a folder" in unnamed.stderr


def test_torchrun_starts_anew_when_a_process_is_lost(here: Path) -> None:
    words = ["train", "texture.png", *LADDER[:-1], "400", *MACHINE, "-o", "run"]
    command = [*launcher(2, "--max-restarts", "1"), *words]
    with subprocess.Popen(command, cwd=here, env=ENVIRONMENT, stderr=subprocess.PIPE) as job:
        metrics = here / "run" / "metrics.jsonl"
        while job.poll() is None and not (
            metrics.exists() and len(metrics.read_bytes().splitlines()) > 60
        ):
            time.sleep(0.02)
        os.kill(last_of(job.pid), signal.SIGKILL)
        _, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors.decode()
    assert b"another process of this job was lost" in errors
    assert b"going on after iteration" in errors
    assert load(here / "run" / "model.safetensors").iteration == 400


def last_of(parent: int) -> int:
    """The youngest child of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return max(found)


def test_shares_are_all_of_it_and_no_image_twice() -> None:
    for count in (1, 2, 3, 4):
        shares = [ProcessGroup(rank, count).share(7) for rank in range(count)]
        assert [k for one in shares for k in range(7)[one]] == list(range(7))
    with pytest.raises(InputError, match="--batch-size 2: fewer than the 3 processes"):
        ProcessGroup(0, 3).refuse_fewer("--batch-size", 2)


def test_alone_nothing_is_exchanged() -> None:
    values = torch.arange(3.0)
    SINGLE_PROCESS.sum_([values])
    assert values.tolist() == [0, 1, 2]
    assert SINGLE_PROCESS.gathered(values, 3) is values
    assert SINGLE_PROCESS.any(True)
    with SINGLE_PROCESS.together():
        pass
