"""Persistent chains against a Gaussian, whose noisy variance is known at every level."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.pattern import Pattern, closed_waves
from gcn_cli.training.persistent_chains import CoarserChains, PersistentChains

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
        assert torch.equal(first.crops((4, 6))[0], second.crops((4, 6))[0])
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.levels(), second.levels())


def test_crops_are_windows_of_the_images() -> None:
    chains = make_chains(count=2, side=8)
    chains.images.copy_(torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8))
    crop, corners = chains.crops((4, 5))
    assert crop.shape == (2, 3, 4, 5)
    for image, part, (top, left) in zip(chains.images, crop, corners, strict=True):
        assert torch.equal(part, image[:, top : top + 4, left : left + 5])
    assert chains.phases((4, 5), 2) is None
    assert torch.equal(crop.diff(dim=-1), torch.ones(2, 3, 4, 4))
    assert torch.equal(crop.diff(dim=-2), torch.full((2, 3, 3, 5), 8.0))
    assert float(crop[1].min()) >= 192 > float(crop[0].max())


def make_regular(
    side: int = 24, coarser: CoarserChains | None = None, wander: float = 0.05, **options: Any
) -> PersistentChains:
    """Chains with a lattice of which not quite whole periods fit the images."""
    waves = torch.tensor([[1 / 7.5, 0.0], [0.01, 1 / 12.5]]) * (24 / side)
    wanders = torch.full((2,), wander)
    settings: dict[str, Any] = {"steps": 6, "highest": 20.0, "lowest": 0.05, "seed": 3}
    return PersistentChains(
        3,
        (3, side, side),
        device=torch.device("cpu"),
        pattern=Pattern(waves, torch.zeros(3, 8, 8), wanders, torch.tensor(0.9)),
        coarser=coarser,
        **(settings | options),
    )


def make_finer(coarser: PersistentChains) -> PersistentChains:
    """Chains of 40 pixels whose low frequencies are windows of coarser chains of 24 pixels."""
    link = CoarserChains(coarser, SpectralGaussian(3), 1.0)
    return make_regular(40, link, highest=2.0, seed=5)


def advance(chains: PersistentChains) -> None:
    chains.advance(gaussian_means(chains))


def phases_of(chains: PersistentChains, *place: Any) -> Tensor:
    phases = chains.phases(*place)
    assert phases is not None
    return phases


def test_every_chain_has_a_lattice_of_its_own_that_closes() -> None:
    chains = make_regular()
    for _ in range(5):
        advance(chains)
    assert sorted(chains.fields) == [0, 1, 2]
    assert chains.pattern is not None
    expected = closed_waves(chains.pattern.waves, (24, 24))
    for field in chains.fields.values():
        assert torch.equal(field.waves, expected)
        assert field.periodic == (True, True)
    offsets = torch.stack([field.offsets for field in chains.fields.values()])
    assert len(torch.unique(offsets[:, 0])) == 3


def test_phases_of_crops_are_those_of_whole_chains_at_their_places() -> None:
    chains = make_regular()
    for _ in range(5):
        advance(chains)
    whole = phases_of(chains, (24, 24), 1)
    _, corners = chains.crops((8, 12))
    assert len(set(corners)) > 1
    crops = phases_of(chains, (8, 12), 1, corners)
    for crop, phases, (top, left) in zip(crops, whole, corners, strict=True):
        torch.testing.assert_close(crop, phases[:, top : top + 8, left : left + 12])
    straight = make_regular(wander=0.0)
    centers = phases_of(straight, (24, 24), 2)
    blocks = torch.nn.functional.avg_pool2d(phases_of(straight, (24, 24), 1), 2)
    torch.testing.assert_close(centers, blocks)


def test_a_chain_that_restarts_has_a_new_lattice() -> None:
    chains, seen = make_regular(), []
    for _ in range(12):
        seen.append(chains.fields[0])
        advance(chains)
    assert len({id(field) for field in seen}) == 2
    assert not torch.equal(seen[0].offsets, seen[6].offsets)
    assert seen[5] is seen[0]
    assert seen[11] is seen[6]


def test_finer_chains_have_the_phases_of_the_coarser_chain_they_start_from() -> None:
    """The low frequencies of a new chain are a window of the coarser image: so are its phases."""
    coarser = make_regular(transition_level=1.0)
    finer = make_finer(coarser)
    assert not finer.fields
    assert not bool(phases_of(finer, (40, 40), 2).any())  # all wait
    for _ in range(30):
        if finer.taken[0] == 0:
            break
        advance(coarser)
        advance(finer)
    assert coarser.transition is not None
    source = coarser.transition.phases
    assert source is not None
    field = finer.fields[0]
    assert field.scale == 0.5
    assert field.waves is source.waves
    top, left = (round(start + 0.25) for start in field.origin)
    assert 0 <= top <= 4
    assert 0 <= left <= 4
    # Phases at the centers of coarse pixels, which are between fine ones.
    centers = torch.arange(20) * 2 + 0.5
    expected = source(torch.arange(20) + top, torch.arange(20) + left)
    torch.testing.assert_close(field(centers, centers), expected)


@pytest.mark.parametrize("stop_at", [1, 8, 14])
def test_a_state_restores_the_lattices_of_chains_and_of_the_transition(stop_at: int) -> None:
    first, second = ((c := make_regular(transition_level=1.0), make_finer(c)) for _ in range(2))
    for _ in range(stop_at):
        for chains in first:
            advance(chains)
    for ours, theirs in zip(second, first, strict=True):
        ours.load_state({name: tensor.clone() for name, tensor in theirs.state().items()})
    for _ in range(14):
        for ours, theirs in zip(second, first, strict=True):
            advance(ours)
            advance(theirs)
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(phases_of(ours, (24, 24), 2), phases_of(theirs, (24, 24), 2))
    states = [chains.state() for chains in (*first, *second)]
    for ours_state, theirs_state in zip(states[2:], states[:2], strict=True):
        assert ours_state.keys() == theirs_state.keys()
        assert all(torch.equal(ours_state[name], value) for name, value in theirs_state.items())
