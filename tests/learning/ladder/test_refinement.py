"""Maximum likelihood on the ladder: its gradient, and that chains become like the data."""

from functools import partial

import pytest
import torch

from gcn_cli.learning.ladder.loss import denoising_loss
from gcn_cli.learning.ladder.refinement import BOUNDED, LARGEST_GAP, SETTLED_LEVEL, Refinement
from gcn_cli.model.ladder.denoiser import fast_denoiser
from gcn_cli.model.ladder.net import LadderNet
from gcn_cli.model.ladder.passes import prepare
from gcn_cli.model.ladder.rectifier import Rectifier
from gcn_cli.model.pattern import Pattern, basis
from gcn_cli.model.spec import Lattice, parse_layers

SIZE = (12, 16)


def ladder() -> LadderNet:
    layers = parse_layers("4@5,4@3/2")
    net = LadderNet(layers, rectifier=Rectifier(0.5), lattice=Lattice.REFLECT)
    net.initialise(torch.Generator().manual_seed(0))
    return net.double()


def refinement(net: LadderNet, weight: float, count: int = 2) -> Refinement:
    made = Refinement(
        net,
        count,
        SIZE,
        weight=weight,
        noise_range=(0.05, 20.0),
        seed=1,
        device=torch.device("cpu"),
    )
    made.chains.images = made.chains.images.double()
    made.chains.means = made.chains.means.double()
    return made


