"""Kinds of models: evaluations of a sample, and the trainers that are made."""

import dataclasses

import pytest
import torch

from gcn_cli.config import NoiseConditionalConfig
from gcn_cli.kinds import OBJECT_STEPS, TEXTURE_STEPS, TilingPlan, build_kind, make_trainer
from gcn_cli.models.cascade import Cascade
from gcn_cli.models.layers import PaddingMode, parse_layers
from gcn_cli.options import SampleOptions
from gcn_cli.presets import PRESETS
from gcn_cli.training.trainer import CascadeTrainer

TEXTURE = NoiseConditionalConfig(layers=parse_layers("4@3"), crop=16, margin=2)
OBJECTS = dataclasses.replace(
    TEXTURE, head=True, crop=None, margin=0, padding_mode=PaddingMode.ZEROS
)


@pytest.mark.parametrize(
    ("config", "steps", "expected"),
    [
        (TEXTURE, None, TEXTURE_STEPS),
        (OBJECTS, None, OBJECT_STEPS),
        (TEXTURE, 3, 3),
        (OBJECTS, 3, 3),
    ],
)
def test_a_sample_takes_as_many_evaluations_as_the_kind_says(
    config: NoiseConditionalConfig, steps: int | None, expected: int
) -> None:
    kind = build_kind(config, (16, 16))
    options, calls = SampleOptions(steps=steps), []
    kind.sample(
        options, [0], None, TilingPlan((16, 16)), torch.float32, lambda *step: calls.append(step)
    )
    assert len(calls) == expected == kind.evaluations(options)


def test_restarts_take_no_more_evaluations_than_set() -> None:
    kind = build_kind(OBJECTS, (16, 16))
    taken = [kind.evaluations(SampleOptions(steps=steps, restarts=3)) for steps in range(1, 150)]
    assert all(steps - 3 <= own <= steps for steps, own in enumerate(taken, start=1))


def test_restarts_take_more_evaluations_if_none_are_set() -> None:
    objects, texture = (build_kind(config, (16, 16)) for config in (OBJECTS, TEXTURE))
    of_60_levels, of_25_levels = 12, 4
    assert objects.evaluations(SampleOptions(restarts=2)) == OBJECT_STEPS + 2 * of_60_levels
    assert texture.evaluations(SampleOptions(restarts=2)) == TEXTURE_STEPS + 2 * of_25_levels
    assert objects.evaluations(SampleOptions(steps=20, resampling_steps=10)) == 19 * 10 + 1
    low_start = SampleOptions(start="image.png", noise_level=0.4, restarts=2)
    assert texture.evaluations(low_start) == TEXTURE_STEPS  # below the levels of restarts


def test_coarser_stages_have_the_lowest_layers_and_stages_are_described() -> None:
    layers = parse_layers("4@3,4@3/2,4@3")
    config = dataclasses.replace(TEXTURE, layers=layers, stages=3, stage_layers=2)
    kind = build_kind(config, (16, 16))
    assert isinstance(kind.net, Cascade)
    assert [len(net.layers) for net in kind.net.stages] == [3, 2, 2]
    stages = kind.stages()
    assert [stage["resolution"] for stage in stages] == ["1", "1/2", "1/4"]
    assert [stage["above"] for stage in stages] == [0.0, 1.0, 2.0]
    assert [stage["receptive_field"] for stage in stages] == [
        max(net.receptive_fields()) << index for index, net in enumerate(kind.net.stages)
    ]


@pytest.mark.parametrize(
    ("preset", "stages", "shares"),
    [
        ("default", 1, [1]),
        ("quick", 1, [1]),
        ("object", 1, [1]),
        ("default", 3, [1, 1, 1]),
        ("best", 3, [200 / 280, 560 / 1120, 560 / 1120]),
    ],
)
def test_likelihood_training_of_presets_starts_at_the_measured_rates(
    preset: str, stages: int, shares: list[float]
) -> None:
    """At the full rate except for `best`, which trains longer."""
    side = 64 if preset == "object" else 128 * stages
    named = PRESETS[preset]
    assert isinstance(named, NoiseConditionalConfig)
    config = dataclasses.replace(
        named, stages=stages, channels=1, mean_color=(0.0,), layers=TEXTURE.layers
    )
    image = torch.randn(1, side, side, generator=torch.Generator().manual_seed(0))
    _, trainer = make_trainer(config, [image], torch.device("cpu"), torch.float32)
    assert isinstance(trainer, CascadeTrainer)
    schedules = [schedule for _, schedule in trainer.schedules]
    found = [schedule.likelihood_start_rate / schedule.likelihood_rate for schedule in schedules]
    assert found == pytest.approx(shares)
