"""The commands of the README and the pages: read from the text, shortened, and run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from gcn_cli.images import to_pillow
from tests.cli.running import Done, gcn
from tests.small import surface

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SMALL = [
    "--set", "layers=4@5,4@3/2", "--iterations", "4", "--preview-every", "0", "--device", "cpu",
]  # fmt: skip
"""Options of a training that takes a second."""
SMALL_TEXTURE = [*SMALL, "--set", "crop=16", "--set", "margin=2"]


def commands(page: Path) -> list[list[str]]:
    """Every line of the shell blocks of a page, comments cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def make_inputs(folder: Path) -> None:
    """The images that the pages name, of 96x80 pixels."""
    noise = Image.effect_noise((96, 80), 60).convert("RGB")
    (folder / "examples/textures").mkdir(parents=True)
    for name in ("texture.jpg", "albedo.png", "normal.png", "roughness.png"):
        noise.save(folder / name)
    down, across = torch.arange(80)[:, None] * torch.pi / 10, torch.arange(96) * torch.pi / 8
    to_pillow(surface(down.sin() * across.cos())[1:]).save(folder / "normal.png")
    noise.convert("L").save(folder / "examples/textures/gravel.png")
    (folder / "bark").mkdir()
    for name in ("albedo", "roughness"):
        noise.save(folder / "bark" / f"bark_{name}.png")
    mask = Image.new("L", noise.size)
    mask.paste(255, (20, 20, 40, 40))
    mask.save(folder / "mask.png")
    for name in ("faces", "textures"):
        (folder / name).mkdir()
    for index in range(3):
        noise.crop((index, 0, index + 16, 16)).save(folder / "faces" / f"{index}.png")
    noise.convert("L").save(folder / "textures" / "gray.png")


def shortened(words: list[str]) -> list[str]:
    """The same command of gcn with less to do."""
    if "--variants" in words or "--edges" in words:
        words = ["160" if word == "512" else word for word in words]
    if "synthesize" in words and "--steps" not in words:
        return [*words, "--steps", "2"]
    if "train" not in words:
        return words
    return [*words, *(SMALL if "object" in words else SMALL_TEXTURE)]


def run_command(words: list[str], folder: Path, trained: Path) -> Done:
    """Run `gcn ...` or `torchrun ...` in a folder.

    A run that the command needs and that is not there is a copy of the run `trained`.
    """
    if "train" not in words:
        for run in (folder / word for word in words if word.startswith("runs/")):
            if not run.exists():
                shutil.copytree(trained, run)
    program, *rest = shortened(words)
    if program == "gcn":
        return gcn(*rest, cwd=folder)
    command = [sys.executable, "-m", "torch.distributed.run", *rest]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, check=False, env=environment, timeout=99
    )
