"""Pixel metrics against values worked out by hand."""

import math

import pytest
import torch

from gcn_cli import metrics


def test_metrics_of_known_images() -> None:
    black, gray = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 25.5)
    assert metrics.rms_error(black, gray) == pytest.approx(25.5)
    assert metrics.psnr(black, gray) == pytest.approx(20.0)
    assert metrics.psnr(gray, gray) == math.inf
    ramp = torch.arange(16.0).reshape(1, 4, 4)
    assert metrics.contrast(3 * ramp + 7, ramp) == pytest.approx(3)
    assert metrics.unexplained_variance(ramp.mean().expand(1, 4, 4), ramp) == pytest.approx(1)


def test_seams_are_1_on_a_torus_and_large_on_a_ramp() -> None:
    position = torch.arange(32.0)
    wave = torch.sin(position * torch.pi / 8)
    torus = (wave[:, None] + wave).expand(3, 32, 32)
    # Any column of a torus may be the seam: on average its gradient is that of the inside.
    rolled = [metrics.seams(torus.roll((k, k), (-2, -1))) for k in range(32)]
    for axis in (0, 1):
        assert sum(ratios[axis] for ratios in rolled) / 32 == pytest.approx(1.0, abs=0.02)
    seam_x, seam_y = metrics.seams((position * 2).expand(3, 32, 32))
    assert seam_x == pytest.approx(31)
    assert seam_y == 0
