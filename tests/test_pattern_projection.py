"""Waves of a pattern are held above levels of theirs, and nothing else is touched."""

import math

import pytest
import torch
from torch import Tensor

from gcn_cli.pattern import (
    HIDING_NOISE,
    HIDING_NOISE_OF_HARMONIC,
    Pattern,
    PatternProjection,
    projection_levels,
    pattern_basis,
    pattern_fits,
)
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise


def pattern(down: float | None = 12.0, across: float | None = 16.0, spread: float = 0.0) -> Pattern:
    waves = [len(pattern_basis((down, across)[axis], torch.zeros(1))) for axis in (0, 1)]
    cell = torch.randn(3, *waves, generator=torch.Generator().manual_seed(0)).double()
    cell[:, 0, 0] = 0
    return Pattern((down, across), cell, torch.full_like(cell, spread))


def images(size: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)


def laid(one: Pattern, size: tuple[int, int], move: tuple[float, float]) -> Tensor:
    """The pattern itself on a torus of whole periods, moved by shares of its cell."""
    waves = []
    for axis, (side, share) in enumerate(zip(size, move, strict=True)):
        repeats = one.periods[axis] or 1.0
        waves.append(
            pattern_basis(one.periods[axis], torch.arange(side).double() + share * repeats)
        )
    return waves[0].T @ one.cell @ waves[1]


@pytest.mark.parametrize("periods", [(12.0, 16.0), (12.0, None), (None, 16.0)])
def test_held_waves_are_those_of_the_pattern_and_the_rest_is_ds(
    periods: tuple[float | None, float | None],
) -> None:
    size, one = (48, 64), pattern(*periods)
    moves = torch.tensor([[0.0, 0.0], [0.25, 0.5]], dtype=torch.float64)
    mean = images(size, 1)
    held = PatternProjection(one, size, moves).wrap(lambda x, noise: mean.clone())
    made = held(images(size, 2), 5.0)
    for image, before, move in zip(made, mean, moves.tolist(), strict=True):
        m = laid(one, size, (move[0], move[1]))
        # P image = m, but for the mean color, which stays D's; image - D lies in P.
        up, along = (
            pattern_basis(one.periods[axis], torch.arange(side).double()) / math.sqrt(side)
            for axis, side in enumerate(size)
        )
        own = up.T @ (up @ image @ along.T) @ along
        torch.testing.assert_close(own - before.mean(dim=(1, 2), keepdim=True), m)
        changed = image - before
        torch.testing.assert_close(up.T @ (up @ changed @ along.T) @ along, changed)


def test_whole_periods_are_taken_where_they_are_near() -> None:
    one = pattern()
    assert pattern_fits(one, (48, 64))
    assert pattern_fits(one, (50, 62))
    assert not pattern_fits(one, (18, 64))  # one and a half
    assert not pattern_fits(one, (8, 64))
    assert pattern_fits(pattern(None, None), (5, 5))
    with pytest.raises(ValueError, match="no whole number of periods"):
        PatternProjection(one, (18, 64), torch.zeros(1, 2))
    squeezed = PatternProjection(one, (50, 62), torch.zeros(1, 2, dtype=torch.float64))
    up = squeezed.rows[0]
    torch.testing.assert_close(up @ up.T, torch.eye(len(up), dtype=torch.float64))


def test_what_differs_between_repetitions_is_drawn_about_the_pattern() -> None:
    """Annealed with no other D than that, waves are N(m, R)."""
    size, spread, count = (24, 32), 4.0, 200
    one = pattern(spread=spread)
    held = PatternProjection(one, size, torch.zeros(count, 2, dtype=torch.float64))
    noise = ImageNoise(0, "chain", range(count))
    levels = noise_levels(40, 100.0, 1.001 * float(projection_levels(one).max()))
    start = levels[0] * ImageNoise(0, "start", range(count))((count, 3, *size)).double()
    denoise = held.wrap(lambda x, _: torch.zeros_like(x))
    seen: list[Tensor] = []
    anneal(start, denoise, levels, noise, lambda _, x: seen.append(x.clone()))
    waves = held.rows @ seen[-2][:, 0] @ held.columns.transpose(1, 2) - held.target[0]
    waves[:, 0, 0] = 0
    expected = spread + levels[-1] ** 2
    assert float(waves.square().mean()) == pytest.approx(expected, rel=0.1)


def test_a_pattern_is_held_while_noise_hides_what_differs() -> None:
    one, size = pattern(spread=4.0), (48, 64)
    level = float(projection_levels(one).max())
    assert level == pytest.approx(HIDING_NOISE * math.sqrt(3 * 4.0))  # of three channels together
    held, mean = (
        PatternProjection(one, size, torch.zeros(2, 2, dtype=torch.float64)),
        images(size, 1),
    )
    denoise = held.wrap(lambda x, noise: mean.clone())
    assert torch.equal(denoise(images(size, 2), level), mean)
    assert not torch.equal(denoise(images(size, 2), 1.01 * level), mean)


def test_waves_that_differ_less_between_repetitions_are_held_longer() -> None:
    one, size = pattern(spread=4.0), (48, 64)
    one.variance[:, :, 3:] = 0.25
    one.variance[:, 2] = 1000.0  # more than the mean: no longer than that
    levels = projection_levels(one)
    power, spread = one.cell.square().sum(dim=0), one.variance.sum(dim=0)
    mean = float((power * spread).sum() / power.sum())
    assert levels[2].tolist() == pytest.approx([HIDING_NOISE * math.sqrt(mean)] * levels.shape[1])
    assert float(levels[1, 1]) == pytest.approx(HIDING_NOISE_OF_HARMONIC * math.sqrt(12.0))
    assert float(levels[1, 3]) == pytest.approx(HIDING_NOISE_OF_HARMONIC * math.sqrt(0.75))
    held, mean_image = (
        PatternProjection(one, size, torch.zeros(2, 2, dtype=torch.float64)),
        images(size, 1),
    )
    noise = 0.5 * float(levels[1, 1] + levels[1, 3])
    changed = held.wrap(lambda x, _: mean_image.clone())(images(size, 2), noise) - mean_image
    waves = (held.rows @ changed[:, 0] @ held.columns.transpose(1, 2)).abs()
    assert float(waves[:, 1:, 1:3].max()) < 1e-9
    assert float(waves[:, 1, 3:].min()) > 1e-6
