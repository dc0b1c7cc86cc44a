"""The bound on means of the gap, band by band of the levels."""

import pytest
import torch

from gcn_cli.training.losses import BandedDifferences

BOUND = 0.08


def test_the_gap_is_kept_from_growing() -> None:
    """Full slope without a gap, none at the largest, and the reverse beyond it."""
    ours = BandedDifferences(1.0, BOUND)
    for gap, slope in ((BOUND / 2, 0.75), (BOUND, 0.0), (50.0, -1.0), (0.0, 1.0), (-3.0, 1.0)):
        for _ in range(100):
            ours.note([2, 5], [gap, gap])
        assert ours.slopes([2, 5]) == pytest.approx([slope] * 2, abs=1e-4)


def test_a_band_that_runs_away_is_held_and_the_others_go_on() -> None:
    ours = BandedDifferences(1.0, BOUND)
    for _ in range(100):
        ours.note([0, 7], [BOUND, 0.0])
    assert ours.slopes([0, 7]) == pytest.approx([0.0, 1.0], abs=1e-4)


def test_chains_that_wait_are_in_no_band() -> None:
    ours = BandedDifferences(1.0, BOUND)
    ours.note([None, None], [1e9, 1e9])
    assert ours.means == [0.0] * 8
    assert ours.slopes([None, 0]) == [0.0, 1.0]


def test_its_state_comes_back_also_that_of_one_gap_for_all_levels() -> None:
    ours, again = BandedDifferences(0.5, BOUND), BandedDifferences(0.5, BOUND)
    ours.note([1], [0.01])
    again.load_state(ours.state())
    assert again.means == ours.means
    again.load_state(torch.tensor(0.01, dtype=torch.float64))
    assert again.means == [0.01] * 4
