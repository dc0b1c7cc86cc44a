"""Maximum likelihood on the ladder: its gradient, and that chains become like the data."""

from functools import partial

import pytest
import torch

from gcn_cli.models.backprop import pack, potential_gradient
from gcn_cli.models.cascade import make_denoiser
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.pattern import Pattern, pattern_basis
from gcn_cli.training.losses import (
    BOUNDED,
    LARGEST_DIFFERENCE,
    SETTLED_LEVEL,
    LikelihoodLoss,
    denoising_loss,
)

SIZE = (12, 16)


def ladder() -> NoiseConditionalNet:
    layers = parse_layers("4@5,4@3/2")
    net = NoiseConditionalNet(layers, rectifier=SmoothReLU(0.5), lattice=PaddingMode.REFLECT)
    net.initialize(torch.Generator().manual_seed(0))
    return net.double()


def refinement(net: NoiseConditionalNet, weight: float, count: int = 2) -> LikelihoodLoss:
    made = LikelihoodLoss(
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


def advance(ours: LikelihoodLoss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a training step asks of the chains, and does with them."""
    chains, level = ours.chains, ours.chains.levels()
    prepared = pack(ours.net, torch.float64)
    scores, up = ours.scores(prepared, chains.crops(SIZE), level)
    gradients = potential_gradient(ours.net, up, ours.shares(level))
    chains.advance(ours.means(prepared, chains.images, level))
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
    prepared = pack(net, torch.float64)
    plain = learn(margin=0, prepared=prepared)
    shares = -ours.shares(level)
    both = learn(lambda scores: shares, margin=0, prepared=prepared)
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
    assert net.lattice is PaddingMode.REFLECT
    denoise = make_denoiser(net, torch.float64, PaddingMode.CIRCULAR)
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


def test_the_gap_of_each_image_is_kept_from_growing() -> None:
    """The slope is that of gap - gap^3 / (3 bound^2), level from the bound on, of gap below 0."""
    ours = refinement(ladder(), 1.0)
    bound = LARGEST_DIFFERENCE
    shares = torch.tensor([-50.0, -0.3, 0.0, 0.5, 0.9, 1.0, 1.1, 2.0], dtype=torch.float64)
    gaps = (shares * bound).requires_grad_()
    bounded = gaps.clamp(max=bound)
    objective = torch.where(gaps > 0, bounded - bounded**3 / (3 * bound**2), gaps)
    (expected,) = torch.autograd.grad(objective.sum(), gaps)
    found = ours.slope(gaps.detach() * ours.values)
    torch.testing.assert_close(found, expected)
    assert found.tolist() == pytest.approx([1, 1, 1, 0.75, 0.19, 0, 0, 0])


def test_chains_that_went_too_far_are_brought_nearer_by_as_much_as_others_at_most() -> None:
    ours = refinement(ladder(), 1.0)
    gaps = torch.tensor([2.5, 3.0, 1e9]) * ours.largest_gap
    assert ours.slope(gaps * ours.values).tolist() == pytest.approx([-0.5, -1, -1], abs=1e-5)


def test_more_chains_do_not_loosen_the_bound() -> None:
    """Up to so many each may be as far from its data as all may; beyond, no further."""
    for count in (1, 2, BOUNDED, 2 * BOUNDED, 5 * BOUNDED):
        ours = refinement(ladder(), 1.0, count)
        values = 3 * SIZE[0] * SIZE[1]
        furthest = torch.tensor([min(count, BOUNDED) * LARGEST_DIFFERENCE * values])
        assert ours.slope(furthest).tolist() == pytest.approx([0.0], abs=1e-6)
        assert float(ours.slope(0.9 * furthest)) > 0


def aligned() -> LikelihoodLoss:
    """Two chains of images that are learned whole."""
    net = NoiseConditionalNet(parse_layers("4@5,4@3/2"), rectifier=SmoothReLU(0.5), head_for=SIZE)
    net.initialize(torch.Generator().manual_seed(0))
    return refinement(net.double(), 1.0)


def test_of_aligned_images_the_bound_is_on_means_over_chains() -> None:
    ours = aligned()
    assert ours.slope(torch.tensor([1e9])).tolist() == [1.0]
    for _ in range(12):
        advance(ours)
    bands, level = ours.bands(), ours.chains.levels()
    assert len({*bands} - {None}) == 2
    full = ours.shares(level)
    torch.testing.assert_close(full, ours.counts(level))
    for _ in range(100):
        ours.note(bands, [ours.largest_gap * ours.values, 0.0])
    held = full * torch.tensor([0.0, 1.0])
    torch.testing.assert_close(ours.shares(level), held, atol=1e-6, rtol=0)
    other = aligned()
    other.load_state(ours.state())
    torch.testing.assert_close(other.shares(level), ours.shares(level))


def test_the_way_down_is_in_bands_and_waiting_chains_are_in_none() -> None:
    ours = aligned()
    assert ours.band_gaps is not None
    assert ours.bands()[1] is None
    assert float(ours.held()[1]) == 0
    seen = []
    for _ in range(ours.chains.steps):
        seen.append(ours.bands()[0])
        advance(ours)
    assert seen == sorted(seen, key=lambda band: -1 if band is None else band)
    assert {0, len(ours.band_gaps.means) - 1} <= set(seen)


def test_of_textures_nothing_is_taken_down() -> None:
    ours = refinement(ladder(), 1.0)
    assert ours.bands() == []
    assert "gap" not in ours.state()
    ours.note([], [1e9, 1e9])
    assert ours.held().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("periods", "followed"),
    [((None, 12.0), True), ((11.2, 12.0), True), ((11.8, 12.0), False), ((30.0, 12.0), False)],
)
def test_a_pattern_is_followed_where_chains_hardly_bend_it(
    periods: tuple[float | None, float | None], followed: bool
) -> None:
    """Canvases of 44x48: 4 periods of 11, which is 2 % off 11.2 and 7 % off 11.8."""
    cell = torch.zeros(3, *(len(pattern_basis(periods, axis, torch.zeros(1))) for axis in (0, 1)))
    made = LikelihoodLoss(
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
