"""Errors of the Python API, which these tests use, in the words of the command."""

import pytest


@pytest.fixture(autouse=True)
def option_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that name options, as the command prints them."""
    monkeypatch.setattr("gcn_cli.interactive.as_arguments", str)
