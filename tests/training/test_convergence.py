"""Verdicts on courses of losses made for them."""

import random

import pytest

from gcn_cli.training.schedule import convergence, difference_warning


def course(start: float, end: float, *, flat_from: float = 1.0, count: int = 500) -> list[float]:
    """Linear from start to end at `flat_from` of the way, constant after, with 2 % of noise."""
    noise = random.Random(0)
    places = [min(1.0, k / count / flat_from) for k in range(count)]
    return [(start + (end - start) * p) * (1 + 0.02 * noise.gauss(0, 1)) for p in places]


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        (course(1.0, 0.5), "still learning"),
        (course(1.0, 0.5, flat_from=0.5), "settled"),
        (course(0.8, 0.8), "stalled"),
        ([*course(1.0, 0.5), 40.0], "unstable"),
    ],
)
def test_each_course_gets_its_word(losses: list[float], word: str) -> None:
    said = convergence(losses)
    assert said is not None
    assert said.startswith(word)


def test_few_losses_say_nothing() -> None:
    assert convergence([1.0] * 49) is None


def test_chains_that_stay_apart_are_said() -> None:
    assert difference_warning([]) is None
    assert difference_warning([0.2] * 20 + [0.01] * 20) is None
    said = difference_warning([0.01] * 20 + [0.08] * 20)
    assert said is not None
    assert said.startswith("unstable")
