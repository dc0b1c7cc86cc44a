"""Devices, limits and signals."""

import os
import signal

import pytest
import torch

from gcn_cli.errors import InputError
from gcn_cli.runtime import StopRequest, choose_device, peak_memory_mib


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
    assert 20 < peak_memory_mib(torch.device("cpu")) < 100_000
