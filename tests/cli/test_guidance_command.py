"""Guides, blends and temperature through the command: what they change, what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from tests.cli.running import gcn
from tests.cli.test_train_commands import SMALL
from tests.reading import read

FEW = ["--threads", "1", "--steps", "4", "--precision", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ladders, dark and light, one of grays, a published model, a mask; read only."""
    place = tmp_path_factory.mktemp("control")
    noise = Image.effect_noise((32, 32), 40)
    for name, move in (("dark", -60), ("light", 60)):
        noise.point(lambda v, move=move: v + move).convert("RGB").save(place / f"{name}.png")
    noise.save(place / "gray.png")
    mask = Image.new("L", (64, 32))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 31), fill=255)
    mask.save(place / "mask.png")
    for name in ("dark", "light", "gray"):
        assert gcn("train", f"{name}.png", *SMALL, cwd=place).returncode == 0
    paper = ["--set", "learner=cd", "--set", "layers=2@3", "--size", "16", "--iterations", "1"]
    assert gcn("train", "dark.png", *paper, "-o", "paper", cwd=place).returncode == 0
    return place


def made(folder: Path, name: str, *words: str) -> torch.Tensor:
    done = gcn("synthesize", "--size", "64x32", "-o", name, *FEW, *words, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return read(folder / name)


def test_two_textures_in_one_picture(folder: Path) -> None:
    words = ["--model", "runs/dark", "--blend", "runs/light", "--mask", "mask.png"]
    both = made(folder, "both.png", *words)
    dark, light = (made(folder, f"{m}-1.png", "--model", f"runs/{m}") for m in ("dark", "light"))
    assert float(both[:, :, 8:20].mean()) == pytest.approx(float(dark.mean()), abs=12)
    assert float(both[:, :, 44:56].mean()) == pytest.approx(float(light.mean()), abs=12)


def test_a_guide_a_temperature_and_restarts_change_the_picture(folder: Path) -> None:
    plain = made(folder, "plain.png", "--model", "runs/dark")
    assert torch.equal(plain, made(folder, "1.png", "--model", "runs/dark", "--temperature", "1"))
    calm = made(folder, "calm.png", "--model", "runs/dark", "--temperature", "0.3")
    assert float(calm.std()) < 0.9 * float(plain.std())
    once = made(folder, "0.png", "--model", "runs/dark", "--restarts", "0")
    assert torch.equal(plain, once)
    again = made(folder, "2.png", "--model", "runs/dark", "--steps", "30", "--restarts", "2")
    assert not torch.equal(again, made(folder, "30.png", "--model", "runs/dark", "--steps", "30"))
    guided = made(folder, "guided.png", "--model", "runs/dark", "--guide", "mask.png")
    change = guided - plain
    assert float(change[:, :, 36:60].mean()) > float(change[:, :, 4:28].mean()) + 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--blend", "runs/light"], "--blend, --mask"),
        (["--guide-strength", "0.5"], "--guide-strength: says how --guide is followed"),
        (["--blend", "runs/gray", "--mask", "mask.png"], "they must be alike"),
        (["--blend", "paper", "--mask", "mask.png"], "a published model has no levels of noise"),
        (["--guide", "absent.png"], "absent.png: No such file"),
        (["--model", "paper", "--restarts", "1"], "--restarts: this model has one level"),
        (["--temperature", "0"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], message: str, folder: Path) -> None:
    done = gcn("synthesize", "--model", "runs/dark", *FEW, *words, "-o", "no.png", cwd=folder)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.decode().split())
    assert not (folder / "no.png").exists()


def test_a_published_model_takes_no_guide(folder: Path) -> None:
    words = ["--model", "paper", "--guide", "mask.png", "-o", "no.png"]
    done = gcn("synthesize", *words, "--steps", "1", cwd=folder)
    assert done.returncode == 2
    assert b"--guide, --blend: a published model has no levels" in done.stderr
