"""The verdict on a model: between an untrained one and another crop, limited by its worst part."""

import math

import pytest

from gcn_cli.metrics.verdict import CLOSE, FAIR, FAR, ROUGH, Limit, Untrained, judge

GOOD = {"quality": 1.01, "structure": 1.02, "classifier": 0.7, "variety": 0.9, "copied": 0.0}


def test_an_untrained_model_is_far_however_small_its_distance() -> None:
    """Rock: noise with its spectrum has 1.13, which was praised as near."""
    untrained = judge({**GOOD, "quality": 1.13}, Untrained(1.13, 0.9))
    assert untrained is not None
    assert (untrained.word, untrained.closeness) == (FAR, 0.0)
    worse = judge({**GOOD, "quality": 1.17}, Untrained(1.13, 0.9))
    assert worse is not None
    assert worse.closeness == 0.0
    for quality, word in ((1.12, FAR), (1.08, ROUGH), (1.05, FAIR), (1.02, CLOSE)):
        verdict = judge({**GOOD, "quality": quality}, Untrained(1.13, 0.9))
        assert verdict is not None
        assert verdict.word == word


@pytest.mark.parametrize(
    ("metric", "value", "word"),
    [
        ("structure", 1.3, ROUGH),
        ("structure", 1.2, FAIR),
        ("classifier", 1.0, FAIR),
        ("variety", 0.5, FAIR),
        ("copied", 0.1, FAIR),
    ],
)
def test_a_bad_part_limits_the_word(metric: str, value: float, word: str) -> None:
    verdict = judge({**GOOD, metric: value}, Untrained(1.3, 0.9))
    assert verdict is not None
    assert verdict.word == word
    assert len(verdict.limits) == 1
    assert verdict.limits[0].startswith(f"{metric} {value:.2f}")


def test_the_training_limits_the_word_and_the_worst_limit_is_first() -> None:
    verdict = judge(
        {**GOOD, "variety": 0.5}, Untrained(1.3, 0.9), [Limit(ROUGH, "the training is short")]
    )
    assert verdict is not None
    assert verdict.word == ROUGH
    assert verdict.limits == ["the training is short", "variety 0.50: too uniform"]
    good = judge(GOOD, Untrained(1.3, 0.9))
    assert good is not None
    assert (good.word, good.limits) == (CLOSE, [])


def test_where_an_untrained_model_is_as_near_the_measure_sees_little() -> None:
    for untrained, reason in (
        (Untrained(1.01, 0.9), "untrained models have 1.01 already: little is measured"),
        (Untrained(1.3, 0.5), "the exemplar has large things, which are not measured"),
    ):
        verdict = judge(GOOD, untrained)
        assert verdict is not None
        assert verdict.word == FAIR
        assert verdict.limits == [reason]


def test_what_could_not_be_measured_limits_nothing() -> None:
    small = {"quality": 1.01, "structure": math.nan, "classifier": None, "variety": 1.0}
    verdict = judge(small, Untrained(1.3, 0.9))
    assert verdict is not None
    assert (verdict.word, verdict.limits) == (CLOSE, [])
    assert judge({"quality": math.inf}, Untrained(1.3, 0.9)) is None
    assert judge({"quality": None}, Untrained(1.3, 0.9)) is None
