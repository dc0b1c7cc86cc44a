"""Devices, limits and signals."""

import logging
import os
import signal
import warnings

import pytest
import torch

from gcn_cli.errors import InputError
from gcn_cli.runtime import StopRequest, choose_device, peak_memory_mib
from gcn_cli.torchrun import is_main_process, torchrun_ranks


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert choose_device("cpu").type == "cpu"
    for absent in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=absent):
            choose_device(absent)


def test_a_time_limit_and_a_signal_both_ask_to_stop() -> None:
    assert not StopRequest(None)()
    assert not StopRequest(1000)()
    assert StopRequest(1e-9)()
    stop = StopRequest()
    before = signal.getsignal(signal.SIGTERM)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_memory_is_measured_in_mebibytes() -> None:
    peak = peak_memory_mib(torch.device("cpu"))
    assert peak is not None
    assert 20 < peak < 100_000


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int, free: int) -> None:
    """As on a machine with GPUs of 80 GiB, so much of the first one free."""
    for name, made in (
        ("is_available", lambda: True),
        ("device_count", lambda: count),
        ("set_device", lambda _: None),
        ("mem_get_info", lambda _: (free, 80 * 2**30)),
        ("get_device_name", lambda _: "Some GPU"),
    ):
        monkeypatch.setattr(torch.cuda, name, made)


def test_the_choice_among_gpus_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpus(monkeypatch, 4, 70 * 2**30)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        assert choose_device("auto") == torch.device("cuda", 0)
    assert caplog.messages == ["cuda:0 (Some GPU), 70.0 of 80.0 GiB free; 3 more (--device cuda:N)"]


def test_a_gpu_that_others_have_filled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2, 2**28)
    with pytest.raises(InputError, match=r"--device cuda:0: 0.2 of 80.0 GiB free, other processes"):
        choose_device("auto")


def test_every_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2, 2**33)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("MASTER_ADDR", "there")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 3 of a machine with 2 GPU"):
        choose_device("auto")


def test_why_no_gpu_is_used_is_said(
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


def test_words_of_no_launcher_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "x")
    assert torchrun_ranks() is None
    assert is_main_process()
