"""What a training is shown: transparency, masks, linked maps; nothing is learned from holes."""

import logging
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

from gcn_cli.errors import InputError
from gcn_cli.images import Image
from gcn_cli.inputs import load_training_images
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.runs.session import digest_of
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.data import TrainingData, free_positions, largest_crop


def noise(bands: str, side: int = 48, alpha: Tensor | None = None) -> Image:
    values = torch.rand(len(bands), side, side, generator=named_generator(0, bands)).mul(255)
    if alpha is not None:
        values[-1] = alpha
    return Image(values.round(), bands)


def holed(side: int = 48) -> Tensor:
    alpha = torch.full((side, side), 255.0)
    alpha[2:9, 2:9] = 0
    return alpha


def test_channels_follow_the_pictures_or_what_is_asked() -> None:
    assert load_training_images([noise("L")]).maps[0].bands == "L"
    assert load_training_images([noise("L"), noise("RGB")]).maps[0].bands == "RGB"
    assert len(load_training_images([noise("RGB")], channels=1).pictures[0]) == 1
    assert len(load_training_images([noise("L")], channels=3).pictures[0]) == 3
    with pytest.raises(InputError, match="--channels 2"):
        load_training_images([noise("L")], channels=2)
    with pytest.raises(InputError, match="--alpha some"):
        load_training_images([noise("L")], alpha="some")  # type: ignore[arg-type]


def test_a_hole_is_unknown_and_leaves_are_learned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    found = load_training_images([noise("RGBA", alpha=holed())], crop=16)
    assert found.maps[0].bands == "RGB"
    assert torch.equal(found.pictures[0].isnan().any(dim=0), holed() == 0)
    leaves = torch.full((48, 48), 255.0)
    leaves[::8, ::8] = 0
    cut = load_training_images([noise("RGBA", alpha=leaves)], crop=16)
    assert cut.maps[0].bands == "RGBA"
    assert not bool(cut.pictures[0].isnan().any())
    assert [line.split("(")[1] for line in caplog.messages] == ["--alpha mask)", "--alpha channel)"]


def test_transparency_is_taken_as_asked() -> None:
    picture = noise("LA", alpha=holed())
    dropped = load_training_images([picture], alpha="drop").pictures[0]
    assert dropped.shape == (1, 48, 48)
    assert bool((dropped[0][holed() == 0] == 255).all())
    learned = load_training_images([picture], alpha="channel").pictures[0]
    assert torch.equal(learned[1], holed())
    assert float(learned[0][holed() == 0].std()) == pytest.approx(0, abs=1e-3)
    assert (
        load_training_images([noise("RGBA", alpha=torch.full((48, 48), 255.0))]).maps[0].bands
        == "RGB"
    )


def test_a_mask_hides_whatever_it_touches() -> None:
    mask = Image(255 - holed()[None], "L")
    found = load_training_images([noise("RGB")], mask=mask)
    assert torch.equal(found.pictures[0].isnan()[0], holed() == 0)
    small = load_training_images([noise("RGB")], mask=mask, size=24).pictures[0].isnan()[0]
    assert 9 <= int(small.sum()) <= 49
    with pytest.raises(InputError, match="--mask: is 48x48, the picture 40x40"):
        load_training_images([noise("RGB", 40)], mask=mask)
    with pytest.raises(InputError, match="--mask: goes with one picture, not with 2"):
        load_training_images([noise("L"), noise("L")], mask=mask)


def test_linked_maps_are_channels_with_names(tmp_path: Path) -> None:
    for name, mode in (("albedo", "RGB"), ("height", "L")):
        PillowImage.effect_noise((20, 20), 60).convert(mode).save(tmp_path / f"{name}.png")
    found = load_training_images([tmp_path / "albedo.png"], linked=[tmp_path / "height.png"])
    assert [(one.name, one.bands) for one in found.maps] == [("albedo", "RGB"), ("height", "L")]
    assert found.pictures[0].shape == (4, 20, 20)
    with pytest.raises(InputError, match="two maps of one name"):
        load_training_images([tmp_path / "albedo.png"], linked=[tmp_path / "albedo.png"])
    with pytest.raises(InputError, match="map2: is 30x30, albedo 20x20"):
        load_training_images([tmp_path / "albedo.png"], linked=[noise("L", 30)])


