"""The likelihood loss: its gradient, and the clamp on the energy difference."""

from functools import partial

import pytest
import torch

from gcn_cli.models.backprop import pack, potential_gradient
from gcn_cli.models.cascade import denoise_batch
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.pattern import Pattern, strain_on_torus
from gcn_cli.training.losses import (
    BOUNDED_CHAINS,
    LARGEST_CHAIN,
    MAX_DIFFERENCE,
    MAX_STRAIN,
    RESOLVED_LEVEL,
    BandedDifferences,
    LikelihoodLoss,
    denoising_loss,
    whole_periods,
)
from gcn_cli.training.schedule import Schedule, StageSettings

SIZE = (12, 16)
BOUND = 0.08
CPU = torch.device("cpu")


def make_net(
    padding_mode: PaddingMode = PaddingMode.REFLECT,
    image_size: tuple[int, int] | None = None,
    lattice_axes: int = 0,
) -> NoiseConditionalNet:
    net = NoiseConditionalNet(
        parse_layers("4@5,4@3/2"),
        rectifier=SmoothReLU(0.5),
        padding_mode=padding_mode,
        image_size=image_size,
        lattice_axes=lattice_axes,
    )
    net.initialize(torch.Generator().manual_seed(0))
    return net.double()


def make_loss(
    net: NoiseConditionalNet, weight: float = 1.0, count: int = 2, pattern: Pattern | None = None
) -> LikelihoodLoss:
    settings = StageSettings(
        noise_min=0.05,
        noise_max=20.0,
        seed=1,
        margin=0,
        max_difference=MAX_DIFFERENCE,
        transition_level=0,
        schedule=Schedule(0, 100, 0.2, 0.1, 200),
    )
    loss = LikelihoodLoss(net, count, SIZE, settings, weight=weight, pattern=pattern)
    loss.chains.images = loss.chains.images.double()
    loss.chains.previous_means = loss.chains.previous_means.double()
    return loss


def make_aligned_loss() -> LikelihoodLoss:
    return make_loss(make_net(image_size=SIZE))


def values_of(loss: LikelihoodLoss) -> torch.Tensor:
    """What the next step depends on, (4, N)."""
    return torch.tensor(loss.step_values()).to(loss.chains.images)


