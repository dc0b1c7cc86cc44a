"""Systems that lack what others have: on Windows there is no module `resource`."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn_api
from gcn_cli.images import write
from gcn_cli.runtime import free_memory, peak_memory_mib
from tests.cli.running import gcn
from tests.small import LADDER, picture

CPU = torch.device("cpu")


@pytest.fixture
def without_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "uname")


@pytest.mark.usefixtures("without_resource")
def test_memory_that_cannot_be_told_is_none() -> None:
    assert peak_memory_mib(CPU) is None
    free = free_memory(CPU)
    assert free is None or free > 0


def test_the_peak_is_told_in_the_unit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    kibibytes = peak_memory_mib(CPU)
    monkeypatch.setattr(sys, "platform", "darwin")
    as_bytes = peak_memory_mib(CPU)
    assert kibibytes is not None
    assert as_bytes is not None
    assert kibibytes == pytest.approx(1024 * as_bytes, rel=0.1)


@pytest.mark.usefixtures("without_resource")
def test_a_training_leaves_out_the_memory_it_does_not_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        gcn_api.train(picture(), iterations=2, **LADDER)
    assert [one for one in caplog.messages if one.endswith(" s in all")]


@pytest.mark.usefixtures("without_resource")
def test_the_commands_say_null(tmp_path: Path) -> None:
    write(picture(), str(tmp_path / "texture.png"))
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in LADDER.items()]
    words = ["train", "texture.png", *settings, "--iterations", "2", "-o", "run"]
    assert said(*words, "--dry-run", cwd=tmp_path)["expected_memory_mib"] is None
    plain = gcn(*words, "--dry-run", cwd=tmp_path).stdout
    assert b"expected_seconds: " in plain
    assert b"memory" not in plain
    assert said(*words, cwd=tmp_path)["peak_memory_mib"] is None
    made = said("synthesize", "--model", "run", "--device", "cpu", cwd=tmp_path)
    assert made["peak_memory_mib"] is None


def said(*words: str, cwd: Path) -> dict[str, Any]:
    """The object that a command prints."""
    done = gcn(*words, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
