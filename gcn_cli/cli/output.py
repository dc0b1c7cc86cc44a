"""What a command leaves on stdout for machines: with --json one object, the same keys for all."""

import json
import platform
import time
from typing import Any

import click

from gcn_cli.launcher import launched
from gcn_cli.version import VERSION


class Final:
    """The one object that --json prints at the end of a command.

    docs/batch.md lists the keys; a test holds it to what is printed.
    """

    def __init__(self, command: str) -> None:
        self.command, self.started = command, time.monotonic()

    def show(self, **own: Any) -> None:
        """Print what all commands say, and what is this one's `own`."""
        started = launched()
        said: dict[str, Any] = {
            "command": self.command,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": _versions(),
        }
        if started is not None:
            said["process"] = started[0]
        click.echo(json.dumps(said | own, indent=1))


def as_lines(values: dict[str, Any]) -> str:
    """Plain values for a person: a name and a value a line, those inside others set in."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {line}" for line in as_lines(value).splitlines())]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def machine(device: Any, dtype: Any) -> dict[str, Any]:
    """Device, number format, threads and memory (MiB or None) of a command that computes."""
    import torch

    from gcn_cli.runtime import device_name, peak_memory_mib

    peak = peak_memory_mib(device)
    return {
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": None if peak is None else round(peak, 1),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"gcn": VERSION, "torch": version("torch"), "python": platform.python_version()}
