"""gcn train: runs, resuming, signals, time limits, batch jobs, and refused options."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcn_cli import images
from gcn_cli.cli import train
from gcn_cli.cli.console import Progress
from tests.cli.running import PUBLISHED, gcn
from tests.reading import values_of

pytestmark = pytest.mark.slow

SMALL = [
    "--set", "layers=8@5,8@3/2", "--set", "crop=16", "--set", "margin=2", "--iterations", "20",
    "--threads", "1", "--device", "cpu", "--precision", "float32",
]  # fmt: skip
LONG = [*SMALL, "--iterations", "1000000", "--save-every", "0.1s", "--preview-every", "0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with texture.png."""
    Image.effect_noise((40, 32), 60).convert("RGB").save(tmp_path / "texture.png")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one complete run; read only."""
    folder = tmp_path_factory.mktemp("train")
    Image.effect_noise((40, 32), 60).convert("RGB").save(folder / "texture.png")
    done = gcn("train", "texture.png", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@contextmanager
def training(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A training in folder/run that has saved once; killed at the end if it still runs."""
    command = [sys.executable, "-m", "gcn_cli", "train", "texture.png", *(arguments or LONG)]
    command += ["-o", "run"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)
    try:
        model = folder / "run" / "model.safetensors"
        while process.poll() is None and not model.exists():
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_training_writes_previews_and_metrics(trained: Path) -> None:
    run = trained / "runs" / "texture"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 21))
    assert len(list((run / "previews").iterdir())) == 10


def test_a_resumed_training_equals_an_uninterrupted_one(trained: Path) -> None:
    words = ["train", "texture.png", *SMALL]
    stopped = gcn(*words, "-o", "stopped", "--max-time", "0.001s", cwd=trained)
    assert stopped.returncode == 0, stopped.stderr.decode()
    assert b"time limit after iteration 1 " in stopped.stderr
    assert b"a complete training in this time is --iterations 1 --overwrite" in stopped.stderr
    assert gcn(*words, "-o", "stopped", cwd=trained).returncode == 0
    ours, theirs = (
        values_of(gcn("synthesize", "--model", run, "-o", "-", cwd=trained).stdout)
        for run in ("stopped", "runs/texture")
    )
    assert ours == theirs


