"""Persistent chains against a Gaussian, whose noisy variance is known at every level."""

import pytest
import torch

from gcn_cli.pattern import Pattern, pattern_basis
from gcn_cli.training.persistent_chains import PersistentChains

VARIANCE = 0.25


def gaussian_means(chains: PersistentChains) -> torch.Tensor:
    """D of pixels N(0, VARIANCE), at the level of each chain."""
    share = VARIANCE / (VARIANCE + chains.levels().square())
    return chains.images * share[:, None, None, None]


def make_chains(count: int = 4, steps: int = 16, side: int = 48) -> PersistentChains:
    return PersistentChains(
        count,
        (3, side, side),
        steps=steps,
        highest=20.0,
        lowest=0.05,
        seed=3,
        device=torch.device("cpu"),
    )


def test_chains_have_the_variance_of_noisy_data_at_their_level() -> None:
    chains = make_chains()
    for step in range(60):
        chains.advance(gaussian_means(chains))
        if step < 32:
            continue
        level = chains.levels()
        expected = VARIANCE + level.square()
        variance = chains.images.var(dim=(1, 2, 3))
        started = torch.tensor(chains.taken) == 0
        expected = torch.where(started, 1 + level.square(), expected)
        torch.testing.assert_close(variance, expected, rtol=0.12, atol=0)


def test_chains_wait_then_spread_evenly_over_the_levels() -> None:
    chains = make_chains()
    assert chains.active().tolist() == [1, 0, 0, 0]
    for _ in range(16):
        chains.advance(gaussian_means(chains))
    assert chains.active().tolist() == [1, 1, 1, 1]
    parts = (torch.log(20.0 / chains.levels()) / torch.log(torch.tensor(20.0 / 0.05)) * 4).floor()
    assert sorted(parts.tolist()) == [0, 1, 2, 3]
    assert float(chains.levels().min()) >= 0.05
    assert float(chains.levels().max()) <= 20.0


def test_single_chain_starts_at_once() -> None:
    chains = make_chains(count=1, steps=4)
    assert chains.active().tolist() == [1]
    taken = []
    for _ in range(8):
        taken.append(chains.taken[0])
        chains.advance(gaussian_means(chains))
    assert taken == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("stop_at", [1, 7, 16, 21])
def test_state_resumes_exactly(stop_at: int) -> None:
    first, second = make_chains(side=8), make_chains(side=8)
    for _ in range(stop_at):
        first.advance(gaussian_means(first))
        first.crops((4, 4))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(20):
        for chains in (first, second):
            chains.advance(gaussian_means(chains))
        assert torch.equal(first.crops((4, 6)), second.crops((4, 6)))
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.levels(), second.levels())


def test_crops_are_windows_of_the_images() -> None:
    chains = make_chains(count=2, side=8)
    chains.images.copy_(torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8))
    crop = chains.crops((4, 5))
    assert crop.shape == (2, 3, 4, 5)
    assert torch.equal(crop.diff(dim=-1), torch.ones(2, 3, 4, 4))
    assert torch.equal(crop.diff(dim=-2), torch.full((2, 3, 3, 5), 8.0))
    assert float(crop[1].min()) >= 192 > float(crop[0].max())


def make_patterned(seed: int = 3) -> PersistentChains:
    """Chains of 48 pixels with a pattern of vertical stripes of period 12."""
    periods = (None, 12.0)
    cell = torch.zeros(3, 1, len(pattern_basis(periods[1], torch.zeros(1))))
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


def test_chains_follow_a_pattern_each_with_its_own_shift() -> None:
    """D is 0: stripes of amplitude sqrt(2) come from the pattern down to its lowest level."""
    chains = make_patterned()
    for _ in range(40):
        chains.advance(torch.zeros_like(chains.images))
    stripes = torch.fft.fft(chains.images.mean(dim=(1, 2)))[:, 48 // 12]
    expected = torch.where(chains.levels() < 5, 2**0.5, stripes.abs() / 24)  # projected by then
    torch.testing.assert_close(stripes.abs() / 24, expected, rtol=0.25, atol=0)
    assert len({round(float(angle), 2) for angle in stripes.angle()}) == 4
    assert len(set(chains.shifts[:, 1].tolist())) == 4


def test_state_restores_the_shifts_of_the_pattern() -> None:
    first, second = make_patterned(), make_patterned(seed=4)
    for _ in range(11):
        first.advance(torch.zeros_like(first.images))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(11):
        first.advance(torch.zeros_like(first.images))
        second.advance(torch.zeros_like(second.images))
    assert torch.equal(first.images, second.images)
