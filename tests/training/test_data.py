"""Training data: augmented crops, missing pixels, coarser images."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gcn_cli.models.cascade import downsample
from gcn_cli.pattern import PhaseField
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.data import (
    NormalMap,
    TrainingData,
    coarse_share,
    coarser_data,
    crop_limit,
    downsample_known,
    fill_missing,
    largest_crop,
    turn_vectors,
)
from tests.small import relief, smooth_image, surface

SCRATCHED = torch.ones(48, 48, dtype=torch.bool)  # mask that has room for crops of 7
SCRATCHED[::8] = SCRATCHED[:, ::8] = False


def noise_image(missing: float = torch.nan) -> Tensor:
    """Noise with `missing` where SCRATCHED is False."""
    image = torch.randn(3, 48, 48, generator=named_generator(0, "picture"))
    return image.masked_fill(~SCRATCHED, missing)


def make_data(
    *images: Tensor, phases: Sequence[PhaseField] | None = None, **options: Any
) -> TrainingData:
    generator = named_generator(0, "b")
    settings = {"crop": 16, "batch_size": 4, "phase_step": 2} | options
    return TrainingData(images, generator=generator, phases=phases, **settings)


def test_crops_are_flipped_and_rotated_only_if_wanted() -> None:
    image = torch.arange(16.0).reshape(1, 4, 4)

    def corners(flips: bool, rotations: bool) -> set[float]:
        data = TrainingData(
            [image], crop=4, batch_size=64, generator=torch.Generator().manual_seed(0),
            flips=flips, rotations=rotations,
        )  # fmt: skip
        return {float(crop[0, 0, 0]) for crop in data.draw().images}

    assert corners(False, False) == {0.0}
    assert corners(True, False) == {0.0, 3.0}
    assert corners(True, True) == {0.0, 3.0, 12.0, 15.0}


NEUTRAL = (127.5, 127.5)


@pytest.mark.parametrize("y_up", [True, False])
def test_normals_turn_with_the_heights(y_up: bool) -> None:
    """The normals of a turned surface are the turned normals, in each of the eight positions."""
    heights = 4 * torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    image = surface(heights, y_up=y_up)
    normals = [NormalMap(1, NEUTRAL, y_up)]
    batch, expected = [], []
    for flip in (False, True):
        for turns in range(4):
            turned = (image.flip(-1) if flip else image).rot90(turns, (-2, -1))
            batch.append(turned)
            expected.append(surface(turned[0], y_up=y_up))
            torch.testing.assert_close(turn_vectors(turned, flip, turns, normals), expected[-1])
    positions = torch.arange(8)[:, None, None]
    many = turn_vectors(torch.stack(batch), positions > 3, positions % 4, normals)
    torch.testing.assert_close(many, torch.stack(expected))
    assert turn_vectors(image, True, 1, []) is image


@pytest.mark.parametrize("y_up", [True, False])
@pytest.mark.parametrize("missing", [False, True], ids=["whole", "holes"])
def test_batches_have_the_normals_of_their_heights(y_up: bool, missing: bool) -> None:
    """At full resolution and at half, whose values have another scale; filled holes too."""
    known = SCRATCHED if missing else torch.ones_like(SCRATCHED)
    data = make_data(
        relief(y_up=y_up).masked_fill(~known, torch.nan),
        known=[known], flips=True, rotations=True, batch_size=32, crop=20,
        normals=[NormalMap(1, NEUTRAL, y_up)],
    )  # fmt: skip
    assert bool(data.holes) == missing
    (half,), (gain,) = coarser_data(data, 1, 2, seed=0)
    half.batch_size = 32
    for source, scale, least in ((data, 1.0, 0.99), (half, gain, 0.98)):
        images, mask, _ = source.draw()
        x, y = (images[:, index, 1:-1, 1:-1] - 127.5 * scale for index in (1, 2))
        right = images[:, 0, 1:-1, 2:] - images[:, 0, 1:-1, :-2]
        down = images[:, 0, 2:, 1:-1] - images[:, 0, :-2, 1:-1]
        known = torch.ones_like(images[:, :1]) if mask is None else mask
        part = torch.nn.functional.avg_pool2d(known, 3, 1)[:, 0] == 1  # all neighbors are known
        for vector, slope in ((x, -right), (y, down if y_up else -down)):
            pair = torch.stack([vector[part].flatten(), slope[part].flatten()])
            assert float(pair.corrcoef()[0, 1]) > least


def test_whole_images_are_shifted_by_no_more_than_set() -> None:
    """A column of large values at 3, on a ramp of rows, shows where the image went."""
    image = torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 8).clone()
    image[:, :, 3] += 100
    generator = torch.Generator().manual_seed(0)
    data = TrainingData([image] * 64, crop=None, batch_size=64, generator=generator, shifts=2)
    shifted = data.draw().images
    assert shifted.shape == (64, 1, 8, 8)
    assert {int(own[0, 0].argmax()) for own in shifted} == {1, 2, 3, 4, 5}
    assert {float(own[0, 4].min()) for own in shifted} == {2.0, 3.0, 4.0, 5.0, 6.0}


def test_a_crop_is_not_reduced_to_what_scratches_leave() -> None:
    assert largest_crop(SCRATCHED) < 8
    assert crop_limit(SCRATCHED, 16) == 48
    corner = torch.ones(128, 128, dtype=torch.bool)
    corner[100:, 100:] = False
    assert crop_limit(corner, 128) == largest_crop(corner) < 128


def test_missing_pixels_are_filled_from_the_image_itself() -> None:
    image = noise_image()
    filled = fill_missing(image, SCRATCHED, named_generator(0, "x"))
    assert torch.equal(filled[:, SCRATCHED], image[:, SCRATCHED])
    colors = {tuple(color.tolist()) for color in image[:, SCRATCHED].T}
    assert {tuple(color.tolist()) for color in filled.flatten(1).T} == colors
    nothing = torch.zeros(8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="too few pixels"):
        fill_missing(torch.zeros(1, 8, 8), nothing, named_generator(0, "x"))


def test_a_batch_has_a_mask_of_its_known_pixels() -> None:
    image, generator = noise_image(), named_generator(0, "b")
    data = TrainingData(
        [image], known=[SCRATCHED], crop=16, batch_size=4, generator=generator, flips=True
    )
    images, known, phases = data.draw()
    assert known is not None
    assert phases is None
    assert bool(images.isfinite().all())
    assert known.shape == (4, 1, 16, 16)
    assert set(known.flatten().tolist()) == {0.0, 1.0}
    assert 0.6 < float(known.mean()) < 0.9
    values = set(image.flatten().tolist())
    assert all(value in values for value in images[known.expand_as(images) > 0].tolist()[:50])


def test_coarser_images_are_block_means_of_unit_variance() -> None:
    image = smooth_image()
    coarser, gains = coarser_data(make_data(image), 2, 4, seed=0)
    for data, gain in zip(coarser, gains, strict=True):
        assert torch.allclose(data.images[0], gain * downsample(image[None])[0], atol=1e-6)
        assert float(data.images[0].square().mean()) == pytest.approx(1, abs=1e-4)
        assert data.crop is not None
        assert data.crop < min(data.images[0].shape[1:])
        image = data.images[0]


def test_a_coarser_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="1/8 of the resolution is too small"):
        coarser_data(make_data(smooth_image()), 5, 4, seed=0)


def test_block_means_are_of_known_pixels() -> None:
    known = torch.ones(4, 4, dtype=torch.bool)
    known[0, 0] = known[2, 2] = known[2, 3] = known[3, 2] = False
    image = torch.arange(16.0).view(1, 4, 4).masked_fill(~known, torch.nan)
    means, mask = downsample_known(image, known)
    assert means[0, 0, 0] == pytest.approx((1 + 4 + 5) / 3)
    assert means[0, 0, 1] == pytest.approx((2 + 3 + 6 + 7) / 4)
    assert mask.tolist() == [[True, True], [True, False]]  # half of the pixels at least


def test_the_share_of_coarse_variance() -> None:
    smooth, rough = smooth_image(), torch.randn(3, 64, 64, generator=named_generator(3, "rough"))
    known = torch.ones(64, 64, dtype=torch.bool)
    assert coarse_share(rough, known) == pytest.approx(1 / 16, abs=0.02)
    share = coarse_share(smooth, known)
    assert share > 0.7
    known[:20, :20] = False
    assert coarse_share(smooth.masked_fill(~known, 1e6), known) == pytest.approx(share, abs=0.1)


def lattice(offset: float = 0.0) -> PhaseField:
    """A bent lattice of which no two places of 48x48 pixels have the same phases."""
    waves = torch.tensor([[1 / 80, 1 / 300], [-1 / 400, 1 / 90]])
    bend = 0.005 * torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(4))
    return PhaseField(waves, torch.tensor([offset, 0.2]), bend, (48, 64))


def phase_image(field: PhaseField, height: int = 48, width: int = 64) -> Tensor:
    """An image (2, H, W) whose channels are the phases of its pixels."""
    return field(torch.arange(height), torch.arange(width))[0]


def block_means(images: Tensor, side: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, side)


@pytest.mark.parametrize("turns", [{}, {"flips": True}, {"flips": True, "rotations": True}])
def test_phases_of_a_crop_are_those_of_its_place_and_turn_with_it(turns: dict[str, bool]) -> None:
    """Each image shows its phases: crops and phases that do not belong together would differ."""
    fields = [lattice(), lattice(0.5)]
    data = make_data(*map(phase_image, fields), phases=fields, batch_size=24, **turns)
    images, known, phases = data.draw()
    assert known is None
    assert phases is not None
    assert phases.shape == (24, 2, 8, 8)
    # The mean of 2x2 pixels is the phase at their center, where the bend is linear.
    torch.testing.assert_close(phases, block_means(images, 2), rtol=0, atol=2e-3)
    assert float(images.std(dim=0).min()) > 0.02
    slopes = {bool(image[1].diff(dim=-1).mean() > 0) for image in images}
    assert slopes == ({True, False} if turns else {True})


def test_phases_avoid_and_follow_missing_pixels() -> None:
    field = lattice()
    known = torch.ones(48, 64, dtype=torch.bool)
    known[:20, :20] = False
    image = phase_image(field).masked_fill(~known, torch.nan)
    images, _, phases = make_data(image, known=[known], phases=[field]).draw()
    assert phases is not None
    torch.testing.assert_close(phases, block_means(images, 2), rtol=0, atol=2e-3)


def test_coarser_data_has_the_phases_of_its_pixels() -> None:
    field = lattice()
    data = make_data(phase_image(field), phases=[field])
    coarser, gains = coarser_data(data, 2, 2, seed=0)
    for stage, gain in zip(coarser, [gains[0], gains[0] * gains[1]], strict=True):
        images, _, phases = stage.draw()
        assert phases is not None
        torch.testing.assert_close(phases, block_means(images / gain, 2), rtol=0, atol=4e-3)


def test_whole_images_and_irregular_ones_have_no_phases() -> None:
    image = phase_image(lattice())
    assert make_data(image).draw().phases is None
    assert make_data(image, crop=None).draw().phases is None
