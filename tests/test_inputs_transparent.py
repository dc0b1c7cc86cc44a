"""A picture of which nothing can be seen is refused in one line."""

from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.images import Image
from gcn_cli.inputs import Alpha, load_training_images
from tests.small import LADDER


def picture(alpha: float | Tensor, side: int = 32) -> Image:
    """Noise in colors with this transparency."""
    values = torch.rand(4, side, side, generator=torch.Generator().manual_seed(0)).mul(255).round()
    values[-1] = alpha
    return Image(values, "RGBA")


def only_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("alpha", ["auto", "channel", "mask"])
def test_a_wholly_transparent_file_is_refused_by_its_name(alpha: Alpha, tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    PillowImage.new("RGBA", (32, 32), (200, 30, 30, 0)).save(path)
    with pytest.raises(InputError) as error:
        load_training_images([path], alpha=alpha, crop=16)
    message = only_line(error)
    assert message.startswith(f"{path}: is wholly transparent, nothing to learn")
    assert "--alpha drop" in message
    assert bool((load_training_images([path], alpha="drop", crop=16).pictures[0] == 255).all())


def test_one_of_several_pictures_or_maps_is_enough(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wholly transparent"):
        load_training_images([picture(255), picture(0)], alpha="channel")
    PillowImage.new("LA", (32, 32), (90, 0)).save(tmp_path / "height.png")
    with pytest.raises(InputError, match=r"height\.png: is wholly transparent"):
        load_training_images([picture(255)], linked=[tmp_path / "height.png"], alpha="channel")


def test_what_becomes_transparent_when_it_is_shrunk_is_refused_too() -> None:
    alpha = torch.zeros(256, 256)
    alpha[0, 0] = 1
    with pytest.raises(InputError, match="wholly transparent"):
        load_training_images([picture(alpha, 256)], alpha="channel", size=16)


def test_a_little_that_can_be_seen_is_learned() -> None:
    alpha = torch.zeros(32, 32)
    alpha[3, 4] = 255
    pixels = load_training_images([picture(alpha)], alpha="channel").pictures[0]
    assert bool(pixels.isfinite().all())


def test_nothing_wholly_opaque_leaves_a_mask_nothing() -> None:
    with pytest.raises(InputError) as error:
        load_training_images([picture(254)], alpha="mask", crop=16)
    message = only_line(error)
    assert "--alpha mask leaves no pixel that is wholly opaque" in message
    assert "use --alpha channel or --alpha drop" in message
    assert load_training_images([picture(254)], alpha="channel", crop=16).maps[0].bands == "RGBA"
    # One of two pictures is one hole: transparency is then taken for holes.
    with pytest.raises(InputError, match="--alpha mask leaves no pixel"):
        load_training_images([picture(255), picture(254)], crop=16)


def test_a_mask_that_hides_everything_is_refused() -> None:
    white = Image(torch.full((1, 32, 32), 255.0), "L")
    with pytest.raises(InputError) as error:
        load_training_images([picture(255)], mask=white, crop=16)
    assert "--mask: hides all of a picture, nothing to learn; paint black" in only_line(error)
    alpha = torch.full((32, 32), 255.0)
    alpha[:16] = 0
    rest = Image(alpha[None], "L")
    with pytest.raises(InputError, match="--alpha drop keeps what is clear"):
        load_training_images([picture(alpha)], alpha="mask", mask=rest, crop=16)


def test_a_training_says_so_and_not_that_a_part_is_hidden() -> None:
    with pytest.raises(InputError, match="wholly transparent, nothing to learn"):
        gcn.train(picture(0), alpha="channel", iterations=2, **LADDER)
