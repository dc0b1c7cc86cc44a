"""Regular patterns: periods, cells, projection, and sizes on which they fit."""

import math

import pytest
import torch
from torch import Tensor

from gcn_cli.pattern import (
    HIDING_NOISE,
    HIDING_NOISE_OF_HARMONIC,
    Pattern,
    PatternProjection,
    Periods,
    autocorrelation,
    find_pattern,
    find_period,
    find_periods,
    fitting_side,
    pattern_basis,
    pattern_fits,
    projection_levels,
    resample_torus,
)
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise


def blurred_noise(seed: int = 0, side: int = 256) -> Tensor:
    """Blurred white noise of deviation 1: an irregular texture."""
    white = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(seed))
    blurred = torch.nn.functional.avg_pool2d(white, 5, stride=1, padding=2)[0]
    return blurred / blurred.std()


def joints(period: float, side: int = 256) -> Tensor:
    """-1 in a fifth of every period, (side,)."""
    positions = torch.arange(side) / period
    return -((positions - positions.floor()) < 0.2).float()


def grid(down: float, across: float) -> Tensor:
    return torch.minimum(joints(down)[:, None], joints(across)[None])[None]


def bricks(course: int = 16, brick: int = 32, side: int = 256) -> Tensor:
    """Courses of bricks, every other one moved by half a brick."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    moved = x + (y // course % 2) * (brick // 2)
    return -((y % course < 3) | (moved % brick < 4)).float()[None]


def wall(side: int, width: float, height: float, noise: float = 0.3) -> Tensor:
    """Bricks with joints, every other course moved by half, every brick of its own gray."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*(torch.arange(float(side)),) * 2, indexing="ij")
    course = (rows / height).floor()
    along = columns / width + 0.5 * (course % 2)
    joint = ((rows / height) % 1 < 0.15) | (along % 1 < 0.15)
    grays = torch.rand(200, 200, generator=generator)[course.long(), along.floor().long()]
    image = torch.where(joint, -1.0, 0.5 * grays)
    return (image + noise * torch.randn(side, side, generator=generator))[None].expand(3, -1, -1)


def standardized(image: Tensor) -> Tensor:
    return (image - image.mean()) / image.std()


def textured(image: Tensor, seed: int = 0, noise: float = 0.3) -> Tensor:
    return standardized(image + noise * blurred_noise(seed, image.shape[-1]))


@pytest.mark.parametrize(("width", "height"), [(20.0, 10.0), (31.4, 13.3), (40.0, 24.0)])
def test_the_periods_of_a_wall(width: float, height: float) -> None:
    image = wall(200, width, height)
    down, across = find_period(image, -2), find_period(image, -1)
    assert across == pytest.approx(width, rel=0.01)
    assert down is not None  # one course, or two, after which bricks are aligned again
    assert min(abs(down / height - 1), abs(down / height - 2)) < 0.02
    assert find_periods([image, image]) == (down, across)
    assert find_periods([image, wall(200, 1.1 * width, height)])[1] is None


def test_unknown_pixels_do_not_change_the_period() -> None:
    image, known = wall(200, 20.0, 10.0).clone(), torch.ones(200, 200, dtype=torch.bool)
    known[50:90, 30:120] = False
    image[:, ~known] = torch.nan
    assert find_period(image, -1, known) == pytest.approx(20.0, rel=0.01)


def test_irregular_and_small_images_have_no_period() -> None:
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(128.0).expand(1, 128, 128)
    for image in (noise, ramp, ramp * 0 + 5, noise[:, :9, :9]):
        assert find_period(image, -1) is None


