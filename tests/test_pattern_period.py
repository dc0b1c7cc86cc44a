"""Periods of drawn patterns; tori stretched by their waves."""

import math

import pytest
import torch
from torch import Tensor

from gcn_cli.pattern import autocorrelation, find_period, fitting_side, resample_torus


def tiles(side: int, width: float, height: float, noise: float = 0.3) -> Tensor:
    """Bricks with joints, each row moved by half, every brick of its own gray."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*(torch.arange(float(side)),) * 2, indexing="ij")
    course = (rows / height).floor()
    along = columns / width + 0.5 * (course % 2)
    joint = ((rows / height) % 1 < 0.15) | (along % 1 < 0.15)
    grays = torch.rand(200, 200, generator=generator)[course.long(), along.floor().long()]
    picture = torch.where(joint, -1.0, 0.5 * grays)
    return (picture + noise * torch.randn(side, side, generator=generator))[None].expand(3, -1, -1)


@pytest.mark.parametrize(("width", "height"), [(20.0, 10.0), (31.4, 13.3), (40.0, 24.0)])
def test_periods_of_a_wall_are_found(width: float, height: float) -> None:
    wall = tiles(200, width, height)
    across, down = find_period(wall, -1), find_period(wall, -2)
    assert across == pytest.approx(width, rel=0.01)
    assert down is not None  # a course, or the two after which bricks lie alike
    assert min(abs(down / height - 1), abs(down / height - 2)) < 0.02


def test_what_is_hidden_does_not_count() -> None:
    wall = tiles(200, 20.0, 10.0).clone()
    wall[:, 50:90, 30:120] = torch.nan
    assert find_period(wall, -1) == pytest.approx(20.0, rel=0.01)


def test_what_is_irregular_has_none() -> None:
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    slope = torch.arange(128.0).expand(1, 128, 128)
    for picture in (noise, slope, slope * 0 + 5, noise[:, :9, :9]):
        assert find_period(picture, -1) is None


def test_correlation_of_a_wave_is_its_cosine() -> None:
    wave = torch.sin(2 * math.pi * torch.arange(400.0) / 16).expand(1, 4, 400).double()
    lags = torch.arange(100)
    expected = torch.cos(2 * math.pi * lags / 16).double()
    found = autocorrelation(wave, -1)[:100]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("side", "repeats", "found"),
    [
        (256, None, (256, True)),
        (256, 25.6, (256, True)),
        (256, 18.76, (263, True)),  # 14 of them
        (512, 68.5, (512, False)),  # 7 or 8 are too far
        (4096, 20.62, (4096, True)),  # a tenth of a percent is not seen
    ],
)
def test_a_torus_takes_whole_periods_where_they_are_near(
    side: int, repeats: float | None, found: tuple[int, bool]
) -> None:
    assert fitting_side(side, repeats) == found


@pytest.mark.parametrize("size", [(40, 60), (45, 53), (37, 60), (40, 64)])
def test_a_stretched_torus_is_the_same_function_read_elsewhere(size: tuple[int, int]) -> None:
    def waves(height: int, width: int) -> Tensor:
        rows = torch.arange(height).double()[:, None] / height
        columns = torch.arange(width).double() / width
        return (
            3
            + torch.sin(2 * math.pi * (5 * columns + 3 * rows))
            + torch.cos(2 * math.pi * (7 * rows - 11 * columns) + 0.4)
        )

    made = resample_torus(waves(40, 60)[None], size)
    torch.testing.assert_close(made[0], waves(*size), rtol=0, atol=1e-9)