def test_free_places_are_all_there_are() -> None:
    hidden = holed() == 0
    found = {tuple(place) for place in free_positions(hidden, 16).tolist()}
    wanted = {
        (y, x)
        for y in range(33)
        for x in range(33)
        if not bool(hidden[y : y + 16, x : x + 16].any())
    }
    assert found == wanted
    picture = noise("L").values.masked_fill(hidden, torch.nan)
    assert len(free_positions(hidden, largest_crop(picture))) >= 256
    assert len(free_positions(hidden, largest_crop(picture) + 1)) < 256
    assert largest_crop(noise("L").values) == 48


def test_nothing_is_learned_from_what_is_hidden() -> None:
    picture = noise("RGB").values.masked_fill(holed() == 0, torch.nan)
    batches = TrainingData([picture], crop=16, batch_size=64, generator=named_generator(0, "x"))
    for _ in range(20):
        assert bool(batches().isfinite().all())
    with pytest.raises(ValueError, match="a part is hidden"):
        TrainingData([picture], crop=None, batch_size=1, generator=named_generator(0, "x"))
    open_one, hidden_one = SpectralGaussian(3), SpectralGaussian(3)
    # White noise of variance 1 about a hole of wild values: the spectrum does not see them.
    white = torch.randn(3, 64, 64, generator=named_generator(0, "white"))
    open_one.fit([white], 16)
    hidden = white.clone()
    hidden[:, 20:30, 20:30] = torch.nan
    hidden_one.fit([hidden], 16)
    assert bool(hidden_one.power.isfinite().all())
    torch.testing.assert_close(hidden_one.power, open_one.power, atol=0.35, rtol=0)


def test_the_digest_sees_fractions_and_what_is_hidden() -> None:
    picture = noise("RGB").values
    hidden = picture.masked_fill(holed() == 0, torch.nan)
    digests = [digest_of([one]) for one in (picture, picture + 0.25, hidden, picture[:1])]
    assert len(set(digests)) == 4
    assert digest_of([picture.clone()]) == digests[0]


def test_pictures_of_a_folder_are_fitted_to_one_size(caplog: pytest.LogCaptureFixture) -> None:
    """Most have 16x32: the others are cut to its proportions, about the middle, and resized."""
    striped = torch.zeros(3, 64, 64)
    striped[:, 16:48] = 200.0  # the middle half, which is all of 16x32's proportions
    pictures = [torch.full((3, 16, 32), 100.0), torch.full((3, 16, 32), 50.0), striped]
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        found = load_training_images(pictures, crop=None, multiple=16).pictures
    assert [tuple(one.shape) for one in found] == [(3, 16, 32)] * 3
    assert float(found[2].min()) == 200.0
    assert "1 of 3 pictures are of other sizes: their middle is resized to 32x16" in caplog.text


def test_pictures_without_a_common_size_become_squares_that_fit() -> None:
    pictures = [255 * torch.rand(3, side, side + 9) for side in (40, 70, 50)]
    found = load_training_images(pictures, crop=None, multiple=16).pictures
    assert [tuple(one.shape) for one in found] == [(3, 32, 32)] * 3
    (alone,) = load_training_images([255 * torch.rand(3, 25, 25)], crop=None, multiple=16).pictures
    assert tuple(alone.shape) == (3, 32, 32)


def test_crops_are_taken_from_pictures_as_they_are() -> None:
    pictures = [255 * torch.rand(3, 40, 50), 255 * torch.rand(3, 60, 45)]
    found = load_training_images(pictures, crop=32, multiple=16).pictures
    assert [tuple(one.shape) for one in found] == [(3, 40, 50), (3, 60, 45)]
