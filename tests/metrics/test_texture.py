"""Texture metrics rank control images in the right order."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcn_cli.images import read_image
from gcn_cli.metrics import DESCRIPTIONS, TextureMetrics
from gcn_cli.metrics.texture import spectral_noise
from gcn_cli.metrics.windows import CopyDetector

ROOT = Path(__file__).parent.parent.parent


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def texture() -> Tensor:
    return read_image(str(ROOT / "examples/textures/volcanic_rock.png")).to_mode("RGB")


@pytest.fixture(scope="module")
def controls(texture: Tensor) -> dict[str, dict[str, float]]:
    """Metrics of control images against the other half of a texture."""
    exemplar, half = texture[:, :, :128], texture[:, :, 128:]
    texture_metrics = TextureMetrics(exemplar)
    mean = half.mean(dim=(1, 2), keepdim=True)
    phases = torch.fft.rfft2(torch.randn(half.shape[1:], generator=generator()))
    random_phase = torch.fft.rfft2(half - mean) * phases / phases.abs()
    pixels = torch.randperm(half[0].numel(), generator=generator())
    images = {
        "half": half,
        "copy": exemplar,
        "pasted": pasted(exemplar, 32),
        "blurred": F.avg_pool2d(F.pad(half[None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0],
        "phase": torch.fft.irfft2(random_phase, s=half.shape[1:]) + mean,
        "noise": half.flatten(1)[:, pixels].view_as(half),
        "other": 255 - half.roll(60, 1).pow(2) / 255,
    }
    return {name: texture_metrics.measure(image) for name, image in images.items()}


def pasted(image: Tensor, side: int) -> Tensor:
    """Blocks of an image at other positions."""
    moved, drawn = image.clone(), generator()
    for top in range(0, image.shape[1], side):
        for left in range(0, image.shape[2], side):
            y, x = (int(torch.randint(n - side, (1,), generator=drawn)) for n in image.shape[1:])
            moved[:, top : top + side, left : left + side] = image[:, y : y + side, x : x + side]
    return moved


def test_quality_ranks_the_controls(controls: dict[str, dict[str, float]]) -> None:
    quality = {name: metrics["quality"] for name, metrics in controls.items()}
    assert quality["copy"] == pytest.approx(1, abs=0.01)
    assert quality["copy"] < quality["half"] < quality["phase"] < quality["blurred"]
    assert quality["blurred"] < min(quality["noise"], quality["other"])


def test_copies_are_detected(controls: dict[str, dict[str, float]]) -> None:
    assert controls["half"]["copied"] < 0.02
    assert controls["half"]["coherent"] < 0.05
    for name in ("copy", "pasted"):
        assert controls[name]["copied"] > 0.1
        assert controls[name]["coherent"] > 0.25
    assert controls["copy"]["structure"] < 0.5


def test_the_classifier_cannot_tell_copies_and_tells_noise(
    controls: dict[str, dict[str, float]],
) -> None:
    assert controls["copy"]["classifier"] == pytest.approx(0.5, abs=0.02)
    assert controls["noise"]["classifier"] > 0.98


def test_every_metric_is_described_and_deterministic(
    texture: Tensor, controls: dict[str, dict[str, float]]
) -> None:
    assert all(metrics.keys() == DESCRIPTIONS.keys() for metrics in controls.values())
    again = TextureMetrics(texture[:, :, :128]).measure(texture[:, :, 128:])
    assert again == controls["half"]


def test_repetitions_of_the_exemplar_are_not_copies() -> None:
    tile = 255 * torch.rand(3, 32, 32, generator=generator())
    wall = tile.repeat(1, 4, 4)
    assert CopyDetector(wall).shares(wall.roll((5, 9), (1, 2)))[0] == 0


def test_gray_images_and_other_sizes_are_measured(texture: Tensor) -> None:
    gray = texture.mean(dim=0, keepdim=True)
    measured = TextureMetrics(gray[:, :, :120]).measure(gray[:, 30:101, 128:])
    assert measured["quality"] < 1.6
    assert math.isnan(measured["classifier"])  # too small for its windows
    with pytest.raises(ValueError, match="too small"):
        TextureMetrics(gray[:, :50])
    with pytest.raises(ValueError, match="too small"):
        TextureMetrics(gray).measure(gray[:, :50])


def test_an_untrained_model_has_the_spectrum_of_the_exemplar(texture: Tensor) -> None:
    texture_metrics = TextureMetrics(texture)
    noise = texture_metrics.measure(spectral_noise(texture, 0))
    assert noise["quality"] == pytest.approx(texture_metrics.untrained.quality, rel=0.02)
    assert noise["spectrum"] < 1.05
    assert noise["statistics"] > 1.2
    assert 1.15 < texture_metrics.untrained.quality < 1.3
