"""Training data: augmented crops, missing pixels, coarser images."""

import pytest
import torch
from torch import Tensor

from gcn_cli.models.cascade import downsample
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.data import (
    TrainingData,
    coarse_share,
    coarser_data,
    crop_limit,
    downsample_known,
    fill_missing,
    largest_crop,
)
from tests.small import smooth_image

SCRATCHED = torch.ones(48, 48, dtype=torch.bool)  # mask that has room for crops of 7
SCRATCHED[::8] = SCRATCHED[:, ::8] = False


def noise_image(missing: float = torch.nan) -> Tensor:
    """Noise with `missing` where SCRATCHED is False."""
    image = torch.randn(3, 48, 48, generator=named_generator(0, "picture"))
    return image.masked_fill(~SCRATCHED, missing)


def make_data(image: Tensor) -> TrainingData:
    return TrainingData([image], crop=16, batch_size=4, generator=named_generator(0, "b"))


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
    images, known = data.draw()
    assert known is not None
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
