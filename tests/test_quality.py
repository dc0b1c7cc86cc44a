"""Measures against values worked out by hand."""

import math

import pytest
import torch

from gcn_cli import quality


def test_measures_of_known_pictures() -> None:
    black, grey = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 25.5)
    assert quality.rms_error(black, grey) == pytest.approx(25.5)
    assert quality.psnr(black, grey) == pytest.approx(20.0)
    assert quality.psnr(grey, grey) == math.inf
    ramp = torch.arange(16.0).reshape(1, 4, 4)
    assert quality.contrast(3 * ramp + 7, ramp) == pytest.approx(3)
    assert quality.unexplained_variance(ramp.mean().expand(1, 4, 4), ramp) == pytest.approx(1)
