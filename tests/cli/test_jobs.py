"""Trainings as batch jobs: one job for a run, signals of schedulers, --resume."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.running import gcn

SMALL = [
    "--set", "layers=4@5,4@3/2", "--set", "crop=16", "--set", "margin=2", "--preview-every", "0",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    Image.effect_noise((40, 32), 60).convert("RGB").save(tmp_path / "texture.png")
    return tmp_path


@contextmanager
def training(here: Path, run: str = "run") -> Iterator["subprocess.Popen[bytes]"]:
    """A long training that has saved once; killed at the end if it still runs."""
    command = [sys.executable, "-m", "gcn_cli", "train", "texture.png", *SMALL]
    command += ["--iterations", "1000000", "-o", run, "--save-every", "0.1s"]
    process = subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE)
    try:
        model = here / run / "model.safetensors"
        while process.poll() is None and not model.exists():
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_second_job_on_a_run_is_refused_and_a_killed_one_leaves_no_lock(here: Path) -> None:
    words = ["train", "texture.png", *SMALL, "--iterations", "1000000", "-o", "run"]
    with training(here) as first:
        second = gcn(*words, cwd=here)
        assert second.returncode == 1
        assert b"run: another job is training here" in second.stderr
        anew = gcn(*words, "--overwrite", cwd=here)
        assert anew.returncode == 1
        first.send_signal(signal.SIGKILL)
        first.wait()
    third = gcn(*words, "--max-time", "0.01s", cwd=here)
    assert third.returncode == 0, third.stderr.decode()
    assert b"resumed after iteration" in third.stderr


def test_sigusr1_saves_and_asks_to_come_again(here: Path) -> None:
    with training(here) as process:
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75
        assert b"SIGUSR1 after iteration" in errors


def test_a_second_signal_leaves_at_once(here: Path) -> None:
    """The first is noted at the end of a step: both are sent while one runs."""
    with training(here) as process:
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=60)
        assert process.returncode in (-signal.SIGTERM, -signal.SIGUSR1)
    again = gcn("inspect", "--model", "run", cwd=here)
    assert again.returncode == 0, again.stderr.decode()


def test_resume_may_be_forbidden_or_required(here: Path) -> None:
    words = ["train", "texture.png", *SMALL, "--iterations", "3"]
    absent = gcn(*words, "--resume", "must", cwd=here)
    assert absent.returncode == 2
    assert b"runs/texture: holds no model to resume (--resume must)" in absent.stderr
    assert not (here / "runs").exists()
    assert gcn(*words, "--resume", "never", cwd=here).returncode == 0
    existing = gcn(*words, "--resume", "never", cwd=here)
    assert existing.returncode == 2
    assert b"runs/texture: holds a model (--resume never)" in existing.stderr
    assert gcn(*words, "--resume", "must", cwd=here).returncode == 0
    both = gcn(*words, "--resume", "must", "--overwrite", cwd=here)
    assert both.returncode == 2
