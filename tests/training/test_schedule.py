"""The plan of a training against the sums that it stands for."""

import math
from dataclasses import replace

import pytest

from gcn_cli.training.schedule import REFINING_COST, Schedule, length_for, longest_within, work_done

ALONE = Schedule(begun=0, length=1000, refined=0.2, refined_rate=0.1, refined_fully=200)
SETTLING = replace(ALONE, refined=0.8, refined_rate=0.3, refined_fully=800)


def test_a_whole_course_takes_both_its_parts() -> None:
    assert ALONE.turn == 800
    assert ALONE.work(1000) == pytest.approx(800 + 200 * REFINING_COST)
    assert ALONE.work(500) == 500
    again = replace(ALONE, begun=1000, length=1100)
    assert again.turn == 1080
    assert again.work(1100) == pytest.approx(80 + 20 * REFINING_COST)


@pytest.mark.parametrize("begun", [0, 700])
def test_no_longer_whole_course_would_fit(begun: int) -> None:
    two = [(3.0, replace(ALONE, begun=begun)), (1.0, replace(SETTLING, begun=begun))]
    for work in (10.0, 777.0, 5000.0):
        found = longest_within(two, work)

        def taken(iterations: int) -> float:
            end = begun + iterations
            return work_done([(cost, replace(own, length=end)) for cost, own in two], end)

        assert taken(found) <= work < taken(found + 1)


def test_a_plan_is_the_closed_form_of_one_ladder_and_never_too_short() -> None:
    """After 100 of 0.1 s and with 100 s left: (100 + 1000) / (0.8 + 0.2 * 2.2) iterations."""
    alone = [(1.0, ALONE)]
    expected = 1100 / (0.8 + 0.2 * REFINING_COST)
    assert length_for(alone, 100, 0.1, 100.0) == pytest.approx(expected, abs=2)
    assert length_for(alone, 100, 0.1, 0.0) == math.ceil(100 / 0.8) + 1
    assert length_for(alone, 801, 0.1, 100.0) is None


def test_the_likelihood_goes_as_far_however_long_it_has() -> None:
    """Rates summed over it are the same from `refined_fully` on, and less for less."""

    def way(length: int) -> float:
        own = replace(ALONE, length=length)
        return sum(own.rate(iteration) for iteration in range(own.turn + 1, length + 1))

    assert way(2000) == pytest.approx(way(1000), rel=0.01)
    assert way(5000) == pytest.approx(way(1000), rel=0.01)
    assert way(500) == pytest.approx(way(1000) / 2, rel=0.02)
    for length in (500, 3000):
        own = replace(ALONE, length=length)
        assert own.rate(own.turn) == pytest.approx(own.turning_rate)  # no step where it begins
        assert own.rate(own.turn + 1) == pytest.approx(own.turning_rate, rel=0.02)