def test_the_autocorrelation_of_a_wave_is_its_cosine() -> None:
    wave = torch.sin(2 * math.pi * torch.arange(400.0) / 16).expand(1, 4, 400).double()
    expected = torch.cos(2 * math.pi * torch.arange(100) / 16).double()
    torch.testing.assert_close(autocorrelation(wave, -1)[:100], expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_an_irregular_texture_has_no_pattern(seed: int) -> None:
    assert find_pattern([blurred_noise(seed)]) is None


def test_bent_courses_have_no_pattern() -> None:
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    bent = torch.cos(2 * math.pi * (rows / 20 + 1.5 * torch.sin(columns / 25)))
    assert find_pattern([textured(bent[None])]) is None


def test_small_and_plain_images_have_no_pattern() -> None:
    assert find_pattern([blurred_noise(side=8)]) is None
    assert find_pattern([torch.zeros(3, 64, 64)]) is None
    assert find_pattern([standardized(grid(3.0, 3.0)[:, :24, :24])]) is None


@pytest.mark.parametrize("periods", [(25.6, 25.6), (19.0, 33.3), (18.96, None), (None, 20.6)])
def test_the_periods_of_grids_and_courses(periods: Periods) -> None:
    down, across = periods
    rows = torch.zeros(256) if down is None else joints(down)
    columns = torch.zeros(256) if across is None else joints(across)
    pattern = find_pattern([textured(torch.minimum(rows[:, None], columns[None])[None])])
    assert pattern is not None
    for period, expected in zip(pattern.periods, periods, strict=True):
        assert (period is None) == (expected is None)
        assert period is None or period == pytest.approx(expected, abs=0.06)


def test_few_joints_of_long_narrow_tiles_are_found_next_to_many() -> None:
    """The joints across hide those down in the autocorrelation of the whole image."""
    down, across = 68.6, 20.6
    y, x = torch.arange(512) / down, torch.arange(512) / across
    thin = ((y - y.floor()) < 0.05)[:, None] | ((x - x.floor()) < 0.15)[None]
    pattern = find_pattern([textured(-thin.float()[None], noise=0.1)])
    assert pattern is not None
    assert pattern.periods == pytest.approx((down, across), rel=0.01)


def test_the_cell_of_bricks_has_two_courses_and_is_the_mean_of_the_image() -> None:
    clean = standardized(bricks())
    noisy = textured(clean)
    pattern = find_pattern([noisy])
    assert pattern is not None
    assert pattern.periods == pytest.approx((32, 32), abs=0.05)
    rows, columns = (pattern_basis(period, torch.arange(256.0)) for period in pattern.periods)
    repeated = rows.T @ pattern.cell @ columns
    error = float((repeated - clean).square().mean())
    # All but wavelengths under four pixels, which are left out.
    assert error / float(clean.square().mean()) < 0.15
    assert error < float((noisy - clean).square().mean()) + 0.1


def test_images_must_agree_in_their_periods() -> None:
    first, second = (textured(grid(25.6, 25.6), seed) for seed in (0, 1))
    pattern = find_pattern([first, second])
    assert pattern is not None
    assert pattern.periods == pytest.approx((25.6, 25.6), abs=0.05)
    assert find_pattern([first, blurred_noise(1)]) is None


def test_unknown_pixels_are_left_out_of_the_pattern() -> None:
    image = textured(grid(25.6, 25.6))
    known = torch.ones_like(image[0], dtype=torch.bool)
    known[40:70, 100:140] = False
    pattern = find_pattern([image.masked_fill(~known, torch.nan)], [known])
    assert pattern is not None
    assert bool(pattern.cell.isfinite().all())


def test_the_variance_between_repetitions_is_that_of_the_grain() -> None:
    """White grain of deviation d has variance d^2 at every harmonic."""
    grain = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    image = grid(16, 16) * 3 + 0.5 * grain
    pattern = find_pattern([image - image.mean()])
    assert pattern is not None
    assert pattern.variance.shape == pattern.cell.shape
    assert float(pattern.variance.mean()) == pytest.approx(0.25, rel=0.15)


SIZE = (48, 64)


def make_pattern(periods: Periods = (12.0, 16.0), variance: float = 0.0) -> Pattern:
    harmonics = [len(pattern_basis(period, torch.zeros(1))) for period in periods]
    cell = torch.randn(3, *harmonics, generator=torch.Generator().manual_seed(0)).double()
    cell[:, 0, 0] = 0
    return Pattern(periods, cell, torch.full_like(cell, variance))


def project(pattern: Pattern) -> PatternProjection:
    return PatternProjection(pattern, SIZE, torch.zeros(2, 2, dtype=torch.float64))


def random_images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("periods", [(12.0, 16.0), (12.0, None), (None, 16.0)])
def test_harmonics_are_those_of_the_pattern_and_the_rest_is_the_denoisers(periods: Periods) -> None:
    pattern, mean = make_pattern(periods), random_images(1)
    shifts = torch.tensor([[0.0, 0.0], [0.25, 0.5]], dtype=torch.float64)
    projection = PatternProjection(pattern, SIZE, shifts)
    projected = projection.wrap(lambda x, noise: mean.clone())(random_images(2), 5.0)
    positions = [torch.arange(side).double() for side in SIZE]
    rows, columns = (
        pattern_basis(period, places) / math.sqrt(len(places))
        for period, places in zip(periods, positions, strict=True)
    )

    def harmonics(image: Tensor) -> Tensor:
        return rows.T @ (rows @ image @ columns.T) @ columns

    for image, before, shift in zip(projected, mean, shifts.tolist(), strict=True):
        shifted = [
            pattern_basis(period, places + share * (period or 1.0))
            for period, places, share in zip(periods, positions, shift, strict=True)
        ]
        target = shifted[0].T @ pattern.cell @ shifted[1]
        # The mean color stays that of D.
        color = before.mean(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(harmonics(image) - color, target)
        torch.testing.assert_close(harmonics(image - before), image - before)


def test_a_pattern_fits_where_whole_periods_are_near() -> None:
    pattern = make_pattern()
    assert pattern_fits(pattern, SIZE)
    assert pattern_fits(pattern, (50, 62))
    assert not pattern_fits(pattern, (18, 64))  # one period and a half
    assert not pattern_fits(pattern, (8, 64))
    assert pattern_fits(make_pattern((None, None)), (5, 5))
    with pytest.raises(ValueError, match="no whole number of periods"):
        PatternProjection(pattern, (18, 64), torch.zeros(1, 2))
    squeezed = PatternProjection(pattern, (50, 62), torch.zeros(1, 2, dtype=torch.float64))
    rows = squeezed.rows[0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))


@pytest.mark.slow
def test_chains_have_the_variance_between_repetitions_about_the_pattern() -> None:
    """Annealed with a denoiser that gives 0, harmonics are distributed as N(m, R)."""
    size, variance, count = (24, 32), 4.0, 200
    pattern = make_pattern(variance=variance)
    projection = PatternProjection(pattern, size, torch.zeros(count, 2, dtype=torch.float64))
    levels = noise_levels(40, 100.0, 1.001 * float(projection_levels(pattern).max()))
    start = levels[0] * ImageNoise(0, "start", range(count))((count, 3, *size)).double()
    denoise = projection.wrap(lambda x, _: torch.zeros_like(x))
    steps: list[Tensor] = []
    noise = ImageNoise(0, "chain", range(count))
    anneal(start, denoise, levels, noise, lambda _, x: steps.append(x.clone()))
    rows, columns = projection.rows, projection.columns.transpose(1, 2)
    harmonics = rows @ steps[-2][:, 0] @ columns - projection.target[0]
    harmonics[:, 0, 0] = 0
    expected = variance + levels[-1] ** 2
    assert float(harmonics.square().mean()) == pytest.approx(expected, rel=0.1)


def test_a_pattern_is_projected_while_noise_hides_what_differs() -> None:
    pattern, mean, x = make_pattern(variance=4.0), random_images(1), random_images(2)
    level = float(projection_levels(pattern).max())
    assert level == pytest.approx(HIDING_NOISE * math.sqrt(3 * 4.0))  # three channels together
    denoise = project(pattern).wrap(lambda x, noise: mean.clone())
    assert torch.equal(denoise(x, level), mean)
    assert not torch.equal(denoise(x, 1.01 * level), mean)


def test_harmonics_that_differ_less_between_repetitions_are_projected_longer() -> None:
    pattern, mean = make_pattern(variance=4.0), random_images(1)
    pattern.variance[:, :, 3:] = 0.25
    pattern.variance[:, 2] = 1000.0  # limited by the mean
    levels = projection_levels(pattern)
    power, variance = pattern.cell.square().sum(dim=0), pattern.variance.sum(dim=0)
    limit = HIDING_NOISE * math.sqrt(float((power * variance).sum() / power.sum()))
    assert levels[2].tolist() == pytest.approx([limit] * levels.shape[1])
    assert float(levels[1, 1]) == pytest.approx(HIDING_NOISE_OF_HARMONIC * math.sqrt(12.0))
    assert float(levels[1, 3]) == pytest.approx(HIDING_NOISE_OF_HARMONIC * math.sqrt(0.75))
    projection, noise = project(pattern), 0.5 * float(levels[1, 1] + levels[1, 3])
    changed = projection.wrap(lambda x, _: mean.clone())(random_images(2), noise) - mean
    harmonics = projection.rows @ changed[:, 0] @ projection.columns.transpose(1, 2)
    assert float(harmonics[:, 1:, 1:3].abs().max()) < 1e-9
    assert float(harmonics[:, 1, 3:].abs().min()) > 1e-6


@pytest.mark.parametrize(
    ("side", "period", "fitted"),
    [
        (256, None, (256, True)),
        (256, 25.6, (256, True)),
        (256, 18.76, (263, True)),  # 14 periods
        (512, 68.5, (512, False)),  # 7 or 8 periods are too far
        (4096, 20.62, (4096, True)),  # a tenth of a percent is invisible
    ],
)
def test_a_torus_takes_whole_periods_where_they_are_near(
    side: int, period: float | None, fitted: tuple[int, bool]
) -> None:
    assert fitting_side(side, period) == fitted


@pytest.mark.parametrize("size", [(40, 60), (45, 53), (37, 60), (40, 64)])
def test_a_resampled_torus_is_the_same_function(size: tuple[int, int]) -> None:
    def waves(height: int, width: int) -> Tensor:
        rows = torch.arange(height).double()[:, None] / height
        columns = torch.arange(width).double() / width
        first = torch.sin(2 * math.pi * (5 * columns + 3 * rows))
        return 3 + first + torch.cos(2 * math.pi * (7 * rows - 11 * columns) + 0.4)

    resampled = resample_torus(waves(40, 60)[None], size)
    torch.testing.assert_close(resampled[0], waves(*size), rtol=0, atol=1e-9)