def advance(loss: LikelihoodLoss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """F of the chains and its gradients, then one step of the chains."""
    chains, level = loss.chains, loss.chains.levels()
    packed = pack(loss.net, torch.float64)
    potentials, forward_pass = loss.chain_potentials(packed, chains.crops(SIZE)[0], level, None)
    gradients = potential_gradient(forward_pass, loss.weights(values_of(loss)))
    chains.advance(loss.denoise_chains(packed, chains.images, level, None))
    return potentials, gradients


def test_gradient_is_data_minus_chains_in_float64() -> None:
    """Against autograd of -weight (mean F of noisy data - mean F of chains) / values."""
    net = make_net()
    likelihood = make_loss(net, 3.0)
    for _ in range(12):
        advance(likelihood)  # until both chains are active
    assert likelihood.chains.active().tolist() == [1, 1]
    generator = torch.Generator().manual_seed(2)
    clean, noise = (
        torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    level = likelihood.chains.levels()
    compute = partial(denoising_loss, pack(net, torch.float64), clean, noise, level, margin=0)
    denoising = compute()
    weights = -likelihood.weights(values_of(likelihood))
    both = compute(lambda potentials: weights)
    positions = likelihood.chains.positions.get_state()
    crops, _ = likelihood.chains.crops(SIZE)
    likelihood.chains.positions.set_state(positions)
    level_weights = likelihood.level_weights(values_of(likelihood))
    chain_potentials, chain_gradients = advance(likelihood)

    sigma = (level.square() + 1).sqrt()[:, None, None, None]
    noisy = clean + level[:, None, None, None] * noise
    resolved = level.square() / (level.square() + RESOLVED_LEVEL**2)

    def mean_potential(images: torch.Tensor) -> torch.Tensor:
        return (resolved * net.potential(images / sigma, level.log())).mean()

    loss = -3.0 * (mean_potential(noisy) - mean_potential(crops)) / clean[0].numel()
    assert both.potentials is not None
    difference = (level_weights * (both.potentials - chain_potentials)).sum()
    torch.testing.assert_close(-3.0 * difference, loss.detach(), rtol=1e-6, atol=1e-9)
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, exact in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        gradient = both.gradients[name] - denoising.gradients[name] + chain_gradients[name]
        torch.testing.assert_close(gradient, exact, rtol=1e-5, atol=1e-9, msg=name)


def test_chains_live_on_a_torus_and_the_net_keeps_its_padding() -> None:
    net = make_net()
    loss = make_loss(net)
    assert loss.chains.images.shape == (2, 3, 44, 48)
    images, level = loss.chains.images.clone(), loss.chains.levels()
    advance(loss)
    assert net.padding_mode is PaddingMode.REFLECT
    torus = make_net(PaddingMode.CIRCULAR)
    expected = denoise_batch(torus, images[:1], level[:1], pack(torus, torch.float64))
    torch.testing.assert_close(loss.chains.previous_means[:1], expected)


def test_waiting_chains_have_no_weight() -> None:
    loss = make_loss(make_net())
    weights = loss.weights(values_of(loss))
    assert float(weights[0]) > 0
    assert float(weights[1]) == 0
    potentials, gradients = advance(loss)
    assert bool(torch.isfinite(potentials).all())
    assert any(bool(g.any()) for g in gradients.values())


def test_clamp_is_the_slope_of_its_objective() -> None:
    """d - d^3 / (3 bound^2) up to the bound, constant beyond it, d below 0."""
    loss = make_loss(make_net())
    relative = torch.tensor([-50.0, -0.3, 0.0, 0.5, 0.9, 1.0, 1.1, 2.0], dtype=torch.float64)
    differences = (relative * MAX_DIFFERENCE).requires_grad_()
    clipped = differences.clamp(max=MAX_DIFFERENCE)
    bounded = clipped - clipped**3 / (3 * MAX_DIFFERENCE**2)
    objective = torch.where(differences > 0, bounded, differences)
    (expected,) = torch.autograd.grad(objective.sum(), differences)
    slopes = loss.slopes(differences.detach() * loss.values)
    torch.testing.assert_close(slopes, expected)
    assert slopes.tolist() == pytest.approx([1, 1, 1, 0.75, 0.19, 0, 0, 0])


def test_clamp_reverses_for_overshooting_chains() -> None:
    loss = make_loss(make_net())
    differences = torch.tensor([2.5, 3.0, 1e9]) * loss.max_difference
    assert loss.slopes(differences * loss.values).tolist() == pytest.approx(
        [-0.5, -1, -1], abs=1e-5
    )


def test_bound_does_not_grow_with_more_chains() -> None:
    for count in (1, 2, BOUNDED_CHAINS, 2 * BOUNDED_CHAINS, 5 * BOUNDED_CHAINS):
        loss = make_loss(make_net(), count=count)
        values = 3 * SIZE[0] * SIZE[1]
        largest = torch.tensor([min(count, BOUNDED_CHAINS) * MAX_DIFFERENCE * values])
        assert loss.slopes(largest).tolist() == pytest.approx([0.0], abs=1e-6)
        assert float(loss.slopes(0.9 * largest)) > 0


def test_clamp_of_aligned_images_is_on_running_means() -> None:
    loss = make_aligned_loss()
    assert loss.slopes(torch.tensor([1e9])).tolist() == [1.0]
    for _ in range(12):
        advance(loss)
    values = values_of(loss)
    assert len({*values[3].tolist()} - {-1.0}) == 2
    weights = loss.weights(values)
    torch.testing.assert_close(weights, loss.level_weights(values))
    for _ in range(100):
        loss.update(values, torch.tensor([loss.max_difference * loss.values, 0.0]))
    clamped = weights * torch.tensor([0.0, 1.0])
    torch.testing.assert_close(loss.weights(values), clamped, atol=1e-6, rtol=0)
    resumed = make_aligned_loss()
    resumed.load_state(loss.state())
    torch.testing.assert_close(resumed.weights(values), loss.weights(values))


def test_chains_visit_all_bands_in_order_and_waiting_chains_none() -> None:
    loss = make_aligned_loss()
    assert loss.banded is not None
    assert loss.step_values()[3][1] == -1
    assert float(loss.base_slopes(values_of(loss))[1]) == 0
    visited = []
    for _ in range(loss.chains.steps):
        visited.append(loss.step_values()[3][0])
        advance(loss)
    assert visited == sorted(visited)
    assert {0, len(loss.banded.means) - 1} <= set(visited)


def test_textures_have_no_running_means() -> None:
    loss = make_loss(make_net())
    assert loss.step_values()[3] == [-1.0, -1.0]
    assert "difference_means" not in loss.state()
    loss.update(values_of(loss), torch.tensor([1e9, 1e9]))
    assert loss.base_slopes(values_of(loss)).tolist() == [1, 0]


def make_pattern(*waves: tuple[float, float]) -> Pattern:
    axes = len(waves)
    cell = torch.zeros(3, *[8] * axes)
    return Pattern(torch.tensor(waves), cell, torch.zeros(axes), torch.tensor(0.9))


@pytest.mark.parametrize(
    ("waves", "size"),
    [
        ([(0.0, 1 / 12)], (44, 48)),  # whole periods of 12 fit as it is
        ([(1 / 11.2, 0.0), (0.0, 1 / 12)], (44, 48)),  # 4 periods of 11, by 2 %
        ([(1 / 11.8, 0.0), (0.0, 1 / 12)], (48, 48)),
        ([(1 / 30, 0.0), (0.0, 1 / 12)], (60, 48)),
        ([(1 / 20, 1 / 32), (1 / 20, -1 / 32)], (60, 64)),  # slanted
    ],
)
def test_chains_have_whole_periods(waves: list[tuple[float, float]], size: tuple[int, int]) -> None:
    """Chains of 44x48 pixels without a pattern."""
    pattern = make_pattern(*waves)
    loss = make_loss(make_net(lattice_axes=len(waves)), pattern=pattern)
    assert loss.chains.images.shape[2:] == size
    assert strain_on_torus(pattern, size) <= MAX_STRAIN
    assert loss.chains.pattern is pattern


def test_a_lattice_that_fits_no_size_is_strained_as_little_as_possible() -> None:
    pattern = make_pattern((1 / 100, 0.0), (0.0, 1 / 13))
    height, width = whole_periods(pattern, (44, 48), 4)
    assert height == 68 <= LARGEST_CHAIN * 44 < 72  # 100 is out of reach
    assert strain_on_torus(pattern, (height, width)) == pytest.approx(0.32)


def test_chains_are_seen_with_their_phases() -> None:
    """F of chains and its gradient see the phases of the crops; D sees those of whole chains."""
    pattern = make_pattern((1 / 11, 0.0), (0.0, 1 / 12))
    net = make_net(lattice_axes=2)
    loss = make_loss(net, pattern=pattern)
    chains, level, packed = loss.chains, loss.chains.levels(), pack(net, torch.float64)
    crops, corners = chains.crops(SIZE)
    phases = chains.phases(SIZE, 2, corners)
    assert phases is not None
    phases = phases.double()
    potentials, passed = loss.chain_potentials(packed, crops, level, phases)
    sigma = (level.square() + 1).sqrt()[:, None, None, None]
    expected = net.potential(crops / sigma, level.log(), phases)
    torch.testing.assert_close(potentials, expected.detach())
    weights = loss.weights(values_of(loss))
    assert net.phase_weights is not None
    (exact,) = torch.autograd.grad((weights * expected).sum(), [net.phase_weights])
    gradient = potential_gradient(passed, weights)["phase_weights"]
    torch.testing.assert_close(gradient, exact, rtol=1e-5, atol=1e-9)
    whole = chains.phases((44, 48), 2)
    means = loss.denoise_chains(packed, chains.images, level, whole)
    torus = make_net(PaddingMode.CIRCULAR, lattice_axes=2)
    single = denoise_batch(
        torus, chains.images[:1], level[:1], pack(torus, torch.float64), phases=chains.fields[0]
    )
    torch.testing.assert_close(means[:1], single)


def test_banded_slope_is_full_without_a_difference_and_reversed_beyond_the_bound() -> None:
    banded = BandedDifferences(1.0, BOUND, CPU)
    for difference, slope in (
        (BOUND / 2, 0.75),
        (BOUND, 0.0),
        (50.0, -1.0),
        (0.0, 1.0),
        (-3.0, 1.0),
    ):
        for _ in range(100):
            banded.update(torch.tensor([2, 5]), torch.tensor([difference, difference]))
        assert banded.slopes(torch.tensor([2, 5])).tolist() == pytest.approx([slope] * 2, abs=1e-4)


def test_bands_are_clamped_separately() -> None:
    banded = BandedDifferences(1.0, BOUND, CPU)
    for _ in range(100):
        banded.update(torch.tensor([0, 7]), torch.tensor([BOUND, 0.0]))
    assert banded.slopes(torch.tensor([0, 7])).tolist() == pytest.approx([0.0, 1.0], abs=1e-4)


def test_waiting_chains_are_in_no_band() -> None:
    banded = BandedDifferences(1.0, BOUND, CPU)
    banded.update(torch.tensor([-1, -1]), torch.tensor([1e9, 1e9]))
    assert banded.means.tolist() == [0.0] * 8
    assert banded.slopes(torch.tensor([-1, 0])).tolist() == [0.0, 1.0]


def test_chains_in_one_band_count_one_after_the_other() -> None:
    banded = BandedDifferences(1.0, BOUND, CPU)
    banded.update(torch.tensor([1, 1]), BOUND * torch.tensor([1.0, 0.5]))
    assert float(banded.means[1]) == pytest.approx(BOUND * (0.8 * 0.2 + 0.2 * 0.5))
