"""Ladders at several resolutions, learned together."""

import math
from dataclasses import replace

import pytest
import torch

from gcn_cli.config import DEFAULT_LAYERS, USUAL, USUAL_TOGETHER, NoiseConditionalConfig
from gcn_cli.kinds import build_kind, make_trainer
from gcn_cli.models.cascade import downsample, remove_lowpass_
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.models.layers import parse_layers
from gcn_cli.models.noise_conditional import NoiseConditionalNet
from gcn_cli.presets import PRESETS
from gcn_cli.training.data import (
    ABOVE,
    BELOW,
    CALM_RATE,
    SETTLED_FULLY,
    SETTLING,
    SETTLING_RATE,
    TrainingData,
    coarse_share,
    coarser_data,
    half_size,
    level_ranges,
    transition_noise,
)
from gcn_cli.training.persistent_chains import CoarserChains, PersistentChains
from gcn_cli.training.trainer import FEWEST, REFINED_FULLY, REFINED_RATE, CascadeTrainer
from tests.training.driving import run

SMALL = NoiseConditionalConfig(
    layers=parse_layers("6@3,6@3/2"),
    crop=16,
    margin=2,
    batch_size=4,
    iterations=24,
    refined=0.6,
    octaves=3,
)


def blobs(side: int = 64) -> torch.Tensor:
    """A smooth picture (3, side, side) of unit variance, so that no octave is without contrast."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, side // 8, side // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0]
    rough = smooth + 0.2 * torch.randn(smooth.shape, generator=generator)
    return (rough - rough.mean()) / rough.std()


def learner(config: NoiseConditionalConfig = SMALL) -> CascadeTrainer:
    _, made = make_trainer(config, [blobs()], torch.device("cpu"), torch.float32)
    assert isinstance(made, CascadeTrainer)
    return made


def batches(picture: torch.Tensor) -> TrainingData:
    return TrainingData(
        [picture], crop=16, batch_size=2, generator=torch.Generator().manual_seed(1)
    )


def test_ranges_overlap_about_the_handovers() -> None:
    contrasts = [1.2, 1.1]
    handovers, ranges = level_ranges(SMALL, contrasts)
    assert handovers == [transition_noise(number, one) for number, one in enumerate(contrasts)]
    assert ranges[0][0] == SMALL.noise_min
    assert ranges[-1][1] == pytest.approx(SMALL.noise_max * 1.2 * 1.1 / 4)
    for (handover, contrast), finer, coarser in zip(
        zip(handovers, contrasts, strict=True), ranges, ranges[1:], strict=False
    ):
        assert coarser[0] == pytest.approx(handover * contrast / 2 / BELOW)  # as noise is there
        assert finer[1] == pytest.approx(ABOVE * handover)


@pytest.mark.parametrize("contrasts", [[1.0, 1.0], [3.0, 1.0], [1.0001, 1.5]])
def test_pictures_without_details_have_ranges_too(contrasts: list[float]) -> None:
    _, ranges = level_ranges(SMALL, contrasts)
    assert all(2 * low < high for low, high in ranges)


def test_coarser_pictures_are_means_of_unit_variance() -> None:
    picture = blobs()
    made, contrasts = coarser_data(SMALL, batches(picture), 2, 4)
    for batch, contrast in zip(made, contrasts, strict=True):
        smaller = downsample(picture[None])[0]
        assert torch.allclose(batch.pictures[0], contrast * smaller, atol=1e-6)
        assert float(batch.pictures[0].square().mean()) == pytest.approx(1, abs=1e-4)
        assert batch.crop is not None
        assert batch.crop < min(batch.pictures[0].shape[1:])
        picture = batch.pictures[0]


def test_a_coarser_picture_too_small_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="too little"):
        coarser_data(SMALL, batches(blobs()), 5, 4)


def test_means_are_of_what_is_known() -> None:
    picture = torch.arange(16.0).view(1, 4, 4)
    picture[0, 0, 0] = torch.nan
    picture[0, 2:, 2:] = torch.nan
    picture[0, 3, 3] = 15.0
    made = half_size(picture)[0]
    assert made[0, 0] == pytest.approx((1 + 4 + 5) / 3)
    assert made[0, 1] == pytest.approx((2 + 3 + 6 + 7) / 4)
    assert math.isnan(made[1, 1])


def test_an_interrupted_training_goes_on_bit_for_bit() -> None:
    whole = learner()
    run(whole, 0, SMALL.length)
    first = learner()
    run(first, 0, 17)
    second = learner()
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    run(second, 17, SMALL.length)
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    assert "octave2.chains.images" in expected
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_every_ladder_learns_and_chains_are_handed_down() -> None:
    ours = learner()
    before = [one.weights[0].clone() for one in ours.model.octaves()]
    rows = run(ours, 0, SMALL.length)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for old, net in zip(before, ours.model.octaves(), strict=True):
        assert not torch.equal(old, net.weights[0])
    chains = [one.refinement.chains for one in ours.learners if one.refinement is not None]
    assert len(chains) == 3
    assert all(float(one.walking().sum()) > 0 for one in chains)
    handed = ours.model.handed_over()
    expected = [transition_noise(number, contrast) for number, (_, contrast) in enumerate(handed)]
    assert [level for level, _ in handed] == pytest.approx(expected)


def test_coarser_ladders_have_more_of_the_likelihood_at_a_higher_rate() -> None:
    made = learner(replace(SMALL, refined=0.2, iterations=100))
    assert made.turns == [math.ceil(100 * (1 - SETTLING)), 80]
    assert [one.course.turn for one in made.learners] == [80, 20, 20]
    assert [one.refined_rate for one in made.learners] == [REFINED_RATE, *[SETTLING_RATE] * 2]
    fully = [one.course.refined_fully for one in made.learners]
    assert fully == [REFINED_FULLY, *[SETTLED_FULLY] * 2]
    assert learner(replace(SMALL, learner="denoise")).turns == [24]


def test_full_resolution_has_the_whole_batch_and_coarser_ladders_their_part() -> None:
    made = learner(replace(SMALL, batch_size=12))
    sizes = [one.observed.batch_size for one in made.learners]
    narrower = [16 / one.observed.image_size[0] for one in made.learners]
    parts = [round(12 * share) for share in made.shares]
    assert sizes == [12, *(round(parts[k] * narrower[k]) for k in (1, 2))]
    assert min(one.observed.batch_size for one in learner().learners) == FEWEST


def test_of_coarser_ladders_all_of_a_crop_counts() -> None:
    """What does not count is free for the likelihood to tell crops by, and D there runs away."""
    made = learner()
    assert [one.config.margin for one in made.learners] == [SMALL.margin, 0, 0]


def test_of_pictures_with_a_pattern_the_coarsest_ladder_alone_has_the_wider_bound() -> None:
    for patterned, bounds in ((False, [0.02, 0.035, 0.035]), (True, [0.02, 0.02, 0.035])):
        family = build_kind(SMALL, (16, 16))
        assert isinstance(family.net, NoiseConditionalNet)
        made = CascadeTrainer(
            SMALL, family.net, batches(blobs()), torch.device("cpu"), patterned=patterned
        )
        found = [one.refinement.largest_gap for one in made.learners if one.refinement is not None]
        assert found == pytest.approx(bounds)


def test_with_more_images_the_likelihood_of_coarser_ladders_begins_at_a_lower_rate() -> None:
    for images, share in ((2, 1.0), (8, 0.5), (16, 0.25)):
        made = learner(replace(SMALL, batch_size=images))
        rates = [one.refined_rate for one in made.learners]
        assert rates == pytest.approx([REFINED_RATE, *[share * SETTLING_RATE] * 2])


def test_of_four_ladders_the_likelihood_of_the_coarser_ones_begins_at_a_low_rate() -> None:
    config = replace(SMALL, layers=parse_layers("6@3"), octaves=4)
    _, made = make_trainer(config, [blobs(128)], torch.device("cpu"), torch.float32)
    assert isinstance(made, CascadeTrainer)
    rates = [one.refined_rate for one in made.learners]
    assert rates == pytest.approx([REFINED_RATE, *[CALM_RATE] * 3])


def test_a_time_limit_is_planned_for_by_what_every_ladder_has_before_it() -> None:
    made, done, pace, left = learner(replace(SMALL, refined=0.2, iterations=100)), 10, 0.1, 9.0
    planned = made.length_for(done, pace, left)
    assert planned is not None
    # Ten iterations of denoising alone took a second: of a whole course more than 0.1 s each.
    pixels = [one.observed.batch_size * math.prod(one.observed.image_size) for one in made.learners]

    def seconds(length: int) -> float:
        courses = [replace(one.course, length=length) for one in made.learners]
        work = [course.work(length) for course in courses]
        taken = sum(w * n for w, n in zip(work, pixels, strict=True))
        return pace * taken / sum(pixels)

    assert seconds(planned) <= done * pace + left < seconds(planned + 1)
    assert made.length_for(81, pace, left) is None
    made.set_length(planned)
    assert made.iterations == planned
    (said,) = made.cut_short(planned)
    assert f"--iterations {planned} " in said  # what is whole takes its own time


def test_what_is_handed_down_has_the_variance_of_noisy_data() -> None:
    """A coarser chain of white data, unit contrast: noise stays white, its level doubles."""
    above = PersistentChains(
        1, (3, 64, 64), steps=4, highest=8.0, lowest=2.0, seed=0, device=torch.device("cpu")
    )
    above.handed_at = 2.0
    places = torch.Generator().manual_seed(0)
    spectrum = SpectralGaussian(3)
    white = torch.randn(3, 96, 96, generator=places)
    contrast = 2.0  # of block means of white data
    down = CoarserChains(above, spectrum, contrast)
    assert not down.hand_down_(white.clone(), 2.0, places)
    for _ in range(8):
        kept = 1 / (1 + above.levels().square())
        above.advance(above.images * kept[:, None, None, None])
    level = 1.8
    made = white.clone()
    assert down.hand_down_(made, level, places)
    assert float(made.var()) == pytest.approx(1 + level**2, rel=0.05)
    details = remove_lowpass_(made[None].clone())
    assert float(details.square().mean()) == pytest.approx(0.75 * (1 + level**2), rel=0.05)


def test_holes_are_filled_at_full_resolution_and_coarser_pictures_follow() -> None:
    picture = blobs()
    for row in range(4, 64, 12):
        for column in range(4, 64, 12):
            picture[:, row : row + 3, column : column + 3] = torch.nan
    config = replace(SMALL, octaves=2)
    _, ours = make_trainer(config, [picture], torch.device("cpu"), torch.float32)
    assert isinstance(ours, CascadeTrainer)
    before = ours.observed.pictures[0].clone()
    coarse = ours.learners[1].observed
    assert coarse.holes
    run(ours, 0, 20)
    assert ours.renewed == 3
    hole = picture.isnan()
    assert not torch.equal(ours.observed.pictures[0][hole], before[hole])
    assert torch.equal(ours.observed.pictures[0][~hole], before[~hole])
    ((_, contrast),) = ours.model.handed_over()
    assert torch.equal(coarse.pictures[0], contrast * half_size(ours.observed.pictures[0]))

    again = make_trainer(config, [picture], torch.device("cpu"), torch.float32)[1]
    again.load_state({name: tensor.clone() for name, tensor in ours.state().items()})
    assert isinstance(again, CascadeTrainer)
    assert torch.equal(again.learners[1].observed.pictures[0], coarse.pictures[0])


def test_large_pictures_have_several_ladders_unless_most_of_them_is_detail() -> None:
    smooth, rough = blobs(), torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(3))
    assert coarse_share(rough) == pytest.approx(1 / 16, abs=0.02)
    assert coarse_share(smooth) > 0.7
    hidden = smooth.clone()
    hidden[:, :20, :20] = torch.nan
    assert coarse_share(hidden) == pytest.approx(coarse_share(smooth), abs=0.1)
    for room, share, count in (
        (383, 0.9, 1), (384, 0.9, 2), (448, 0.9, 3), (1024, 0.9, 4), (1024, 0.4, 1),
    ):  # fmt: skip
        settled, said = NoiseConditionalConfig().settled(room, 3, share, on_gpu=False)
        assert settled.octaves == count
        assert settled.iterations == (USUAL if count == 1 else USUAL_TOGETHER)
        assert bool(said) == (count > 1)
    assert NoiseConditionalConfig(octaves=2).settled(1024, 3, 0.1, on_gpu=False)[0].octaves == 2


def test_several_ladders_have_the_lowest_layers_only() -> None:
    for octaves, layers in ((1, DEFAULT_LAYERS), (3, DEFAULT_LAYERS[:6])):
        settled, _ = NoiseConditionalConfig(octaves=octaves).settled(512, 3, 0.9, on_gpu=False)
        assert settled.layers == layers
    wider, _ = NoiseConditionalConfig(octaves=3, octave_layers=8).settled(512, 3, 0.9, on_gpu=False)
    assert wider.layers == DEFAULT_LAYERS[:8]


def test_many_images_of_small_pictures_are_warned_of() -> None:
    best = PRESETS["best"]
    assert isinstance(best, NoiseConditionalConfig)
    cases = ((best, 256, 0.9), (best, 512, 0.9), (best, 512, 0.3), (SMALL, 64, 0.9))
    for (config, room, coarse), expected in zip(cases, (True, False, False, False), strict=True):
        _, said = config.settled(room, 3, coarse, on_gpu=False)
        assert any(line.startswith("--batch-size 12: of so small") for line in said) == expected
