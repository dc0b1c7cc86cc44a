"""Schedules against the sums they stand for, and convergence checks on synthetic losses."""

import math
import random
from dataclasses import replace

import pytest

from gcn_cli.errors import DivergedError
from gcn_cli.training.schedule import (
    LIKELIHOOD_COST,
    Schedule,
    check_divergence,
    convergence,
    difference_warning,
    length_for,
    longest_within,
    too_short_warning,
    total_cost,
)

FINE = Schedule(
    start=0, end=1000, likelihood_share=0.2, likelihood_rate=0.1, full_rate_iterations=200
)
COARSE = replace(FINE, likelihood_share=0.8, likelihood_rate=0.3, full_rate_iterations=800)


def test_cost_counts_both_parts() -> None:
    assert FINE.likelihood_start == 800
    assert FINE.cost(1000) == pytest.approx(800 + 200 * LIKELIHOOD_COST)
    assert FINE.cost(500) == 500
    extended = replace(FINE, start=1000, end=1100)
    assert extended.likelihood_start == 1080
    assert extended.cost(1100) == pytest.approx(80 + 20 * LIKELIHOOD_COST)


@pytest.mark.parametrize("start", [0, 700])
def test_longest_within_cannot_be_longer(start: int) -> None:
    schedules = [(3.0, replace(FINE, start=start)), (1.0, replace(COARSE, start=start))]

    def cost_of(iterations: int) -> float:
        end = start + iterations
        return total_cost([(cost, replace(old, end=end)) for cost, old in schedules], end)

    for cost in (10.0, 777.0, 5000.0):
        longest = longest_within(schedules, cost)
        assert cost_of(longest) <= cost < cost_of(longest + 1)


def test_length_for_is_the_closed_form_of_one_stage_and_never_too_short() -> None:
    """After 100 iterations of 0.1 s, with 100 s left: (100 + 1000) / (0.8 + 0.2 * 2.2)."""
    schedules = [(1.0, FINE)]
    expected = 1100 / (0.8 + 0.2 * LIKELIHOOD_COST)
    assert length_for(schedules, 100, 0.1, 100.0) == pytest.approx(expected, abs=2)
    assert length_for(schedules, 100, 0.1, 0.0) == math.ceil(100 / 0.8) + 1
    assert length_for(schedules, 801, 0.1, 100.0) is None


def test_summed_likelihood_rates_do_not_grow_with_the_length() -> None:
    """They are the same from `full_rate_iterations` on, and smaller for fewer."""

    def summed(end: int) -> float:
        schedule = replace(FINE, end=end)
        start = schedule.likelihood_start
        return sum(schedule.rate(iteration) for iteration in range(start + 1, end + 1))

    assert summed(2000) == pytest.approx(summed(1000), rel=0.01)
    assert summed(5000) == pytest.approx(summed(1000), rel=0.01)
    assert summed(500) == pytest.approx(summed(1000) / 2, rel=0.02)
    for end in (500, 3000):
        schedule = replace(FINE, end=end)
        start, rate = schedule.likelihood_start, schedule.likelihood_start_rate
        assert schedule.rate(start) == pytest.approx(rate)  # no jump where it starts
        assert schedule.rate(start + 1) == pytest.approx(rate, rel=0.02)


def make_losses(
    start: float, end: float, *, flat_from: float = 1.0, count: int = 500
) -> list[float]:
    """Linear from start to end at `flat_from` of the way, then constant, with 2 % of noise."""
    noise = random.Random(0)
    positions = [min(1.0, k / count / flat_from) for k in range(count)]
    return [(start + (end - start) * p) * (1 + 0.02 * noise.gauss(0, 1)) for p in positions]


FALLING = make_losses(1.0, 0.5)


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        (FALLING, "still learning"),
        (make_losses(1.0, 0.5, flat_from=0.5), "converged"),
        (make_losses(0.8, 0.8), "stalled"),
        ([*make_losses(1.0, 0.5), 40.0], "unstable"),
        ([40.0 if k % 40 == 0 else loss for k, loss in enumerate(FALLING)], "unstable"),
        ([4.0 if k == 220 else loss for k, loss in enumerate(FALLING)], "still learning"),
    ],
)
def test_convergence_names_the_state(losses: list[float], word: str) -> None:
    found = convergence(losses)
    assert found is not None
    assert found.state == word
    assert str(found) == f"{word}: {found.reason}"


def test_losses_that_vary_more_than_they_fall_show_nothing() -> None:
    """A loss varies by 8 % with its noise: a training that learned was called stalled."""
    noise = random.Random(1)
    losses = [0.39 * (1 + 0.08 * noise.gauss(0, 1)) for _ in range(240)]
    assert convergence(losses) is None


def test_convergence_needs_enough_losses() -> None:
    assert convergence([1.0] * 49) is None


def test_large_final_energy_difference_is_a_warning() -> None:
    assert difference_warning([]) is None
    assert difference_warning([0.2] * 20 + [0.01] * 20) is None
    message = difference_warning([0.01] * 20 + [0.08] * 20)
    assert message is not None
    assert message.startswith("unstable")
    assert "0.08" in message


def test_warning_of_a_short_training_names_a_complete_length() -> None:
    length = longest_within([(1.0, FINE)], 500)
    assert f"--iterations {length} --overwrite" in too_short_warning([(1.0, FINE)], 500)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((math.nan, 0.0, 1.0, 1.0), "iteration 7: loss is nan"),
        ((0.5, math.inf, 1.0, 1.0), "energy difference is inf"),
        ((0.5, 0.0, 1.0, math.nan), "deviation of a chain is nan"),
        ((30.0, 0.0, 1.0, 1.0), "the loss diverged to 30"),
        ((0.5, 0.0, 0.01, 1.0), "a chain collapsed to 0.01 times"),
        ((0.5, 0.0, 1.0, 25.0), "a chain diverged to 25 times"),
    ],
)
def test_divergence_says_what_diverged(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(DivergedError, match=message):
        check_divergence(7, *values)


def test_healthy_training_does_not_diverge() -> None:
    check_divergence(7, 0.5, 0.01, 0.9, 1.1)
