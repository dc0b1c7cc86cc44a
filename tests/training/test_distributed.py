"""Processes that share a training or a job, started by torchrun as users do, over gloo."""

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
from tests.cli.running import Done, gcn
from tests.reading import read

pytestmark = pytest.mark.slow

TEXTURE = [
    "--set", "layers=4@5,4@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "10",
]  # fmt: skip
CASCADE = [*TEXTURE, "--set", "stages=2", "--batch-size", "2"]  # one image for two processes
CONTRASTIVE = [
    "--set", "learner=cd", "--resize", "16", "--set", "layers=4@5/2+2", "--iterations", "4",
    "--batch-size", "3",
]  # fmt: skip
PERSISTENT = [
    "--set", "learner=mle", "--resize", "16", "--set", "layers=4@5/2+2,4@3+1", "--iterations", "3",
    "--set", "chains=3",
]  # fmt: skip
MACHINE = ["--preview-every", "0", "--threads", "1", "--device", "cpu", "--precision", "float32"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with texture.png and images/ of five images."""
    noise = Image.effect_noise((40, 32), 60).convert("RGB")
    noise.save(tmp_path / "texture.png")
    (tmp_path / "images").mkdir()
    for number in range(5):
        noise.crop((number, 0, number + 16, 16)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def launcher(processes: int, *options: str) -> list[str]:
    torchrun = ["torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    return [sys.executable, "-m", *torchrun, *options, "-m", "gcn_cli"]


def torchrun(processes: int, *arguments: str, cwd: Path) -> Done:
    command = [*launcher(processes), *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, env=ENVIRONMENT, timeout=120, check=False
    )


def run_one(*arguments: str, cwd: Path) -> Done:
    """Run gcn in a single process, without error."""
    done = gcn(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done


def checkpoint(run: Path) -> Checkpoint:
    return load(run / "model.safetensors")


def assert_close(one: Checkpoint, other: Checkpoint, tolerance: float = 1e-3) -> None:
    assert one.iteration == other.iteration
    for name, tensor in one.trainer_state.items():
        twin = other.trainer_state[name]
        if tensor.is_floating_point() and tensor.numel():
            largest = float(tensor.abs().max())
            torch.testing.assert_close(twin, tensor, rtol=0, atol=tolerance * max(largest, 1e-3))
        else:  # random states, counts
            assert torch.equal(twin, tensor), name


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("texture.png", TEXTURE),
        ("texture.png", CASCADE),
        ("images", CONTRASTIVE),
        ("texture.png", PERSISTENT),
    ],
    ids=["texture", "cascade", "cd", "mle"],
)
def test_two_processes_train_the_model_of_one(
    source: str, settings: list[str], folder: Path
) -> None:
    run_one("train", source, *settings, *MACHINE, "-o", "one", cwd=folder)
    done = torchrun(2, "train", source, *settings, *MACHINE, "-o", "two", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"two\n"  # only the main process prints
    assert_close(checkpoint(folder / "one"), checkpoint(folder / "two"))


def test_resuming_with_another_number_of_processes(folder: Path) -> None:
    train = ["train", "texture.png", *TEXTURE, *MACHINE]
    run_one(*train, "-o", "whole", cwd=folder)
    stopped = torchrun(3, *train, "-o", "stopped", "--max-time", "0.01s", cwd=folder)
    assert stopped.returncode == 0, stopped.stderr.decode()
    assert checkpoint(folder / "stopped").iteration == 1
    run_one(*train, "-o", "stopped", cwd=folder)
    assert_close(checkpoint(folder / "whole"), checkpoint(folder / "stopped"))


def test_processes_share_the_seeds_and_skip_existing_files(folder: Path) -> None:
    run_one("train", "texture.png", *TEXTURE, *MACHINE, "-o", "run", cwd=folder)
    synthesize = ["synthesize", "--model", "run", "--seed", "0-4", "--size", "32", "--threads", "1"]
    run_one(*synthesize, "-o", "one", cwd=folder)
    done = torchrun(2, *synthesize, "-o", "two", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    names = [f"run-{seed}-0.png" for seed in range(5)]
    one, two = folder / "one", folder / "two"
    assert sorted(path.name for path in two.iterdir()) == names
    assert all(torch.equal(read(one / name), read(two / name)) for name in names)
    (two / names[2]).unlink()
    resumed = run_one(*synthesize, "-o", "two", "--skip-existing", cwd=folder)
    assert resumed.stdout.decode() == f"two/{names[2]}\n"
    assert torch.equal(read(one / names[2]), read(two / names[2]))
    piped = torchrun(2, *synthesize[:3], "-o", "-", cwd=folder)
    assert piped.returncode == 1
    assert b"several processes share the images; name a folder" in piped.stderr


def test_torchrun_restarts_when_a_process_is_lost(folder: Path) -> None:
    train = ["train", "texture.png", *TEXTURE[:-1], "400", *MACHINE, "-o", "run"]
    command = [*launcher(2, "--max-restarts", "1"), *train]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE) as job:
        metrics = folder / "run" / "metrics.jsonl"
        while job.poll() is None and not (
            metrics.exists() and len(metrics.read_bytes().splitlines()) > 60
        ):
            time.sleep(0.02)
        os.kill(youngest_child(job.pid), signal.SIGKILL)
        _, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors.decode()
    assert b"another process of this job was lost" in errors
    assert b"resumed after iteration" in errors
    assert checkpoint(folder / "run").iteration == 400


def youngest_child(parent: int) -> int:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            children.append(int(stat.parent.name))
    return max(children)


def test_shards_cover_all_images_once() -> None:
    for world_size in (1, 2, 3, 4):
        shards = [ProcessGroup(rank, world_size).shard(7) for rank in range(world_size)]
        assert [k for shard in shards for k in range(7)[shard]] == list(range(7))
    with pytest.raises(InputError, match="--batch-size 2: fewer than the 3 processes"):
        ProcessGroup(0, 3).require_images("--batch-size", 2)


def test_single_process_exchanges_nothing() -> None:
    values = torch.arange(3.0)
    SINGLE_PROCESS.all_reduce_([values])
    assert values.tolist() == [0, 1, 2]
    assert SINGLE_PROCESS.gather(values, 3) is values
    assert SINGLE_PROCESS.any_process(True)
    with SINGLE_PROCESS.synchronized():
        pass
