"""Measures of textures put controls in the right order."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.images import open_picture
from gcn_cli.metrics import MEANINGS, TextureMetrics
from gcn_cli.metrics.windows import CopyDetector

ROOT = Path(__file__).parent.parent.parent


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def texture() -> Tensor:
    return open_picture(str(ROOT / "examples/textures/volcanic_rock.png")).to_bands("RGB")


@pytest.fixture(scope="module")
def controls(texture: Tensor) -> dict[str, dict[str, float]]:
    """Measures of controls by one half of a texture."""
    exemplar, half = texture[:, :, :128], texture[:, :, 128:]
    by = TextureMetrics(exemplar)
    mean = half.mean(dim=(1, 2), keepdim=True)
    phases = torch.fft.rfft2(torch.randn(half.shape[1:], generator=generator()))
    random_phase = torch.fft.rfft2(half - mean) * phases / phases.abs()
    pixels = torch.randperm(half[0].numel(), generator=generator())
    made = {
        "half": half,
        "copy": exemplar,
        "pasted": pasted(exemplar, 32),
        "blurred": F.avg_pool2d(F.pad(half[None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0],
        "phase": torch.fft.irfft2(random_phase, s=half.shape[1:]) + mean,
        "noise": half.flatten(1)[:, pixels].view_as(half),
        "other": 255 - half.roll(60, 1).pow(2) / 255,
    }
    return {name: by.measure(one) for name, one in made.items()}


def pasted(picture: Tensor, side: int) -> Tensor:
    """Blocks of a picture in other places."""
    made, draw = picture.clone(), generator()
    for top in range(0, picture.shape[1], side):
        for left in range(0, picture.shape[2], side):
            y, x = (int(torch.randint(n - side, (1,), generator=draw)) for n in picture.shape[1:])
            made[:, top : top + side, left : left + side] = picture[:, y : y + side, x : x + side]
    return made


def test_quality_ranks_the_controls(controls: dict[str, dict[str, float]]) -> None:
    quality = {name: measures["quality"] for name, measures in controls.items()}
    assert quality["copy"] == pytest.approx(1, abs=0.01)
    assert quality["copy"] < quality["half"] < quality["phase"] < quality["blurred"]
    assert quality["blurred"] < min(quality["noise"], quality["other"])


def test_copies_are_given_away(controls: dict[str, dict[str, float]]) -> None:
    assert controls["half"]["copied"] < 0.02
    assert controls["half"]["coherent"] < 0.05
    for name in ("copy", "pasted"):
        assert controls[name]["copied"] > 0.1
        assert controls[name]["coherent"] > 0.25
    assert controls["copy"]["structure"] < 0.5


def test_a_judge_cannot_tell_what_is_the_same_from_noise(
    controls: dict[str, dict[str, float]],
) -> None:
    assert controls["copy"]["told"] == pytest.approx(0.5, abs=0.02)
    assert controls["noise"]["told"] > 0.98


def test_every_measure_has_a_meaning_and_repeats(
    texture: Tensor, controls: dict[str, dict[str, float]]
) -> None:
    assert all(measures.keys() == MEANINGS.keys() for measures in controls.values())
    again = TextureMetrics(texture[:, :, :128]).measure(texture[:, :, 128:])
    assert again == controls["half"]


def test_copied_is_beyond_what_the_exemplar_repeats() -> None:
    """A pattern that repeats itself exactly is no copy of itself."""
    tile = 255 * torch.rand(3, 32, 32, generator=generator())
    wall = tile.repeat(1, 4, 4)
    assert CopyDetector(wall).copying(wall.roll((5, 9), (1, 2)))[0] == 0


def test_gray_pictures_and_other_sizes_are_measured(texture: Tensor) -> None:
    gray = texture.mean(dim=0, keepdim=True)
    measures = TextureMetrics(gray[:, :, :120]).measure(gray[:, 30:101, 128:])
    assert measures["quality"] < 1.6
    assert measures["told"] != measures["told"]  # too small for a judge
    with pytest.raises(ValueError, match="too small"):
        TextureMetrics(gray[:, :50])
    with pytest.raises(ValueError, match="too small"):
        TextureMetrics(gray).measure(gray[:, :50])
