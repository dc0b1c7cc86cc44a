"""Devices, cores and memory; systems that lack what others have."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn_api
from gcn_cli import runtime
from gcn_cli.errors import InputError
from gcn_cli.images import write
from gcn_cli.runtime import choose_device, free_memory, peak_memory_mib
from gcn_cli.torchrun import is_main_process, torchrun_ranks
from tests.cli.running import TEXTURE, gcn
from tests.small import SMALL_TEXTURE, small_image

CPU = torch.device("cpu")


def test_a_missing_device_is_an_error() -> None:
    assert choose_device("cpu").type == "cpu"
    for absent in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=absent):
            choose_device(absent)


def test_memory_is_measured_in_mebibytes() -> None:
    peak = peak_memory_mib(CPU)
    assert peak is not None
    assert 20 < peak < 100_000


def test_threads_are_the_free_cores_unless_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "available_cores", lambda: 4)
    monkeypatch.setattr(runtime, "free_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(8)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        runtime.set_threads(None)
    assert torch.get_num_threads() == 3
    assert "3 of 4 threads: other processes use the rest (--threads)" in caplog.text
    runtime.set_threads(2)
    assert torch.get_num_threads() == 2


def simulate_gpus(monkeypatch: pytest.MonkeyPatch, count: int, free: int) -> None:
    """As on a machine with GPUs of 80 GiB, with `free` bytes left on the first."""
    for name, function in (
        ("is_available", lambda: True),
        ("device_count", lambda: count),
        ("set_device", lambda _: None),
        ("mem_get_info", lambda _: (free, 80 * 2**30)),
        ("get_device_name", lambda _: "Some GPU"),
    ):
        monkeypatch.setattr(torch.cuda, name, function)


def test_the_chosen_gpu_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulate_gpus(monkeypatch, 4, 70 * 2**30)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert choose_device("auto") == torch.device("cuda", 0)
    assert caplog.messages == ["cuda:0 (Some GPU), 70.0 of 80.0 GiB free; 3 more (--device cuda:N)"]


def test_a_gpu_without_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_gpus(monkeypatch, 2, 2**28)
    with pytest.raises(InputError, match=r"--device cuda:0: 0.2 of 80.0 GiB free, other processes"):
        choose_device("auto")


def test_every_process_of_torchrun_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_gpus(monkeypatch, 2, 2**33)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("MASTER_ADDR", "there")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 3 of a machine with 2 GPU"):
        choose_device("auto")


def test_the_reason_for_not_using_a_gpu_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_old() -> bool:
        warnings.warn("The NVIDIA driver on your system is\ntoo old", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert choose_device("auto") == torch.device("cpu")
    assert caplog.messages == ["no GPU is used: The NVIDIA driver on your system is too old"]


def test_invalid_variables_of_torchrun_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "x")
    assert torchrun_ranks() is None
    assert is_main_process()


@pytest.fixture
def without_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "uname")


@pytest.mark.usefixtures("without_resource")
def test_unknown_memory_is_none() -> None:
    assert peak_memory_mib(CPU) is None
    free = free_memory(CPU)
    assert free is None or free > 0


def test_peak_memory_has_the_unit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    kibibytes = peak_memory_mib(CPU)
    monkeypatch.setattr(sys, "platform", "darwin")
    as_bytes = peak_memory_mib(CPU)
    assert kibibytes is not None
    assert as_bytes is not None
    assert kibibytes == pytest.approx(1024 * as_bytes, rel=0.1)


@pytest.mark.usefixtures("without_resource")
def test_a_training_does_not_log_unknown_memory(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        gcn_api.train(small_image(), iterations=2, **SMALL_TEXTURE)
    (message,) = (line for line in caplog.messages if line.startswith("trained for "))
    assert message.endswith(" s, 2 iterations")


@pytest.mark.usefixtures("without_resource")
def test_commands_print_unknown_memory_as_null(tmp_path: Path) -> None:
    write(small_image(), str(tmp_path / "texture.png"))
    words = ["train", "texture.png", *TEXTURE, "--iterations", "2", "-o", "run"]
    assert json_of(*words, "--dry-run", cwd=tmp_path)["expected_memory_mib"] is None
    plain = gcn(*words, "--dry-run", cwd=tmp_path).stdout
    assert b"expected_seconds: " in plain
    assert b"memory" not in plain
    assert json_of(*words, cwd=tmp_path)["peak_memory_mib"] is None
    result = json_of("synthesize", "--model", "run", "--device", "cpu", cwd=tmp_path)
    assert result["peak_memory_mib"] is None


def json_of(*words: str, cwd: Path) -> dict[str, Any]:
    """The object that a command prints."""
    done = gcn(*words, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
