"""Noise taken off: how much there is, by Stein's identity; what comes back."""

import pytest
import torch

from gcn_cli.checkpoint import Checkpoint
from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.errors import InputError
from gcn_cli.images import Normalization
from gcn_cli.kinds import build_kind
from gcn_cli.models.layers import parse_layers
from gcn_cli.presets import PRESETS
from gcn_cli.reconstruction import denoise_image, estimated_level

VARIANCE = 0.7


@pytest.mark.parametrize("level", [0.02, 0.3, 1.0, 4.0])
def test_the_level_of_noise_on_a_gaussian_is_found(level: float) -> None:
    drawn = torch.randn(2, 1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    noisy = VARIANCE**0.5 * drawn[0] + level * drawn[1]

    def mean(x: torch.Tensor, s: float) -> torch.Tensor:
        return x * VARIANCE / (VARIANCE + s**2)

    # Sums of 120000 squares vary by half a percent of VARIANCE, about.
    assert estimated_level(noisy, mean, 10.0) == pytest.approx(level, rel=0.02, abs=0.07)


def test_an_untrained_ladder_is_wieners_filter() -> None:
    """Of white data of variance 1: what is left is the picture about its mean, 1 / (1 + s^2)."""
    config = NoiseConditionalConfig(layers=parse_layers("8@5,8@3/2"))
    model = Checkpoint(
        build_kind(config, (32, 32)), Normalization((100.0,) * 3, (20.0,) * 3), (32, 32)
    )
    noisy = 100 + 40 * torch.randn(3, 33, 29, generator=torch.Generator().manual_seed(0))
    made, sigma = denoise_image(model, noisy, 20.0, torch.float32)
    assert sigma == 20.0
    torch.testing.assert_close(made, 100 + (noisy - 100) / 2, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("preset", "scale", "sigma", "message"),
    [
        ("default", 20.0, -1.0, "--denoise -1.0: must be"),
        ("default", 20.0, float("nan"), "--denoise nan: must be"),
        ("object", 20.0, 5.0, "has a head"),
        ("default", None, 5.0, "linked maps"),
        ("paper-texture", 1.0, 5.0, "published model"),
    ],
)
def test_what_cannot_be_denoised_is_refused(
    preset: str, scale: float | None, sigma: float, message: str
) -> None:
    scales = (1.0, 2.0, 3.0) if scale is None else (scale,) * 3
    family = build_kind(PRESETS[preset], (64, 64))
    model = Checkpoint(family, Normalization((0.0,) * 3, scales), (64, 64))
    with pytest.raises(InputError, match=message):
        denoise_image(model, torch.zeros(3, 64, 64), sigma, torch.float32)
