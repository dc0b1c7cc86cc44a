"""Chains that walk down a ladder: against a Gaussian, whose noisy variance is known everywhere."""

import pytest
import torch

from gcn_cli.pattern import Pattern, pattern_basis
from gcn_cli.training.persistent_chains import PersistentChains

VARIANCE = 0.25


def means(ours: PersistentChains) -> torch.Tensor:
    """D of pixels N(0, VARIANCE), at every chain's level."""
    kept = VARIANCE / (VARIANCE + ours.levels().square())
    return ours.images * kept[:, None, None, None]


def chains(count: int = 4, steps: int = 16, side: int = 48) -> PersistentChains:
    return PersistentChains(
        count,
        (3, side, side),
        steps=steps,
        highest=20.0,
        lowest=0.05,
        seed=3,
        device=torch.device("cpu"),
    )


def test_every_chain_has_the_variance_of_noisy_data_at_its_level() -> None:
    ours = chains()
    for step in range(60):
        ours.advance(means(ours))
        if step < 32:
            continue
        level = ours.levels()
        expected = VARIANCE + level.square()
        found = ours.images.var(dim=(1, 2, 3))
        started = torch.tensor(ours.taken) == 0
        expected = torch.where(started, 1 + level.square(), expected)
        torch.testing.assert_close(found, expected, rtol=0.12, atol=0)


def test_chains_are_spread_over_the_levels_and_wait_for_their_turn() -> None:
    ours = chains()
    assert ours.walking().tolist() == [1, 0, 0, 0]
    for _ in range(16):
        ours.advance(means(ours))
    assert ours.walking().tolist() == [1, 1, 1, 1]
    parts = (torch.log(20.0 / ours.levels()) / torch.log(torch.tensor(20.0 / 0.05)) * 4).floor()
    assert sorted(parts.tolist()) == [0, 1, 2, 3]
    assert float(ours.levels().min()) >= 0.05
    assert float(ours.levels().max()) <= 20.0


def test_a_chain_alone_walks_at_once() -> None:
    ours = chains(count=1, steps=4)
    assert ours.walking().tolist() == [1]
    seen = []
    for _ in range(8):
        seen.append(ours.taken[0])
        ours.advance(means(ours))
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("stop_at", [1, 7, 16, 21])
def test_put_back_they_go_on_as_if_never_stopped(stop_at: int) -> None:
    first, second = chains(side=8), chains(side=8)
    for _ in range(stop_at):
        first.advance(means(first))
        first.crops((4, 4))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(20):
        for ours in (first, second):
            ours.advance(means(ours))
        assert torch.equal(first.crops((4, 6)), second.crops((4, 6)))
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.levels(), second.levels())


def test_crops_are_pieces_of_the_chains() -> None:
    ours = chains(count=2, side=8)
    ours.images.copy_(torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8))
    piece = ours.crops((4, 5))
    assert piece.shape == (2, 3, 4, 5)
    assert torch.equal(piece.diff(dim=-1), torch.ones(2, 3, 4, 4))
    assert torch.equal(piece.diff(dim=-2), torch.full((2, 3, 3, 5), 8.0))
    assert float(piece[1].min()) >= 192 > float(piece[0].max())


def patterned(seed: int = 3) -> PersistentChains:
    """Chains of 48 pixels told of stripes down, every 12 pixels, that repeat themselves exactly."""
    periods = (None, 12.0)
    cell = torch.zeros(3, 1, len(pattern_basis(periods, 1, torch.zeros(1))))
    cell[:, 0, 1] = 1.0
    return PersistentChains(
        4,
        (3, 48, 48),
        steps=8,
        highest=20.0,
        lowest=0.05,
        seed=seed,
        device=torch.device("cpu"),
        pattern=Pattern(periods, cell, torch.full_like(cell, 0.01)),
    )


def test_chains_follow_a_pattern_each_at_a_place_of_its_own() -> None:
    """D is 0: stripes of amplitude sqrt(2) come from the pattern, and are free again below it."""
    ours = patterned()
    for _ in range(40):
        ours.advance(torch.zeros_like(ours.images))
    stripes = torch.fft.fft(ours.images.mean(dim=(1, 2)))[:, 48 // 12]
    expected = torch.where(ours.levels() < 5, 2**0.5, stripes.abs() / 24)  # settled by then
    torch.testing.assert_close(stripes.abs() / 24, expected, rtol=0.25, atol=0)
    assert len({round(float(angle), 2) for angle in stripes.angle()}) == 4
    assert len(set(ours.moves[:, 1].tolist())) == 4


def test_chains_that_were_saved_follow_the_same_pattern() -> None:
    first, second = patterned(), patterned(seed=4)
    for _ in range(11):
        first.advance(torch.zeros_like(first.images))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(11):
        first.advance(torch.zeros_like(first.images))
        second.advance(torch.zeros_like(second.images))
    assert torch.equal(first.images, second.images)
    # A run of before this followed none, and goes on so.
    older = {name: tensor for name, tensor in first.state().items() if name != "moves"}
    second.load_state(older)
    second.advance(torch.zeros_like(second.images))
    assert "moves" not in second.state()