def advance(ours: Refinement) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a training step asks of the chains, and does with them."""
    chains, level = ours.chains, ours.chains.levels()
    prepared = prepare(ours.net, torch.float64)
    scores, gradients, means = ours.synthesised(
        prepared, chains.crops(SIZE), level, ours.shares(level), chains.images
    )
    chains.advance(means)
    return scores, gradients


def test_the_gradient_is_observed_minus_synthesised_in_float64() -> None:
    """Against autograd of  - weight (mean F of noisy data - mean F of chains) / values."""
    net = ladder()
    ours = refinement(net, 3.0)
    for _ in range(12):
        advance(ours)  # until both chains walk
    assert ours.chains.walking().tolist() == [1, 1]
    generator = torch.Generator().manual_seed(2)
    clean, drawn = (
        torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    level = ours.chains.levels()
    learn = partial(denoising_loss, net, clean, drawn, level)
    prepared = prepare(net, torch.float64)
    plain = learn(margin=0, prepared=prepared)
    both = learn(-ours.shares(level), margin=0, prepared=prepared)
    places = ours.chains.places.get_state()
    pieces = ours.chains.crops(SIZE)
    ours.chains.places.set_state(places)
    counts = ours.counts(level)
    there, gradients = advance(ours)

    sigma = (level.square() + 1).sqrt()[:, None, None, None]
    noisy = clean + level[:, None, None, None] * drawn

    counted = level.square() / (level.square() + SETTLED_LEVEL**2)

    def mean_score(images: torch.Tensor) -> torch.Tensor:
        total = net.total(images / sigma, level.log())
        return (counted * total).mean()

    gap = mean_score(noisy) - mean_score(pieces)
    loss = -3.0 * gap / clean[0].numel()
    assert both.scores is not None
    found_gap = (counts * (both.scores - there)).sum()
    torch.testing.assert_close(-3.0 * found_gap, loss.detach(), rtol=1e-6, atol=1e-9)
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, exact in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        found = both.gradients[name] - plain.gradients[name] + gradients[name]
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-9, msg=name)


def test_chains_wander_on_a_torus_and_the_ladder_keeps_its_border() -> None:
    net = ladder()
    ours = refinement(net, 1.0)
    assert ours.chains.images.shape == (2, 3, 44, 48)
    images, level = ours.chains.images.clone(), ours.chains.levels()
    advance(ours)
    assert net.lattice is Lattice.REFLECT
    denoise = fast_denoiser(net, torch.float64, Lattice.CIRCULAR)
    expected = denoise(images[:1], float(level[0]))
    torch.testing.assert_close(ours.chains.means[:1], expected)


def test_a_chain_that_waits_counts_on_neither_side() -> None:
    net = ladder()
    ours = refinement(net, 1.0)
    shares = ours.shares(ours.chains.levels())
    assert float(shares[0]) > 0
    assert float(shares[1]) == 0
    scores, gradients = advance(ours)
    assert bool(torch.isfinite(scores).all())
    assert any(bool(g.any()) for g in gradients.values())


def walking() -> Refinement:
    """Two chains on their way, in different bands."""
    ours = refinement(ladder(), 1.0)
    for _ in range(12):
        advance(ours)
    assert len({*ours.bands()} - {None}) == 2
    return ours


def test_the_gap_is_kept_from_growing() -> None:
    """Full say without a gap, none at the largest, and the reverse beyond it."""
    ours = walking()
    bands, full = ours.bands(), ours.shares(ours.chains.levels())
    for gap, say in ((LARGEST_GAP / 2, 0.75), (LARGEST_GAP, 0.0), (50.0, -1.0), (0.0, 1.0)):
        for _ in range(300):
            ours.note(bands, [gap * ours.values] * 2)
        assert ours.say() == pytest.approx([say] * 2, abs=1e-4)
        torch.testing.assert_close(ours.shares(ours.chains.levels()), full * say, rtol=0, atol=1e-6)


def test_a_level_that_runs_away_is_held_and_the_others_go_on() -> None:
    ours = walking()
    for _ in range(300):
        ours.note(ours.bands(), [LARGEST_GAP * ours.values, 0.0])
    assert ours.say() == pytest.approx([0.0, 1.0], abs=1e-4)


def test_more_chains_do_not_loosen_the_bound() -> None:
    """Up to so many it is on the mean of all; beyond, a chain may be no further from its data."""
    values = 3 * SIZE[0] * SIZE[1]
    for count in (2, BOUNDED, 2 * BOUNDED, 5 * BOUNDED):
        ours, furthest = refinement(ladder(), 1.0, count), min(count, BOUNDED) * LARGEST_GAP
        for _ in range(300):
            ours.note([0] * count, [furthest * values] * count)
        assert ours.say()[0] == pytest.approx(0.0, abs=1e-4)


def test_the_way_down_is_in_bands_and_waiting_chains_are_in_none() -> None:
    ours = refinement(ladder(), 1.0)
    assert ours.bands()[1] is None
    assert ours.say()[1] == 0
    seen = []
    for _ in range(ours.chains.steps):
        seen.append(ours.bands()[0])
        advance(ours)
    assert seen == sorted(seen, key=lambda band: -1 if band is None else band)
    assert {0, len(ours.gaps) - 1} <= set(seen)
    before = list(ours.gaps)
    ours.note([None, None], [1e9, 1e9])
    assert ours.gaps == before


def test_a_state_of_one_gap_for_all_levels_is_taken_up() -> None:
    ours = refinement(ladder(), 1.0)
    ours.load_state(ours.state() | {"gap": torch.tensor(0.01, dtype=torch.float64)})
    assert ours.gaps == [0.01] * len(ours.gaps)


@pytest.mark.parametrize(
    ("periods", "followed"),
    [((None, 12.0), True), ((11.2, 12.0), True), ((11.8, 12.0), False), ((30.0, 12.0), False)],
)
def test_a_pattern_is_followed_where_chains_hardly_bend_it(
    periods: tuple[float | None, float | None], followed: bool
) -> None:
    """Canvases of 44x48: 4 periods of 11, which is 2 % off 11.2 and 7 % off 11.8."""
    cell = torch.zeros(3, *(len(basis(periods, axis, torch.zeros(1))) for axis in (0, 1)))
    made = Refinement(
        ladder(),
        2,
        SIZE,
        weight=1.0,
        noise_range=(0.05, 20.0),
        seed=1,
        device=torch.device("cpu"),
        pattern=Pattern(periods, cell, cell + 1),
    )
    assert made.chains.images.shape[2:] == (44, 48)
    assert (made.chains.pattern is not None) == followed
