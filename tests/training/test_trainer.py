"""Learning the ladder: its gradient, its resuming, and that it learns."""

import dataclasses
import math

import pytest
import torch

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import make_trainer
from gcn_cli.models.backprop import pack
from gcn_cli.models.cascade import make_denoiser
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet, SmoothReLU
from gcn_cli.samplers.annealed import anneal, noise_levels
from gcn_cli.samplers.rng import ImageNoise
from gcn_cli.training.data import TrainingData
from gcn_cli.training.losses import Denoised, denoising_loss
from gcn_cli.training.schedule import LAST_RATE
from gcn_cli.training.trainer import REFINED_RATE, StageTrainer
from tests.training.driving import run

SMALL = NoiseConditionalConfig(
    layers=parse_layers("8@5,8@3/2"), crop=16, margin=2, batch_size=2, iterations=12, refined=0.4
)


def checks(count: int = 1, side: int = 24) -> list[torch.Tensor]:
    """Unit-variance checkerboards of 4 pixels."""
    place = torch.arange(side) // 4
    board = ((place[:, None] + place) % 2) * 2.0 - 1
    return [board.expand(3, side, side).clone() for _ in range(count)]


def learner(config: NoiseConditionalConfig, count: int = 1, side: int = 24) -> StageTrainer:
    _, made = make_trainer(config, checks(count, side), torch.device("cpu"), torch.float32)
    assert isinstance(made, StageTrainer)
    return made


