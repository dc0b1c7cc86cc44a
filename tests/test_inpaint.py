"""Repair, extension and seamless borders: what is missing, what is kept, what the model sees."""

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.inpaint import edge_band, extend_image
from tests.small import SMALL_TEXTURE, small_image


def test_an_extended_image_keeps_its_pixels_inside_its_mean_color() -> None:
    pixels = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 255
    extended, missing = extend_image(pixels, (1, 2, 3, 4))
    assert extended.shape == (3, 2 + 5 + 4, 1 + 7 + 3)
    assert torch.equal(extended[:, 2:7, 1:8], pixels)
    assert int((~missing).sum()) == 5 * 7
    assert not bool(missing[2:7, 1:8].any())
    mean = pixels.mean(dim=(1, 2))
    assert torch.equal(extended[:, missing], mean[:, None].expand(-1, int(missing.sum())))


@pytest.mark.parametrize("sides", [(0, 0, 0, 0), (-1, 5, 0, 0)])
def test_an_extension_by_nothing_is_refused(sides: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match=r"--extend .*at least one of them 1 or more"):
        extend_image(torch.zeros(3, 4, 4), sides)


def test_a_band_lies_along_all_edges() -> None:
    missing = edge_band((8, 10), 2)
    assert not bool(missing[2:6, 2:8].any())
    assert int(missing.sum()) == 8 * 10 - 4 * 6
    with pytest.raises(InputError, match="--make-seamless 4: must be less than half"):
        edge_band((8, 10), 4)


def test_known_pixels_are_kept_and_missing_ones_differ_between_variants() -> None:
    model = gcn.train(small_image(), **SMALL_TEXTURE)
    pixels = torch.rand(3, 40, 36, generator=torch.Generator().manual_seed(1)).mul(255).round()
    mask = torch.zeros(1, 40, 36)
    mask[:, 10:20, 12:20] = 255
    first, second = model.repair(pixels, mask, count=2, steps=3)
    known = mask[0] == 0
    for variant in (first, second):
        assert torch.equal(variant[:, known], pixels[:, known])
        assert not torch.equal(variant[:, ~known], pixels[:, ~known])
    assert not torch.equal(first, second)
