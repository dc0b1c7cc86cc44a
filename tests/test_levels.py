"""Levels at which D is none are found; a ladder that is the Gaussian of the data is sound."""

from pathlib import Path

import pytest

import gcn_cli as gcn
from gcn_cli.analysis import LevelReport, unsound
from gcn_cli.errors import InputError
from tests.small import LADDER, PAPER, picture


def facts(*errors: float) -> list[LevelReport]:
    """Errors at noise of 8, 4, 2, ..."""
    return [LevelReport(8 / 2**k, error, 0.5, 0.5) for k, error in enumerate(errors)]


@pytest.mark.parametrize(
    ("errors", "noise"),
    [
        ((1.0, 0.8, 0.3, 0.05), None),
        ((1.02, 1.05, 0.3, 0.32), None),  # by as much as chance makes
        ((14.0, 0.8, 0.3, 0.05), 8),  # above the variance
        ((1.0, 0.4, 0.7, 0.05), 2),  # above that with more noise
        ((1.0, 1.3, 9.0, 0.05), 2),
    ],
)
def test_where_d_is_none(errors: tuple[float, ...], noise: float | None) -> None:
    found = unsound(facts(*errors))
    assert (None if found is None else found.noise) == noise


def test_a_ladder_before_it_learned_is_sound_and_one_that_shouts_is_not(tmp_path: Path) -> None:
    model = gcn.train(picture(), output=tmp_path / "run", iterations=1, **LADDER)
    net = model.checkpoint.family.net
    for readout in net.get_submodule("readouts").parameters():
        readout.data.zero_()  # the Gaussian with the data's spectrum
    levels = model.by_level()
    assert [one.noise for one in levels] == sorted((one.noise for one in levels), reverse=True)
    assert len(levels) == model.steps()
    assert unsound(levels) is None
    assert levels[0].error == pytest.approx(1, abs=0.1)
    assert levels[-1].error < 0.01
    assert levels[-1].data_decided == pytest.approx(1, abs=0.05)
    for readout in net.get_submodule("readouts").parameters():
        readout.data.fill_(3.0)
    assert unsound(model.by_level()) is not None


def test_the_same_levels_again(tmp_path: Path) -> None:
    model = gcn.train(picture(), output=tmp_path / "run", iterations=2, **LADDER)
    assert model.by_level() == model.by_level()


def test_what_has_no_levels_is_refused(tmp_path: Path) -> None:
    published = gcn.train(picture(), output=tmp_path / "mle", iterations=1, **PAPER)
    with pytest.raises(InputError, match="--levels: is for ladders of textures"):
        published.by_level()
    in_memory = gcn.train(picture(), iterations=1, **LADDER)
    with pytest.raises(InputError, match="--levels: needs the whole exemplar"):
        in_memory.by_level()
