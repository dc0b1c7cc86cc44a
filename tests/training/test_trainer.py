"""Training of one stage and of cascades: gradients, schedules, exact resuming, and samples."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.detection import find_pattern
from gcn_cli.kinds import make_trainer
from gcn_cli.models.backprop import pack
from gcn_cli.models.cascade import make_denoiser, remove_lowpass_
from gcn_cli.models.cuda_graph import GraphedFunction
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.pattern import Pattern, PhaseField
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.data import NormalMap, TrainingData, downsample_known
from gcn_cli.training.losses import DenoisingLoss, denoising_loss
from gcn_cli.training.persistent_chains import CoarserChains, PersistentChains
from gcn_cli.training.schedule import FINAL_RATE
from gcn_cli.training.trainer import (
    COARSE_FULL_RATE_ITERATIONS,
    COARSE_LIKELIHOOD_RATE,
    COARSE_LIKELIHOOD_SHARE,
    FINEST_REACH,
    FULL_RATE_ITERATIONS,
    LEVEL_OVERLAP,
    LIKELIHOOD_RATE,
    MANY_STAGES_RATE,
    MIN_COARSE_IMAGES,
    TRANSITION_FACTORS,
    CascadeTrainer,
    fit_spectrum,
    level_ranges,
)
from tests.drawing import grid, textured
from tests.models.test_cuda_graph import capture_tape
from tests.small import relief, smooth_image
from tests.training.driving import run

ONE = NoiseConditionalConfig(
    layers=parse_layers("8@5,8@3/2"),
    crop=16,
    margin=2,
    batch_size=2,
    iterations=12,
    likelihood_share=0.4,
)
THREE = NoiseConditionalConfig(
    layers=parse_layers("6@3,6@3/2"),
    crop=16,
    margin=2,
    batch_size=4,
    iterations=24,
    likelihood_share=0.6,
    stages=3,
)


def checkerboard(side: int = 24) -> Tensor:
    """Squares of 4 pixels, of variance 1."""
    position = torch.arange(side) // 4
    board = ((position[:, None] + position) % 2) * 2.0 - 1
    return board.expand(3, side, side).clone()


def scratched(side: int, step: int, width: int) -> Tensor:
    """Mask (side, side) with unknown squares all over."""
    unknown = (torch.arange(side) - 4) % step < width
    unknown[:4] = False
    return ~(unknown[:, None] & unknown)


def trainer_of(
    config: NoiseConditionalConfig,
    *images: Tensor,
    known: Tensor | None = None,
    regular: tuple[Pattern, list[PhaseField]] | None = None,
) -> CascadeTrainer:
    images = images or ((checkerboard() if config.stages is None else smooth_image()),)
    if known is not None:
        images = tuple(image.masked_fill(~known, torch.nan) for image in images)
    masks = None if known is None else [known] * len(images)
    device, dtype = torch.device("cpu"), torch.float32
    pattern, phases = regular or (None, None)
    _, trainer = make_trainer(
        config, images, device, dtype, known=masks, pattern=pattern, phases=phases
    )
    assert isinstance(trainer, CascadeTrainer)
    return trainer


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_the_mean_of_mirrored_normals_is_that_of_the_mirrored_surfaces() -> None:
    image = relief(32)[1:] / 50 - 2
    neutral = 127.5 / 50 - 2
    data = TrainingData(
        [image], crop=None, batch_size=1, flips=True, generator=torch.Generator(),
        normals=[NormalMap(0, (neutral, neutral), True)],
    )  # fmt: skip
    net = NoiseConditionalNet(
        parse_layers("4@3"), image_size=(32, 32), rectifier=SmoothReLU(0.5),
        padding_mode=PaddingMode.ZEROS,
    )  # fmt: skip
    fit_spectrum(net, data)
    mean = net.spectrum.mean_image
    assert mean is not None
    x, y = mean[0] - neutral, mean[1] - neutral
    torch.testing.assert_close(x, -x.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(y, y.flip(-1), atol=1e-5, rtol=0)


def test_the_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    net = NoiseConditionalNet(
        parse_layers("4@5,4@3/2"), rectifier=SmoothReLU(0.5), padding_mode=PaddingMode.REFLECT
    )
    net.initialize(torch.Generator().manual_seed(0))
    net.double()
    generator = torch.Generator().manual_seed(1)
    clean, noise = (
        torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    level = torch.tensor([0.2, 2.0], dtype=torch.float64)

    def evaluate() -> DenoisingLoss:
        packed = pack(net, torch.float64)
        return denoising_loss(packed, clean, noise, level, margin=2)

    with torch.no_grad():
        gradients = evaluate().gradients
        for name, parameter in net.named_parameters():
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            before, losses = parameter.clone(), []
            for sign in (1, -1):
                parameter.copy_(before + sign * 1e-5 * direction)
                losses.append(float(evaluate().loss))
            parameter.copy_(before)
            slope = (losses[0] - losses[1]) / 2e-5
            expected = float((gradients[name] * direction).sum())
            assert slope == pytest.approx(expected, rel=2e-3, abs=1e-6), name


def test_an_untrained_net_has_a_loss_of_about_one() -> None:
    """With F = 0, D is I / (s^2 + 1), whose weighted error is that of the data: 1."""
    net = NoiseConditionalNet(parse_layers("4@3"), rectifier=SmoothReLU(0.5))
    clean = torch.stack([checkerboard()] * 4)
    noise = ImageNoise(0, "test", range(4))((4, 3, 24, 24))
    level = torch.tensor([0.05, 0.5, 3.0, 20.0])
    with torch.no_grad():
        packed = pack(net, torch.float32)
        loss = denoising_loss(packed, clean, noise, level, margin=0).loss
    assert float(loss) == pytest.approx(1, abs=0.05)


def test_missing_pixels_do_not_count_in_the_loss(images: Callable[..., Tensor]) -> None:
    """The mean of the losses with either half of the pixels is the loss with all."""
    net = trainer_of(ONE, torch.randn(3, 32, 32)).stages[0].net.double()
    clean, noise = images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    level = torch.tensor([0.5, 1.0], dtype=torch.float64)
    known = torch.ones(2, 1, 16, 16, dtype=torch.float64)
    known[..., :8] = 0

    def loss(mask: Tensor | None) -> float:
        packed = pack(net, torch.float64)
        found = denoising_loss(packed, clean, noise, level, known=mask, margin=0)
        return float(found.loss)

    assert (loss(known) + loss(1 - known)) / 2 == pytest.approx(loss(None), rel=1e-9)
    assert loss(known) != pytest.approx(loss(None), rel=1e-6)


@pytest.mark.parametrize("stop_at", [1, 7, 11])
@pytest.mark.parametrize("variant", ["crops", "rotated", "head"])
def test_a_resumed_training_of_one_stage_is_exact(stop_at: int, variant: str) -> None:
    config = {
        "crops": ONE,
        "rotated": replace(ONE, flips=True, rotations=True),
        "head": replace(
            ONE,
            head=True,
            crop=None,
            margin=0,
            padding_mode=PaddingMode.ZEROS,
            flips=True,
            shifts=1,
        ),
    }[variant]
    images = [checkerboard()] * 3
    whole, first, second = (trainer_of(config, *images) for _ in range(3))
    expected = run(whole, 0, 12)
    run(first, 0, stop_at)
    second.load_state(copied(first.state()))
    assert run(second, stop_at, 12) == expected[stop_at:]
    assert_same(second.state(), whole.state())


@pytest.mark.slow
@pytest.mark.parametrize("holes", [False, True])
def test_a_resumed_training_of_a_cascade_is_exact(holes: bool) -> None:
    known = scratched(64, 12, 3) if holes else None
    config = replace(THREE, stages=2 if holes else 3)
    whole, first, second = (trainer_of(config, known=known) for _ in range(3))
    run(whole, 0, 24)
    run(first, 0, 17)
    second.load_state(copied(first.state()))
    run(second, 17, 24)
    assert_same(second.state(), whole.state())
    assert f"stage{config.stages - 1}.chains.images" in whole.state()  # type: ignore[operator]


def test_samples_replace_missing_pixels_and_resuming_is_exact() -> None:
    config = replace(ONE, layers=parse_layers("4@5,4@3/2"), iterations=40)
    image = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(0))
    known = scratched(48, 4, 1)
    whole, first, second = (trainer_of(config, image, known=known) for _ in range(3))
    filled = whole.data.images[0].clone()
    run(whole, 0, 30)
    imputed = whole.data.images[0]
    assert torch.equal(imputed[:, known], image[:, known])
    assert not torch.equal(imputed[:, ~known], filled[:, ~known])
    assert whole.imputation is not None
    assert whole.imputation.count == 2
    run(first, 0, 15)
    second.load_state(copied(first.state()))
    run(second, 15, 30)
    assert_same(second.state(), whole.state())


def test_coarser_images_follow_the_imputed_ones() -> None:
    known = scratched(64, 12, 3)
    trainer = trainer_of(replace(THREE, stages=2), known=known)
    before, coarse = trainer.data.images[0].clone(), trainer.stages[1].data
    assert coarse.holes
    run(trainer, 0, 20)
    assert trainer.imputation is not None
    assert trainer.imputation.count == 3
    imputed, ((_, gain),) = trainer.data.images[0], trainer.model.links()
    assert not torch.equal(imputed[:, ~known], before[:, ~known])
    assert torch.equal(imputed[:, known], before[:, known])
    means, _ = downsample_known(imputed, torch.ones_like(known))
    assert torch.equal(coarse.images[0], gain * means)


@pytest.mark.slow
def test_samples_look_like_the_data() -> None:
    """Checkerboard samples: unit variance, and opposite colors 4 pixels apart."""
    config = replace(ONE, iterations=250, batch_size=4)
    trainer = trainer_of(config, checkerboard(32))
    rows = run(trainer, 0, 250)
    first, last = (sum(row["loss"] for row in part) / 25 for part in (rows[:25], rows[-25:]))
    assert first < 0.6  # of white noise it is 1: the spectrum is there from the start
    assert last < 0.98 * first
    denoise = make_denoiser(trainer.model, padding_mode=PaddingMode.CIRCULAR)
    noise = ImageNoise(0, "chain", range(2))
    levels = noise_levels(25, config.noise_max, config.noise_min)
    start = math.sqrt(levels[0] ** 2 + 1) * noise((2, 3, 32, 32))
    samples = anneal(start, denoise, levels, noise)
    assert 0.7 < float(samples.std()) < 1.5
    assert float((samples * samples.roll(4, -1)).mean()) < -0.2
    assert float((samples * samples.roll(8, -1)).mean()) > 0.1


def test_learning_rates_rise_fall_and_are_low_during_likelihood_training() -> None:
    config = replace(ONE, iterations=200, likelihood_share=0.25)
    schedule = trainer_of(config).stages[0].schedule
    rates = [schedule.rate(iteration) for iteration in range(1, 201)]
    assert rates[0] == pytest.approx(1 / 50, rel=0.01)
    assert 0.7 < max(rates) <= 1
    assert rates[149] == pytest.approx(LIKELIHOOD_RATE)
    assert rates[150] == pytest.approx(LIKELIHOOD_RATE, rel=0.02)
    assert rates[150:] == sorted(rates[150:], reverse=True)
    assert rates[-1] == pytest.approx(FINAL_RATE * LIKELIHOOD_RATE)


def test_only_the_last_part_trains_by_likelihood_and_only_if_set() -> None:
    for learner, expected in (("denoise,mle", [False] * 8 + [True] * 4), ("denoise", [False] * 12)):
        config = replace(ONE, learner=learner, likelihood_share=1 / 3)
        rows = run(trainer_of(config), 0, 12)
        assert [0 < row["likelihood"] <= config.likelihood_weight for row in rows] == expected
        assert [row["energy_difference"] != 0 for row in rows] == expected


@pytest.mark.parametrize("config", [ONE, THREE])
def test_a_preview_has_two_samples(config: NoiseConditionalConfig) -> None:
    assert trainer_of(config).preview().shape == (2, 3, 16, 16)


def test_ranges_of_levels_overlap_around_the_transitions() -> None:
    gains = [1.2, 1.1]
    changes, ranges = level_ranges(THREE, gains)
    transitions = [
        factor * math.sqrt(1 - 1 / gain**2)
        for factor, gain in zip(TRANSITION_FACTORS, gains, strict=True)
    ]
    assert changes == pytest.approx([FINEST_REACH * transitions[0], transitions[1]])
    assert ranges[0][0] == THREE.noise_min
    assert ranges[-1][1] == pytest.approx(THREE.noise_max * 1.2 * 1.1 / 4)
    for transition, gain, finer, coarser in zip(
        transitions, gains, ranges, ranges[1:], strict=False
    ):
        assert coarser[0] == pytest.approx(transition * gain / 2 / LEVEL_OVERLAP)
        assert finer[1] == pytest.approx(LEVEL_OVERLAP * transition)


@pytest.mark.parametrize("gains", [[1.0, 1.0], [3.0, 1.0], [1.0001, 1.5]])
def test_images_without_details_have_ranges_too(gains: list[float]) -> None:
    _, ranges = level_ranges(THREE, gains)
    assert all(2 * lowest < highest for lowest, highest in ranges)


def test_every_stage_learns_and_initializes_the_chains_of_the_finer_one() -> None:
    trainer = trainer_of(THREE)
    before = [net.weights[0].clone() for net in trainer.model.stages]
    rows = run(trainer, 0, 24)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for old, net in zip(before, trainer.model.stages, strict=True):
        assert not torch.equal(old, net.weights[0])
    chains = [stage.likelihood.chains for stage in trainer.stages if stage.likelihood is not None]
    assert len(chains) == 3
    assert all(float(own.active().sum()) > 0 for own in chains)


def test_coarser_stages_have_more_likelihood_training_at_a_higher_rate() -> None:
    trainer = trainer_of(replace(THREE, likelihood_share=0.2, iterations=100))
    coarse_start = math.ceil(100 * (1 - COARSE_LIKELIHOOD_SHARE))
    schedules = [stage.schedule for stage in trainer.stages]
    assert trainer.likelihood_starts == [coarse_start, 80]
    assert [own.likelihood_start for own in schedules] == [80, coarse_start, coarse_start]
    rates = [LIKELIHOOD_RATE, *[COARSE_LIKELIHOOD_RATE] * 2]
    assert [own.likelihood_rate for own in schedules] == rates
    full_rate = [FULL_RATE_ITERATIONS, *[COARSE_FULL_RATE_ITERATIONS] * 2]
    assert [own.full_rate_iterations for own in schedules] == full_rate
    assert trainer_of(replace(THREE, learner="denoise")).likelihood_starts == [24]


def test_the_finest_stage_has_the_whole_batch_and_coarser_stages_their_share() -> None:
    trainer = trainer_of(replace(THREE, batch_size=12))
    sizes = [stage.data.batch_size for stage in trainer.stages]
    widths = [16 / stage.data.image_size[0] for stage in trainer.stages]
    images = [round(12 * share) for share in trainer.shares]
    assert sizes == [12, *(round(images[k] * widths[k]) for k in (1, 2))]
    assert min(stage.data.batch_size for stage in trainer_of(THREE).stages) == MIN_COARSE_IMAGES


def test_at_coarser_stages_the_whole_crop_counts() -> None:
    """Where errors do not count, likelihood training separates crops, and D diverges."""
    assert [stage.settings.margin for stage in trainer_of(THREE).stages] == [THREE.margin, 0, 0]


@pytest.fixture(scope="module")
def tiled() -> tuple[Tensor, tuple[Pattern, list[PhaseField]]]:
    """Dark joints every 16 pixels on noise, and their pattern."""
    image = textured(grid(64, 64, 16, 16)).expand(3, -1, -1)
    found = find_pattern([image], vectors=[(16.0, 0.0), (0.0, 16.0)])
    assert found is not None
    return image, found


Tiled = tuple[Tensor, tuple[Pattern, list[PhaseField]]]


def test_every_stage_has_the_pattern_in_its_pixels(tiled: Tiled) -> None:
    image, (pattern, phases) = tiled
    config = replace(THREE, stages=2)
    stages = trainer_of(config, image, regular=(pattern, phases)).stages
    for index, stage in enumerate(stages):
        assert stage.net.phase_weights is not None
        assert stage.likelihood is not None
        chains = stage.likelihood.chains
        assert chains.pattern is not None
        torch.testing.assert_close(chains.pattern.waves, 2**index * pattern.waves)
    assert [stage.settings.max_difference for stage in stages] == [0.02, 0.035]
    coarsest, finest = (stages[k].likelihood.chains for k in (1, 0))  # type: ignore[union-attr]
    assert set(coarsest.fields) == set(range(len(coarsest.images)))
    assert not finest.fields  # they wait for the coarser ones


def test_phase_weights_learn_and_a_preview_has_a_lattice(tiled: Tiled) -> None:
    image, regular = tiled
    trainer = trainer_of(replace(ONE, iterations=4), image, regular=regular)
    weights = trainer.stages[0].net.phase_weights
    assert weights is not None
    before = weights.clone()
    run(trainer, 0, 3)
    assert not torch.equal(weights, before)
    assert trainer.preview().shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("stages", "stop_at"), [(1, 5), (2, 9)])
def test_a_resumed_training_with_a_pattern_is_exact(
    stages: int, stop_at: int, tiled: Tiled
) -> None:
    image, regular = tiled
    config = replace(
        THREE, layers=parse_layers("4@3/2"), stages=stages, batch_size=2, iterations=14, flips=True
    )
    whole, first, second = (trainer_of(config, image, regular=regular) for _ in range(3))
    expected = run(whole, 0, 14)
    run(first, 0, stop_at)
    second.load_state(copied(first.state()))
    assert run(second, stop_at, 14) == expected[stop_at:]
    assert_same(second.state(), whole.state())
    assert [name for name in whole.state() if "field0.waves" in name]
    if stages > 1:
        finest = whole.stages[0].likelihood
        assert finest is not None
        assert finest.chains.fields  # some have started from coarser chains


@pytest.mark.parametrize(("images", "share"), [(2, 1.0), (8, 0.5), (16, 0.25)])
def test_with_more_images_coarser_stages_start_at_a_lower_rate(images: int, share: float) -> None:
    stages = trainer_of(replace(THREE, batch_size=images)).stages
    rates = [stage.schedule.likelihood_rate for stage in stages]
    assert rates == pytest.approx([LIKELIHOOD_RATE, *[share * COARSE_LIKELIHOOD_RATE] * 2])


def test_with_four_stages_the_coarser_ones_start_at_a_low_rate() -> None:
    config = replace(THREE, layers=parse_layers("6@3"), stages=4)
    stages = trainer_of(config, smooth_image(128)).stages
    rates = [stage.schedule.likelihood_rate for stage in stages]
    assert rates == pytest.approx([LIKELIHOOD_RATE, *[MANY_STAGES_RATE] * 3])


def test_a_time_limit_is_planned_with_the_cost_of_every_stage() -> None:
    trainer = trainer_of(replace(THREE, likelihood_share=0.2, iterations=100))
    done, pace, left = 10, 0.1, 9.0
    planned = trainer.length_for(done, pace, left)
    assert planned is not None
    pixels = [cost for cost, _ in trainer.schedules]

    def seconds(length: int) -> float:
        """10 iterations of denoising took 1 s; of a whole training each takes more."""
        costs = [replace(stage.schedule, end=length).cost(length) for stage in trainer.stages]
        total = sum(cost * share for cost, share in zip(costs, pixels, strict=True))
        return pace * total / sum(pixels)

    assert seconds(planned) <= done * pace + left < seconds(planned + 1)
    assert trainer.length_for(81, pace, left) is None
    trainer.set_length(planned)
    assert trainer.iterations == planned == trainer.config.iterations
    (advice,) = trainer.early_stop_advice(planned)
    assert f"--iterations {planned} " in advice  # a complete training takes its own time


def test_chains_started_from_a_coarser_stage_have_the_variance_of_noisy_data() -> None:
    """White data: noise stays white, and the gain of 2 doubles its level."""
    coarser = PersistentChains(
        1,
        (3, 64, 64),
        steps=4,
        highest=8.0,
        lowest=2.0,
        seed=0,
        device=torch.device("cpu"),
        transition_level=2.0,
    )
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(3, 96, 96, generator=generator)
    chains = CoarserChains(coarser, SpectralGaussian(3), 2.0)
    assert chains.initialize_(white.clone(), 2.0, generator) == (False, None)
    for _ in range(8):
        coarser.advance(coarser.images / (1 + coarser.levels().square())[:, None, None, None])
    level, start = 1.8, white.clone()
    assert chains.initialize_(start, level, generator) == (True, None)
    assert float(start.var()) == pytest.approx(1 + level**2, rel=0.05)
    details = remove_lowpass_(start[None].clone())
    assert float(details.square().mean()) == pytest.approx(0.75 * (1 + level**2), rel=0.05)


@pytest.mark.parametrize("config", [ONE, THREE])
def test_convergence_is_checked_on_rows_by_their_iteration(config: NoiseConditionalConfig) -> None:
    """A history without its first rows has the same part of likelihood training."""
    trainer = trainer_of(replace(config, iterations=500, likelihood_share=0.2))
    end = trainer.likelihood_starts[-1]
    start = trainer.likelihood_starts[0] if config is THREE else 0
    history = [
        {"iteration": float(n), "loss": 1 / n, "energy_difference": 1.0 if n > end else 0.0}
        for n in range(1, 501)
    ]
    messages = trainer.check_convergence(history)
    assert len(messages) == 2
    assert "energy difference" in messages[1]
    assert trainer.check_convergence(history[:end]) == messages[:1]
    assert trainer.check_convergence(history[start:]) == messages
    assert trainer.check_convergence(history[end - 49 :]) == messages[1:]  # too few losses


@pytest.mark.parametrize("stages", [1, 2])
def test_a_graph_of_the_whole_step_is_the_step(stages: int) -> None:
    """With a tape in place of a CUDA graph; denoising alone, then likelihood too."""
    config = replace(ONE, iterations=8 * stages, likelihood_share=0.6, stages=stages)
    plain, graphed = (trainer_of(config) for _ in range(2))
    for stage in graphed.stages:
        stage._step = GraphedFunction(stage._iterate, capture_tape, state=stage._changed_in_a_step)
    for iteration in range(1, 8 * stages + 1):
        figures = plain.step(iteration)
        torch.testing.assert_close(graphed.step(iteration), figures, rtol=1e-3, atol=1e-4)
    assert plain.metrics(1, figures.tolist())["likelihood"] > 0
    for ours, theirs in zip(graphed.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