def test_a_folder_of_objects_gets_a_head_and_keeps_its_size(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(4):
        pixels = torch.zeros(3, 16, 16)
        pixels[:, 2 + number : 10, 3:9] = 200
        images.write(pixels, str(folder / f"{number}.png"))
    words = [
        "--preset",
        "object",
        "--set",
        "layers=8@5,8@3/2",
        "--iterations",
        "5",
        "--device",
        "cpu",
    ]
    done = gcn("train", "faces", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    (hint,) = re.findall(r"next: gcn (.*);", done.stderr.decode())
    assert gcn(*hint.split(), "--count", "2", cwd=tmp_path).returncode == 0
    refused = gcn("synthesize", "--size", "32", cwd=tmp_path)
    assert refused.returncode == 2
    assert b"head for 16x16" in refused.stderr


def test_a_killed_and_resumed_training_equals_an_uninterrupted_one(folder: Path) -> None:
    arguments = [*PUBLISHED, "--iterations", "60", "--set", "chains=2"]
    whole = gcn("train", "texture.png", *arguments, "-o", "whole", cwd=folder)
    assert whole.returncode == 0, whole.stderr.decode()
    with training(folder, *arguments, "--save-every", "0.05s") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = gcn("train", "texture.png", *arguments, "-o", "run", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr.decode()
    assert b"resumed after iteration" in resumed.stderr
    metrics = [(folder / run / "metrics.jsonl").read_bytes() for run in ("whole", "run")]
    assert metrics[0] == metrics[1]
    samples = [
        values_of(
            gcn("synthesize", "--model", run, "--start", "chains", "-o", "-", cwd=folder).stdout
        )
        for run in ("whole", "run")
    ]
    assert samples[0] == samples[1]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]
)
def test_signals_save_and_have_their_exit_codes(
    number: signal.Signals, code: int, folder: Path
) -> None:
    with training(folder) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors.decode()
    by_hand = number == signal.SIGINT
    start = "gcn: stopped" if by_hand else f"gcn: error: {number.name}"
    last = errors.decode().splitlines()[-1]
    pattern = (
        rf"{start} after iteration \d+ of 1000000; saved; run the same command again to resume"
    )
    assert re.fullmatch(pattern, last)


def test_a_signal_while_the_quality_is_measured(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_measure_quality", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    done = gcn("train", "texture.png", *SMALL, cwd=trained)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"SIGUSR2: the model is complete and saved; run the same command again" in done.stderr


def test_a_signal_in_the_last_iteration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(self: Progress, done: int, *_: object) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGXCPU)

    monkeypatch.setattr(Progress, "update", last)
    done = gcn("train", "texture.png", *SMALL, "--iterations", "2", cwd=folder)
    assert done.returncode == 75
    assert b"SIGXCPU: the model is complete and saved; run the same" in done.stderr


def test_a_second_job_on_a_run_is_refused_and_a_killed_one_leaves_no_lock(folder: Path) -> None:
    words = ["train", "texture.png", *LONG, "-o", "run"]
    with training(folder) as first:
        second = gcn(*words, cwd=folder)
        assert second.returncode == 1
        assert b"run: another job is training here" in second.stderr
        anew = gcn(*words, "--overwrite", cwd=folder)
        assert anew.returncode == 1
        first.send_signal(signal.SIGKILL)
        first.wait()
    third = gcn(*words, "--max-time", "0.01s", cwd=folder)
    assert third.returncode == 0, third.stderr.decode()
    assert b"resumed after iteration" in third.stderr


def test_resume_may_be_forbidden_or_required(folder: Path) -> None:
    words = ["train", "texture.png", *SMALL, "--iterations", "3"]
    absent = gcn(*words, "--resume", "must", cwd=folder)
    assert absent.returncode == 2
    assert b"runs/texture: holds no model to resume (--resume must)" in absent.stderr
    assert not (folder / "runs").exists()
    assert gcn(*words, "--resume", "never", cwd=folder).returncode == 0
    existing = gcn(*words, "--resume", "never", cwd=folder)
    assert existing.returncode == 2
    assert b"runs/texture: holds a model (--resume never)" in existing.stderr
    assert gcn(*words, "--resume", "must", cwd=folder).returncode == 0
    both = gcn(*words, "--resume", "must", "--overwrite", cwd=folder)
    assert both.returncode == 2


def test_a_time_limit_ends_cleanly_and_can_be_continued(folder: Path) -> None:
    words = ["train", "texture.png", *PUBLISHED, "--iterations", "1000000", "--max-time", "1s"]
    first = gcn(*words, cwd=folder)
    assert first.returncode == 0, first.stderr.decode()
    assert b"time limit after iteration" in first.stderr
    assert b"next: run the training command again to resume\n" in first.stderr
    assert b"resumed after" in gcn(*words, cwd=folder).stderr


def test_a_config_file_and_stdin_and_overwrite(folder: Path) -> None:
    (folder / "my.toml").write_text('preset = "paper-reconstruct"\niterations = 3\nsize = 24\n')
    picture = (folder / "texture.png").read_bytes()
    words = ["train", "-", "--config", "my.toml", "--set", "layers=4@5/2+1", "--device", "cpu"]
    done = gcn(*words, cwd=folder, stdin=picture)
    assert done.returncode == 0, done.stderr.decode()
    rows = (folder / "runs" / "stdin" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3
    assert "reconstruction_error" in rows[0]
    assert gcn(*words, "--overwrite", "--seed", "3", cwd=folder, stdin=picture).returncode == 0


def test_divergence_has_its_own_exit_code_and_keeps_no_half_file(folder: Path) -> None:
    done = gcn("train", "texture.png", *PUBLISHED, "--set", "step_size=1e15", cwd=folder)
    assert done.returncode == 3
    assert b"lower --set learning_rate or --set step_size" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SMALL, "-o", "texture.png"], "--output texture.png: File exists; name a folder"),
        ([*SMALL, "-o", "/proc/x"], "--output /proc/x: "),
        (["--set", "sigma=2"], "--set sigma: has no meaning with --set learner=denoise,mle"),
        (
            ["--set", "learner=denoise", "--set", "likelihood_weight=2"],
            "--set likelihood_weight: has no meaning with --set learner=denoise",
        ),
        (["--set", "shifts=2"], "--set shifts=2: crops are shifted already"),
        (["--set", "head=true"], "--set head=true: needs whole upright images"),
        (["--set", "crop=20", "--set", "margin=10"], "--set margin=10: must be under half of crop"),
        ([*SMALL, "--set", "crop=18"], "multiples of 4"),
        (["--jobs", "2"], "--jobs: is for --each"),
        (["--extend", "5", "--overwrite"], "--extend, --overwrite: give only one"),
        (["--extend", "5", "--resume", "never"], "--extend, --resume never: give only one"),
        (["--extend", "5s", "--max-time", "3s"], "--extend, --max-time: two times"),
        (["--each", "--report", "page"], "--each, --report: is for one image"),
        (["--save-every", "0s"], "'0s' is not a time such as 90s"),
        (["--preview-every", "-1"], "--preview-every -1: must be 0 or more"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], message: str, folder: Path
) -> None:
    output = [] if "-o" in arguments else ["-o", "run"]
    done = gcn("train", "texture.png", *arguments, *output, cwd=folder)
    assert done.returncode == 2, done.stderr.decode()
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (folder / "run").exists()


def test_images_without_a_texture_are_refused(folder: Path) -> None:
    Image.new("RGB", (160, 160), "red").save(folder / "flat.png")
    Image.effect_noise((8, 8), 60).save(folder / "tiny.png")
    for name, message in (
        ("flat.png", b"one color only"),
        ("tiny.png", b"8 pixels, leaves crops of 6, too small to train on"),
    ):
        done = gcn("train", name, cwd=folder)
        assert done.returncode == 2
        assert message in done.stderr