def test_the_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    net = NoiseConditionalNet(
        parse_layers("4@5,4@3/2"), rectifier=SmoothReLU(0.5), lattice=PaddingMode.REFLECT
    )
    net.initialize(torch.Generator().manual_seed(0))
    net.double()
    generator = torch.Generator().manual_seed(1)
    clean, drawn = (
        torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    level = torch.tensor([0.2, 2.0], dtype=torch.float64)

    def loss() -> float:
        return float(learn().loss)

    def learn() -> Denoised:
        prepared = pack(net, torch.float64)
        return denoising_loss(net, clean, drawn, level, margin=2, prepared=prepared)

    with torch.no_grad():
        gradients = learn().gradients
        for name, parameter in net.named_parameters():
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            before = parameter.clone()
            sides = []
            for sign in (1, -1):
                parameter.copy_(before + sign * 1e-5 * direction)
                sides.append(loss())
            parameter.copy_(before)
            slope = (sides[0] - sides[1]) / 2e-5
            expected = float((gradients[name] * direction).sum())
            assert slope == pytest.approx(expected, rel=2e-3, abs=1e-6), name


def test_an_untrained_ladder_has_a_loss_of_about_one() -> None:
    """With F = 0 the mean is I / (s^2 + 1), whose weighted error is that of the data: 1."""
    net = NoiseConditionalNet(parse_layers("4@3"), rectifier=SmoothReLU(0.5))
    clean = checks(4)
    drawn = ImageNoise(0, "test", range(4))((4, 3, 24, 24))
    level = torch.tensor([0.05, 0.5, 3.0, 20.0])
    with torch.no_grad():
        prepared = pack(net, torch.float32)
        found = denoising_loss(net, torch.stack(clean), drawn, level, margin=0, prepared=prepared)
    assert float(found.loss) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("stop_at", [1, 7, 11])
@pytest.mark.parametrize("variant", ["crops", "turned", "head"])
def test_a_stopped_run_goes_on_as_if_never_stopped(stop_at: int, variant: str) -> None:
    config = {
        "crops": SMALL,
        "turned": dataclasses.replace(SMALL, flips=True, rotations=True),
        "head": dataclasses.replace(
            SMALL, head=True, crop=None, margin=0, lattice=PaddingMode.ZERO, flips=True, shifts=1
        ),
    }[variant]
    expected_learner = learner(config, 3)
    expected = run(expected_learner, 0, 12)
    first = learner(config, 3)
    run(first, 0, stop_at)
    second = learner(config, 3)
    second.load_state(first.state())
    assert run(second, stop_at, 12) == expected[stop_at:]
    theirs = expected_learner.model.state_dict()
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_it_learns_and_samples_look_like_the_data() -> None:
    """Checkerboard samples: unit contrast, and the colors of neighbors 4 apart opposed."""
    config = dataclasses.replace(SMALL, iterations=250, batch_size=4)
    ours = learner(config, side=32)
    rows = run(ours, 0, 250)
    first, last = (sum(row["loss"] for row in part) / 25 for part in (rows[:25], rows[-25:]))
    assert first < 0.6  # white noise for a model would have 1: the spectrum is there from the start
    assert last < 0.98 * first
    net = ours.model
    net.lattice = PaddingMode.CIRCULAR
    noise = ImageNoise(0, "chain", range(2))
    levels = noise_levels(25, config.noise_max, config.noise_min)
    start = math.sqrt(levels[0] ** 2 + 1) * noise((2, 3, 32, 32))
    x = anneal(start, make_denoiser(net), levels, noise)
    assert 0.7 < float(x.std()) < 1.5
    assert float((x * x.roll(4, -1)).mean()) < -0.2
    assert float((x * x.roll(8, -1)).mean()) > 0.1


def test_rates_rise_fall_and_begin_low_where_the_likelihood_counts() -> None:
    """Of the filters: up to the full rate, down to a part of it, from there to nearly 0."""
    config = dataclasses.replace(SMALL, iterations=200, refined=0.25)
    ours = learner(config)
    rates = []
    for iteration in range(1, 201):
        ours.step(iteration)
        rates.append(ours.descent.optimizers["filters"].param_groups[0]["lr"] / config.filter_rate)
    assert rates[0] == pytest.approx(1 / 50, rel=0.01)
    assert 0.7 < max(rates) <= 1
    assert rates[149] == pytest.approx(REFINED_RATE)
    assert rates[150] == pytest.approx(REFINED_RATE, rel=0.02)
    assert rates[150:] == sorted(rates[150:], reverse=True)
    assert rates[-1] == pytest.approx(LAST_RATE * REFINED_RATE)


def test_only_the_last_part_learns_by_likelihood_and_only_if_asked() -> None:
    for chosen, counts in (("denoise,mle", [False] * 8 + [True] * 4), ("denoise", [False] * 12)):
        config = dataclasses.replace(SMALL, learner=chosen, refined=1 / 3)
        rows = run(learner(config), 0, 12)
        assert [0 < row["likelihood"] <= config.likelihood for row in rows] == counts
        assert [row["gap"] != 0 for row in rows] == counts


def test_preview_shows_two_samples() -> None:
    assert learner(SMALL).preview().shape == (2, 3, 16, 16)


def test_crops_are_turned_only_when_asked() -> None:
    picture = torch.arange(16.0).reshape(1, 4, 4)

    def draw(flips: bool, rotations: bool) -> set[float]:
        generator = torch.Generator().manual_seed(0)
        batches = TrainingData(
            [picture], crop=4, batch_size=64, generator=generator, flips=flips, rotations=rotations
        )
        return {float(image[0, 0, 0]) for image in batches()}

    assert draw(False, False) == {0.0}
    assert draw(True, False) == {0.0, 3.0}
    assert draw(True, True) == {0.0, 3.0, 12.0, 15.0}


def test_whole_pictures_move_by_no_more_than_asked() -> None:
    """A column of 1 at place 3, on a ramp of rows, seen where it went."""
    picture = torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 8).clone()
    picture[:, :, 3] += 100
    generator = torch.Generator().manual_seed(0)
    batches = TrainingData([picture] * 64, crop=None, batch_size=64, generator=generator, shifts=2)
    moved = batches()
    assert moved.shape == (64, 1, 8, 8)
    assert {int(image[0, 0].argmax()) for image in moved} == {1, 2, 3, 4, 5}
    assert {float(image[0, 4].min()) for image in moved} == {2.0, 3.0, 4.0, 5.0, 6.0}
