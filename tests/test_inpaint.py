"""Repair, extension and seamless borders: what is missing, what is kept, what the model sees."""

import pytest
import torch
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.inpaint import edge_band, extend_image, find_seamless
from gcn_cli.model import Model
from gcn_cli.models.gaussian import low_pass
from gcn_cli.options import ReconstructOptions
from tests.small import SMALL_TEXTURE, small_image


@pytest.fixture(scope="module")
def model() -> Model:
    return gcn.train(small_image(), **SMALL_TEXTURE, iterations=3)


def torus(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth noise that tiles, (3, height, width) in 0..255."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = low_pass(noise, 2.0)[0]
    return (128 + 40 * smooth / smooth.std()).round().clamp(0, 255)


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
    with pytest.raises(InputError, match=r"--outpaint .*at least one of them 1 or more"):
        extend_image(torch.zeros(3, 4, 4), sides)


def test_a_band_lies_along_all_edges() -> None:
    missing = edge_band((8, 10), 2)
    assert not bool(missing[2:6, 2:8].any())
    assert int(missing.sum()) == 8 * 10 - 4 * 6
    with pytest.raises(InputError, match="--make-seamless 4: must be less than half"):
        edge_band((8, 10), 4)


def test_known_pixels_are_kept_and_missing_ones_differ_between_variants(model: Model) -> None:
    pixels = torch.rand(3, 40, 36, generator=torch.Generator().manual_seed(1)).mul(255).round()
    mask = torch.zeros(1, 40, 36)
    mask[:, 10:20, 12:20] = 255
    first, second = model.repair(pixels, mask, count=2, steps=3, kind="torch")
    known = mask[0] == 0
    for variant in (first, second):
        assert torch.equal(variant[:, known], pixels[:, known])
        assert not torch.equal(variant[:, ~known], pixels[:, ~known])
    assert not torch.equal(first, second)


def test_the_axes_along_which_an_image_tiles_are_found() -> None:
    tile, known = torus(96, 112), torch.ones(96, 112, dtype=torch.bool)
    assert find_seamless(tile, known) == "both"
    assert find_seamless(tile[:, :70], known[:70]) == "x"
    assert find_seamless(tile[:, :, :70], known[:, :70]) == "y"
    assert find_seamless(tile[:, :70, :70], known[:70, :70]) == "off"
    known[20:50, :10] = False  # a hole at the border: only the known part of it is compared
    damaged = torch.where(known, tile, 0.0)
    assert find_seamless(damaged, known) == "both"
    known[:, 0] = False
    assert find_seamless(damaged, known) == "y"


def test_flat_borders_do_not_tile() -> None:
    """A thing on white, and a plain color: both fit anything."""
    known = torch.ones(96, 112, dtype=torch.bool)
    framed = torch.nn.functional.pad(torus(56, 72), (20, 20, 20, 20), value=255.0)
    assert find_seamless(framed, known) == "off"
    assert find_seamless(torch.full((3, 96, 112), 7.0), known) == "off"


@pytest.mark.parametrize("width", [352, 40])  # a window across the border, and the whole axis
def test_a_repair_of_a_tile_continues_across_its_border(model: Model, width: int) -> None:
    """A shift of the torus that leaves the hole near the border shifts the repair."""
    tile, mask = torus(88, width, seed=1), torch.zeros(1, 88, width)
    mask[:, 40:50, 1:9] = 255
    (inside,) = model.repair(tile, mask, seamless="x", steps=2, kind="torch")
    (across,) = model.repair(
        tile.roll(-4, 2), mask.roll(-4, 2), seamless="x", steps=2, kind="torch"
    )
    if width > 300:
        assert torch.equal(across, inside.roll(-4, 2))
    (cut,) = model.repair(tile, mask, seamless="off", steps=2, kind="torch")
    (found,) = model.repair(tile, mask, steps=2, kind="torch")
    assert not torch.equal(inside, cut)
    assert torch.equal(inside, found)


def test_a_repair_far_from_the_border_does_not_depend_on_tiling(model: Model) -> None:
    tile, mask = torus(80, 96), torch.zeros(1, 80, 96)
    mask[:, 36:44, 40:50] = 255
    results = [
        next(model.repair(tile, mask, seamless=s, steps=2, kind="torch"))
        for s in ("both", "off", None)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("task", [{}, {"make_seamless": 4}, {"denoise": "auto"}])
def test_tiling_is_refused_where_nothing_is_continued(task: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--seamless x: needs --mask, --outpaint"):
        ReconstructOptions(seamless="x", **task)  # type: ignore[arg-type]
