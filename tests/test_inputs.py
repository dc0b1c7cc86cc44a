"""Training images: transparency, masks, linked maps, one size; unknown pixels are not learned."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.images import Image, TextureMap
from gcn_cli.inputs import open_mask, read_mask, read_repair_mask, to_pixels
from gcn_cli.models.gaussian import SpectralGaussian
from gcn_cli.options import TrainOptions
from gcn_cli.presets import build_config
from gcn_cli.runs.session import Session
from gcn_cli.samplers.rng import named_generator
from gcn_cli.training.data import TrainingData, crop_positions, largest_crop
from gcn_cli.training.trainer import CascadeTrainer
from gcn_cli.training_images import TrainingImages, load_training_images
from tests.small import SMALL_TEXTURE, relief

WHOLE: dict[str, Any] = {"crop": 0, "space_to_depth": 2, "layers": "4@5/2,4@3/4"}  # multiples of 16


def load(images: Sequence[Any], **keywords: Any) -> TrainingImages:
    options = TrainOptions.from_keywords(keywords)
    return load_training_images(images, options, build_config(options.settings))


def noise(mode: str, side: int = 48, alpha: float | Tensor | None = None) -> Image:
    pixels = torch.rand(len(mode), side, side, generator=named_generator(0, mode)).mul(255)
    if alpha is not None:
        pixels[-1] = alpha
    return Image(pixels.round(), mode)


def alpha_with_hole(side: int = 48) -> Tensor:
    alpha = torch.full((side, side), 255.0)
    alpha[2:9, 2:9] = 0
    return alpha


HOLE = alpha_with_hole() == 0


def test_channels_follow_the_images_or_the_setting() -> None:
    assert load([noise("L")]).maps[0].mode == "L"
    assert load([noise("L"), noise("RGB")]).maps[0].mode == "RGB"
    assert len(load([noise("RGB")], channels=1).images[0]) == 1
    assert len(load([noise("L")], channels=3).images[0]) == 3
    with pytest.raises(InputError, match="channels=2: must be 1, 3, or 0"):
        load([noise("L")], channels=2)
    with pytest.raises(InputError, match="--alpha some"):
        load([noise("L")], alpha="some")


def test_a_hole_is_unknown_and_fine_transparency_is_learned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    loaded = load([noise("RGBA", alpha=alpha_with_hole())], **SMALL_TEXTURE)
    assert loaded.maps[0].mode == "RGB"
    assert torch.equal(~loaded.known[0], HOLE)
    leaves = torch.full((48, 48), 255.0)
    leaves[::8, ::8] = 0
    loaded = load([noise("RGBA", alpha=leaves)], **SMALL_TEXTURE)
    assert loaded.maps[0].mode == "RGBA"
    assert bool(loaded.known[0].all())
    assert [line.split("(")[1] for line in caplog.messages] == ["--alpha mask)", "--alpha channel)"]


def test_alpha_option_decides_what_transparency_means() -> None:
    image = noise("LA", alpha=alpha_with_hole())
    dropped = load([image], alpha="drop").images[0]
    assert dropped.shape == (1, 48, 48)
    assert bool((dropped[0][HOLE] == 255).all())
    learned = load([image], alpha="channel").images[0]
    assert torch.equal(learned[1], alpha_with_hole())
    assert float(learned[0][HOLE].std()) == pytest.approx(0, abs=1e-3)
    assert load([noise("RGBA", alpha=255)]).maps[0].mode == "RGB"


def test_a_mask_hides_every_pixel_it_touches() -> None:
    mask = Image(255 - alpha_with_hole()[None], "L")
    assert torch.equal(~load([noise("RGB")], mask=mask).known[0], HOLE)
    resized = ~load([noise("RGB")], mask=mask, size=24, shrink=None).known[0]
    assert 9 <= int(resized.sum()) <= 49
    with pytest.raises(InputError, match="--mask: is 48x48, the image 40x40"):
        load([noise("RGB", 40)], mask=mask)
    with pytest.raises(InputError, match="--mask: goes with one image, not with 2"):
        load([noise("L"), noise("L")], mask=mask)


def painted(marked: object, rest: object = 0, mode: str = "RGB") -> PillowImage.Image:
    """A mask of 48x48 with 8x8 marked pixels."""
    image = PillowImage.new(mode, (48, 48), rest)  # type: ignore[arg-type]
    image.paste(marked, (8, 8, 16, 16))  # type: ignore[arg-type]
    return image


ODD_MASKS = {
    "red on black": (painted("red"), r"2\.8% is colored, as R,G,B 255,0,0 at 8,8; a mask is gray"),
    "on a copy": (painted("magenta", (200, 198, 190)), "2.8% is colored, as R,G,B 255,0,255"),
    "black": (painted(0, mode="L"), "white nowhere, its brightest value is 0 of 255, so it marks"),
    "labels": (painted(1, mode="L"), "white nowhere, its brightest value is 1 of 255"),
    "white": (painted("white", "white"), "white everywhere, so it hides everything; paint"),
    "a layer": (painted((255,) * 4, (0,) * 4, "RGBA"), r"97\.2% is transparent; flatten it"),
    "a photo": (PillowImage.effect_noise((48, 48), 40), "is neither black nor white, as in a ph"),
}


@pytest.mark.parametrize("kind", ODD_MASKS)
def test_a_mask_that_is_none_is_refused(kind: str) -> None:
    mask, words = ODD_MASKS[kind]
    for use in (load_masked, lambda mask: read_repair_mask(noise("RGB"), mask)):
        with pytest.raises(InputError, match=f"^--mask: .*{words}"):
            use(mask)


def test_a_mask_of_a_blend_may_have_grays() -> None:
    """They are weights; what is no mask is refused as elsewhere."""
    assert open_mask(ODD_MASKS["a photo"][0], soft=True).mode == "L"
    for kind in ("red on black", "on a copy", "black", "labels", "white", "a layer"):
        mask, words = ODD_MASKS[kind]
        with pytest.raises(InputError, match=f"^--mask: .*{words}"):
            open_mask(mask, soft=True)


def test_transparency_that_a_model_does_not_have_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcn_cli")
    clear = PillowImage.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert bool((to_pixels(clear, [TextureMap()]) == 255).all())
    assert caplog.messages == ["the image: transparent pixels are taken as white"]


def load_masked(mask: PillowImage.Image) -> object:
    return load([noise("RGB")], mask=mask)


@pytest.mark.parametrize(
    "mask",
    [
        painted(255, mode="L"),
        painted((255, 255, 255)),
        painted((250, 255, 244), (3, 0, 9)),  # as JPEG keeps it
        painted(1, mode="1"),
        painted((255,) * 4, (0, 0, 0, 255), "RGBA"),
        np.asarray(painted(1, mode="1")),
        torch.from_numpy(np.array(painted(1, mode="1")))[None],
        torch.from_numpy(np.array(painted(1, mode="1"))),
        np.asarray(painted(255, mode="L")).astype(np.uint16) * 257,
    ],
)
def test_a_gray_mask_marks_its_white_pixels(mask: object) -> None:
    marked = read_mask(mask, (48, 48))  # type: ignore[arg-type]
    assert bool(marked[8:16, 8:16].all())
    assert int(marked.sum()) == 64


def test_transparency_of_one_kind_is_no_mask() -> None:
    with pytest.raises(InputError, match="--mask alpha: nothing is transparent"):
        read_repair_mask(noise("RGBA", alpha=255), "alpha")


def test_linked_maps_are_named_channels(tmp_path: Path) -> None:
    for name, mode in (("albedo", "RGB"), ("height", "L")):
        PillowImage.effect_noise((20, 20), 60).convert(mode).save(tmp_path / f"{name}.png")
    albedo = tmp_path / "albedo.png"
    loaded = load([albedo], linked=(tmp_path / "height.png",))
    assert [(one.name, one.mode) for one in loaded.maps] == [("albedo", "RGB"), ("height", "L")]
    assert loaded.images[0].shape == (4, 20, 20)
    with pytest.raises(InputError, match="two maps of one name"):
        load([albedo], linked=(albedo,))
    with pytest.raises(InputError, match="map2: is 30x30, albedo 20x20"):
        load([albedo], linked=(noise("L", 30),))


def test_crop_positions_are_those_without_hidden_pixels() -> None:
    positions = {tuple(position) for position in crop_positions(~HOLE, 16).tolist()}
    assert positions == {
        (y, x) for y in range(33) for x in range(33) if not bool(HOLE[y : y + 16, x : x + 16].any())
    }
    assert len(crop_positions(~HOLE, largest_crop(~HOLE))) >= 256
    assert len(crop_positions(~HOLE, largest_crop(~HOLE) + 1)) < 256
    assert largest_crop(torch.ones_like(HOLE)) == 48


def test_batches_and_spectrum_ignore_unknown_pixels() -> None:
    image, generator = noise("RGB").pixels.masked_fill(HOLE, torch.nan), named_generator(0, "x")
    data = TrainingData([image], known=[~HOLE], crop=16, batch_size=64, generator=generator)
    for _ in range(20):
        assert bool(data.draw().images.isfinite().all())
    with pytest.raises(ValueError, match="missing pixels"):
        TrainingData([image], known=[~HOLE], crop=None, batch_size=1, generator=generator)
    # White noise of variance 1 about a hole of any values: the spectrum ignores the hole.
    white = torch.randn(3, 64, 64, generator=named_generator(0, "white"))
    whole, masked = SpectralGaussian(3), SpectralGaussian(3)
    whole.fit([white], 16)
    known = torch.ones(64, 64, dtype=torch.bool)
    known[20:30, 20:30] = False
    masked.fit([white.masked_fill(~known, 1e6)], 16, [known])
    assert bool(masked.power.isfinite().all())
    torch.testing.assert_close(masked.power, whole.power, atol=0.35, rtol=0)


def test_the_digest_depends_on_fractions_and_unknown_pixels() -> None:
    image = noise("RGB").pixels
    whole = torch.ones_like(HOLE)
    variants = [(image, whole), (image + 0.25, whole), (image, ~HOLE), (image[:1], whole)]
    digests = [TrainingImages([pixels], [known], ()).digest for pixels, known in variants]
    assert len(set(digests)) == 4
    assert TrainingImages([image.clone()], [whole], ()).digest == digests[0]
    of_any_hidden_color = TrainingImages([image.masked_fill(HOLE, 9.0)], [~HOLE], ()).digest
    assert of_any_hidden_color == digests[2]


def test_whole_images_get_the_most_common_size(caplog: pytest.LogCaptureFixture) -> None:
    """Two of three images have 16x32: the third is cropped about its center and resized."""
    striped = torch.zeros(3, 64, 64)
    striped[:, 16:48] = 200.0  # the center crop with the proportions of 16x32
    images = [torch.full((3, 16, 32), 100.0), torch.full((3, 16, 32), 50.0), striped]
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        loaded = load(images, **WHOLE).images
    assert [tuple(image.shape) for image in loaded] == [(3, 16, 32)] * 3
    assert float(loaded[2].min()) == 200.0
    assert "1 of 3 images are of other sizes: their center is resized to 32x16" in caplog.text


def test_whole_images_without_a_common_size_become_squares() -> None:
    images = [255 * torch.rand(3, side, side + 9) for side in (40, 70, 50)]
    assert [tuple(image.shape) for image in load(images, **WHOLE).images] == [(3, 32, 32)] * 3
    (image,) = load([255 * torch.rand(3, 25, 25)], **WHOLE).images
    assert tuple(image.shape) == (3, 32, 32)


def test_with_crops_images_keep_their_sizes() -> None:
    images = [255 * torch.rand(3, 40, 50), 255 * torch.rand(3, 60, 45)]
    loaded = load(images, **SMALL_TEXTURE).images
    assert [tuple(image.shape) for image in loaded] == [(3, 40, 50), (3, 60, 45)]


@pytest.mark.parametrize("alpha", ["auto", "channel", "mask"])
def test_a_wholly_transparent_file_is_refused_by_name(alpha: str, tmp_path: Path) -> None:
    path = tmp_path / "transparent.png"
    PillowImage.new("RGBA", (32, 32), (200, 30, 30, 0)).save(path)
    with pytest.raises(InputError) as error:
        load([path], alpha=alpha)
    assert str(error.value).startswith(f"{path}: is wholly transparent, nothing to learn")
    assert "--alpha drop" in str(error.value)
    assert bool((load([path], alpha="drop").images[0] == 255).all())


def test_each_image_and_map_must_be_visible(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wholly transparent"):
        load([noise("RGBA", alpha=255), noise("RGBA", alpha=0)], alpha="channel")
    PillowImage.new("LA", (48, 48), (90, 0)).save(tmp_path / "height.png")
    with pytest.raises(InputError, match=r"height\.png: is wholly transparent"):
        load([noise("RGB")], linked=(tmp_path / "height.png",), alpha="channel")
    with pytest.raises(InputError, match="wholly transparent, nothing to learn"):
        gcn.train(noise("RGBA", alpha=0), alpha="channel", iterations=2, **SMALL_TEXTURE)


def test_visibility_is_checked_after_resizing() -> None:
    alpha = torch.zeros(256, 256)
    alpha[0, 0] = 1
    with pytest.raises(InputError, match="wholly transparent"):
        load([noise("RGBA", 256, alpha)], alpha="channel", size=16)


def test_one_visible_pixel_is_enough() -> None:
    alpha = torch.zeros(48, 48)
    alpha[3, 4] = 255
    assert bool(load([noise("RGBA", alpha=alpha)], alpha="channel").images[0].isfinite().all())


def test_alpha_mask_needs_an_opaque_pixel() -> None:
    with pytest.raises(InputError) as error:
        load([noise("RGBA", alpha=254)], alpha="mask")
    assert "--alpha mask leaves no pixel that is wholly opaque" in str(error.value)
    assert "use --alpha channel or --alpha drop" in str(error.value)
    assert load([noise("RGBA", alpha=254)], alpha="channel").maps[0].mode == "RGBA"
    with pytest.raises(InputError, match="--alpha mask leaves no pixel"):
        load([noise("RGBA", alpha=255), noise("RGBA", alpha=254)], **SMALL_TEXTURE)


def test_a_mask_must_leave_a_known_pixel() -> None:
    alpha = torch.full((48, 48), 255.0)
    alpha[:16] = 0
    with pytest.raises(InputError, match="--alpha drop keeps transparent pixels"):
        load([noise("RGBA", alpha=alpha)], alpha="mask", mask=Image(alpha[None], "L"))


def normal_image(*, y_up: bool, angle: float = 0.0) -> Image:
    return Image(relief(y_up=y_up, angle=angle)[1:].round(), "RGB")


TURNS: dict[str, Any] = {"rotations": True}


@pytest.mark.parametrize(
    ("settings", "y_up", "words"),
    [
        ({"flips": True}, True, "normal map: vectors are mirrored with the pixels"),
        (TURNS, True, "with the pixels, y-up as found (else --normals y-down)"),
        (TURNS, False, "with the pixels, y-down as found (else --normals y-up)"),
        (TURNS | {"normals": "y-up"}, True, "normal map: vectors turn with the pixels"),
        (
            TURNS | {"normals": "y-up"},
            False,
            "--normals y-up: the slopes of normal map look y-down",
        ),
    ],
)
def test_normal_maps_are_found_and_their_green(
    settings: dict[str, Any], y_up: bool, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    images = load([normal_image(y_up=y_up)], **settings)
    expected = y_up or settings.get("normals") == "y-up"
    assert images.normal_maps(build_config(settings)) == [(0, expected)]
    assert words in caplog.text
    assert images.maps[0].y_up == expected
    assert images.normal_maps(build_config({})) == []


def test_the_direction_of_normals_can_be_told_without_turning_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flat = Image(torch.full((3, 48, 48), 127.5).index_fill(0, torch.tensor(2), 255).round(), "RGB")
    (texture_map,) = load([normal_image(y_up=True)], normals="y-down").maps
    assert texture_map.y_up is False
    assert "--normals y-down: the slopes of normal map look y-up" in caplog.text
    assert load([flat]).maps[0].y_up is None


def test_a_normal_map_among_images_of_one_texture_is_told(caplog: pytest.LogCaptureFixture) -> None:
    load([normal_image(y_up=True), normal_image(y_up=True, angle=1.0)])
    load([noise("RGB"), noise("L")])
    assert "normal map" not in caplog.text
    load([noise("RGB"), normal_image(y_up=True)])
    assert "an image is a normal map, an image is not: both are learned as images" in caplog.text


def test_a_normal_map_without_slopes_across_has_an_open_direction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pixels = relief()[1:]
    ridges = pixels[:, :1].expand(3, 48, 48).clone()
    ridges[1] = 127.5
    images = load([noise("L"), Image(ridges.round(), "RGB")], channels=3)
    assert not images.maps[0].normals
    images = load([Image(ridges, "RGB")])
    assert images.normal_maps(build_config(TURNS)) == [(0, True)]
    assert "as y-up, which its slopes leave open; --normals y-up or y-down" in caplog.text


def test_normal_maps_of_two_directions_and_none_at_all_are_refused() -> None:
    mixed = load([normal_image(y_up=True), normal_image(y_up=False, angle=1.0)])
    with pytest.raises(InputError, match="--rotations: 1 of 2 normal maps look y-"):
        mixed.normal_maps(build_config(TURNS))
    assert mixed.normal_maps(build_config({"flips": True})) == [(0, True)]
    for turns in (TURNS, {}):
        with pytest.raises(InputError, match="--normals y-down: no image is a normal map"):
            load([noise("RGB")], **turns, normals="y-down")
    with pytest.raises(InputError, match="--normals up: must be one of auto, y-up, y-down"):
        build_config(TURNS | {"normals": "up"})


def test_linked_normals_are_found_among_the_channels_in_model_units() -> None:
    tilted = relief(y_up=False)[:, 9:, :40]  # the mean of red and green is not neutral
    opened = [Image(tilted[:1], "L", 32), Image(tilted[1:], "RGB", 32)]
    images = load_training_images(
        opened[:1], TrainOptions(linked=tuple(opened[1:])), build_config(TURNS)
    )
    config = build_config(TURNS | {"layers": "4@5", "crop": 16, "margin": 2})
    resolved, _ = config.resolve(39, 4, 1.0, on_gpu=False)
    session = Session(images, config, resolved, torch.device("cpu"), torch.float32)
    assert isinstance(session.trainer, CascadeTrainer)
    (normals,) = session.trainer.data.normals
    assert (normals.x, normals.y_up) == (1, False)
    expected = session.normalization.to_model(torch.full((4, 1, 1), 127.5))[1:3].flatten().tolist()
    assert min(map(abs, expected)) > 0.03
    assert normals.neutral == pytest.approx(tuple(expected), abs=1e-5)
