"""The cell of a regular texture: found where there is one, and what it says of the picture."""

import math

import pytest
import torch
from torch import Tensor

from gcn_cli.pattern import Pattern, find_pattern, pattern_basis


def noise(seed: int = 0, side: int = 256) -> Tensor:
    """Blurred white noise of deviation 1: an irregular texture."""
    drawn = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(seed))
    blurred = torch.nn.functional.avg_pool2d(drawn, 5, stride=1, padding=2)[0]
    return blurred / blurred.std()


def joints(period: float, side: int = 256) -> Tensor:
    """-1 in a fifth of every period, (side,)."""
    places = torch.arange(side) / period
    return -((places - places.floor()) < 0.2).float()


def grid(down: float, across: float) -> Tensor:
    return torch.minimum(joints(down)[:, None], joints(across)[None])[None]


def bricks(course: int = 16, brick: int = 32, side: int = 256) -> Tensor:
    """Courses, every other one moved by half a brick."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    moved = x + (y // course % 2) * (brick // 2)
    return -((y % course < 3) | (moved % brick < 4)).float()[None]


def scaled(picture: Tensor) -> Tensor:
    return (picture - picture.mean()) / picture.std()


@pytest.mark.parametrize("seed", range(5))
def test_an_irregular_texture_has_no_pattern(seed: int) -> None:
    assert find_pattern([noise(seed)]) is None


def test_courses_that_bend_are_no_pattern() -> None:
    rows, along = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    bent = torch.cos(2 * math.pi * (rows / 20 + 1.5 * torch.sin(along / 25)))
    assert find_pattern([scaled(bent[None] + 0.3 * noise())]) is None


@pytest.mark.parametrize("periods", [(25.6, 25.6), (19.0, 33.3), (18.96, None), (None, 20.6)])
def test_the_periods_of_grids_and_courses_are_found(
    periods: tuple[float | None, float | None],
) -> None:
    down, across = periods
    lines = grid(down or 1e9, across or 1e9) if down and across else (
        joints(down)[None, :, None] if down else joints(across or 0)[None, None]
    )  # fmt: skip
    found = find_pattern([scaled(lines.expand(1, 256, 256) + 0.3 * noise())])
    assert found is not None
    for own, expected in zip(found.periods, periods, strict=True):
        assert (own is None) == (expected is None)
        assert own is None or own == pytest.approx(expected, abs=0.06)


def test_a_cell_of_bricks_has_two_courses_and_is_the_mean_of_the_picture() -> None:
    clean = scaled(bricks())
    found = find_pattern([scaled(clean + 0.3 * noise())])
    assert found is not None
    assert found.periods == pytest.approx((32, 32), abs=0.05)
    up, along = (pattern_basis(found.periods[axis], torch.arange(256.0)) for axis in (0, 1))
    made = up.T @ found.cell @ along
    # But for waves under four pixels, which are left out.
    assert float((made - clean).square().mean() / clean.square().mean()) < 0.15
    noisy = scaled(clean + 0.3 * noise())
    assert float((made - clean).square().mean()) < float((noisy - clean).square().mean()) + 0.1


def test_pictures_have_to_agree() -> None:
    one = scaled(grid(25.6, 25.6) + 0.3 * noise(0))
    other = scaled(grid(25.6, 25.6) + 0.3 * noise(1))
    found = find_pattern([one, other])
    assert found is not None
    assert found.periods == pytest.approx((25.6, 25.6), abs=0.05)
    assert find_pattern([one, scaled(noise(1))]) is None


def test_holes_are_left_out_of_what_is_found() -> None:
    picture = scaled(grid(25.6, 25.6) + 0.3 * noise())
    picture[:, 40:70, 100:140] = torch.nan
    found = find_pattern([picture])
    assert isinstance(found, Pattern)
    assert bool(found.cell.isfinite().all())


def test_the_spread_is_the_power_of_the_grain() -> None:
    """Of white grain of deviation d in the picture, d^2 at every wave."""
    grain = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    picture = grid(16, 16) * 3 + 0.5 * grain
    found = find_pattern([picture - picture.mean()])
    assert found is not None
    assert found.variance.shape == found.cell.shape
    assert float(found.variance.mean()) == pytest.approx(0.25, rel=0.15)


def test_small_and_plain_pictures_have_none() -> None:
    assert find_pattern([noise(side=8)]) is None
    assert find_pattern([torch.zeros(3, 64, 64)]) is None
    assert find_pattern([scaled(grid(3.0, 3.0)[:, :24, :24])]) is None


def test_the_few_joints_of_long_narrow_tiles_are_found_beside_the_many() -> None:
    """The joints down hide those across in the autocorrelation of the whole."""
    down, across = 68.6, 20.6
    y, x = torch.arange(512) / down, torch.arange(512) / across
    thin = ((y - y.floor()) < 0.05)[:, None] | ((x - x.floor()) < 0.15)[None]
    found = find_pattern([scaled(-thin.float()[None] + 0.1 * noise(side=512))])
    assert found is not None
    assert found.periods == pytest.approx((down, across), rel=0.01)
