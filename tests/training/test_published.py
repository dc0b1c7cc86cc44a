"""The published learner: stages, chains, exact resuming, and that it learns."""

import dataclasses

import pytest
import torch

from gcn_cli.config import PublishedConfig
from gcn_cli.errors import DivergedError
from gcn_cli.kinds import make_trainer
from gcn_cli.models.layers import parse_layers
from gcn_cli.training.published import PublishedTrainer
from tests.training.driving import run

SMALL = PublishedConfig(
    size=None, layers=parse_layers("8@5/2+2,6@3+1"), iterations=6, langevin_steps=3, chains=2
)


def stripes(count: int = 1, side: int = 16) -> list[torch.Tensor]:
    wave = torch.sin(torch.arange(side) * 1.5707) * 40
    return [wave.expand(3, side, side).clone() + 3 * number for number in range(count)]


def learner(config: PublishedConfig, count: int = 1) -> PublishedTrainer:
    _, made = make_trainer(config, stripes(count), torch.device("cpu"), torch.float32)
    assert isinstance(made, PublishedTrainer)
    return made


def test_a_stage_adds_a_layer_and_restarts_the_chains() -> None:
    ours = learner(SMALL)
    rows = run(ours, 0, 12)
    assert [row["stage"] for row in rows] == [1.0] * 6 + [2.0] * 6
    assert len(ours.model.layers) == 2
    assert ours.optimizer.param_groups[0]["lr"] == SMALL.learning_rate / 2
    assert rows[6]["contrast"] < rows[5]["contrast"]  # chains are at zero again


def test_growth_off_trains_all_layers_at_once() -> None:
    ours = learner(dataclasses.replace(SMALL, growth=False))
    assert ours.iterations == 6
    assert len(ours.model.layers) == 2


@pytest.mark.parametrize("stop_at", [3, 6, 8])
@pytest.mark.parametrize("variant", ["mle", "cd", "crops", "head"])
def test_a_stopped_run_goes_on_as_if_never_stopped(stop_at: int, variant: str) -> None:
    config = {
        "mle": SMALL,
        "cd": dataclasses.replace(SMALL, learner="cd", chains=None, momentum=0.9, batch_size=2),
        "crops": dataclasses.replace(SMALL, crop=10, batch_size=3),
        "head": dataclasses.replace(SMALL, head=True, momentum=0.5),
    }[variant]
    whole = learner(config, 4)
    expected = run(whole, 0, 12)

    first = learner(config, 4)
    run(first, 0, stop_at)
    second = learner(config, 4)
    second.load_state(first.state())
    assert run(second, stop_at, 12) == expected[stop_at:]
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_maximum_likelihood_brings_the_chains_to_the_data() -> None:
    config = dataclasses.replace(SMALL, iterations=60, langevin_steps=10, learning_rate=5e-3)
    rows = run(learner(config), 0, 120)
    assert rows[-1]["contrast"] > 5 * rows[0]["contrast"]
    assert abs(rows[-1]["energy_gap"]) < abs(rows[0]["energy_gap"])


def test_contrastive_divergence_learns_to_reconstruct() -> None:
    config = dataclasses.replace(
        SMALL, learner="cd", chains=None, growth=False, iterations=150, langevin_steps=1,
        step_size=0.5, learning_rate=2e-3, momentum=0.9, gradient_cap=1.0,
    )  # fmt: skip
    rows = run(learner(config, 3), 0, 150)
    assert rows[-1]["reconstruction_error"] < 0.3 * rows[0]["reconstruction_error"]


def test_divergence_is_an_error_that_names_the_remedy() -> None:
    config = dataclasses.replace(SMALL, step_size=1e12)
    with pytest.raises(DivergedError, match="iteration 1: energy_gap is nan"):
        run(learner(config), 0, 12)


def test_pictures_that_do_not_fit_are_refused() -> None:
    small, large = stripes(side=16)[0], stripes(side=18)[0]
    for pictures, crop, words in (
        ([small, large], None, "differ in size"),
        ([small], 20, "larger than the smallest"),
    ):
        with pytest.raises(ValueError, match=words):
            make_trainer(
                dataclasses.replace(SMALL, crop=crop), pictures, torch.device("cpu"), torch.float32
            )
