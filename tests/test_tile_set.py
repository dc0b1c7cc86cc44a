"""Tiles that fit each other: what they share, how they differ, which are refused."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.model import Model
from gcn_cli.options import SampleOptions
from gcn_cli.tile_set import Edges, TileSet
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, relief, small_image

SIZE, BORDER = 48, 4
WANG: dict[str, Any] = {"size": SIZE, "steps": 3, "border": BORDER, "edges": 2}


@pytest.fixture(scope="module")
def model() -> Model:
    return gcn.train(small_image(), **SMALL_TEXTURE, iterations=3)


@pytest.fixture(scope="module")
def wang(model: Model) -> list[Tensor]:
    tiles: list[Tensor] = model.synthesize(**WANG, count=16, kind="torch")
    return tiles


def inside(tile: Tensor, border: int = BORDER) -> Tensor:
    return tile[:, border:-border, border:-border]


def test_variants_share_their_bands_to_the_bit_and_differ_inside(model: Model) -> None:
    tiles = model.synthesize(SIZE, 3, steps=3, border=BORDER, variants=3, kind="torch")
    for one, other in itertools.combinations(tiles, 2):
        changed = (one != other).any(dim=0)
        assert bool(inside(changed[None]).all())
        assert int(changed.sum()) == (SIZE - 2 * BORDER) ** 2


def test_the_first_tile_is_the_sample_that_is_made_without_variants(model: Model) -> None:
    (sample,) = model.synthesize(SIZE, steps=3, seed=5, kind="torch")
    options = SampleOptions(size=(SIZE, SIZE), steps=3, seed=5, border=BORDER, variants=8)
    (tile,) = model.samples(options, kind="torch")
    assert torch.equal(tile, sample)


def test_a_tile_depends_neither_on_the_others_nor_on_their_number(
    model: Model, wang: list[Tensor]
) -> None:
    options = SampleOptions().with_changes(**WANG, variants=2)
    (tile,) = model.samples(options, indices=[9], kind="torch")
    assert torch.equal(tile, wang[9])


def test_tiles_of_a_wang_set_have_the_bands_of_their_colors(wang: list[Tensor]) -> None:
    tiles = TileSet(1, 2, BORDER)
    assert [tiles.edges(index) for index in (0, 1, 2, 4, 8)] == [
        Edges(0, 0, 0, 0),
        Edges(0, 0, 0, 1),
        Edges(0, 0, 1, 0),
        Edges(0, 1, 0, 0),
        Edges(1, 0, 0, 0),
    ]
    middle = slice(BORDER + 16, SIZE - BORDER - 16)  # where the bands of the colors differ
    first, last = slice(0, BORDER), slice(-BORDER, None)
    bands = {
        "top": (first, middle),
        "right": (middle, last),
        "bottom": (last, middle),
        "left": (middle, first),
    }
    for side, (rows, columns) in bands.items():
        for one, other in itertools.combinations(range(16), 2):
            alike = getattr(tiles.edges(one), side) == getattr(tiles.edges(other), side)
            same = torch.equal(wang[one][:, rows, columns], wang[other][:, rows, columns])
            assert same == alike


def test_corners_of_a_wang_set_are_all_the_same(wang: list[Tensor]) -> None:
    for tile in wang[1:]:
        for rows in (slice(0, BORDER), slice(-BORDER, None)):
            for columns in (slice(0, BORDER), slice(-BORDER, None)):
                assert torch.equal(tile[:, rows, columns], wang[0][:, rows, columns])


def test_insides_of_a_wang_set_differ(wang: list[Tensor]) -> None:
    for one, other in itertools.combinations(wang, 2):
        assert bool((inside(one) != inside(other)).any(dim=0).all())


def test_tiles_are_laid_so_that_edges_fit() -> None:
    tiles = TileSet(2, 3, BORDER)
    assert len(tiles) == 2 * 81
    laid = tiles.arrange(5, 7, seed=1)
    for above, below in itertools.pairwise(laid):
        for top, bottom in zip(above, below, strict=True):
            assert tiles.edges(top).bottom == tiles.edges(bottom).top
    for row in laid:
        for left, right in itertools.pairwise(row):
            assert tiles.edges(left).right == tiles.edges(right).left
    assert len({index for row in laid for index in row}) > 20
    assert laid != tiles.arrange(5, 7, seed=2)


def test_linked_maps_fit_in_all_channels_and_normals_keep_unit_length() -> None:
    image = relief(64)
    model = gcn.train(
        image[1:].round(), linked=(image[:1] * 20 + 128,), **SMALL_TEXTURE, iterations=3
    )
    one, other = model.synthesize(SIZE, 2, steps=3, border=BORDER, variants=2, kind="torch")
    assert one.shape == (4, SIZE, SIZE)
    assert not bool((one != other).any(dim=0)[:BORDER].any())
    for tile in (one, other):
        lengths = (tile[:3] / 127.5 - 1).norm(dim=0)
        assert torch.allclose(lengths, torch.ones(SIZE, SIZE), atol=1e-4)


def test_tiles_of_a_regular_pattern_share_the_lattice() -> None:
    stripes = 128 + 100 * (torch.arange(96) * 2 * torch.pi / 12).sin()
    noise = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(0))
    image = (stripes + 5 * noise).clamp(0, 255)
    model = gcn.train(image, **SMALL_TEXTURE, pattern="12,0", iterations=3)
    one, other = model.synthesize(SIZE, 2, steps=3, border=BORDER, variants=2, kind="torch")
    assert not bool((one != other).any(dim=0)[:BORDER].any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": 8}, "border 8: needs variants or edges"),
        ({"variants": 2, "border": 20}, "border 20: tiles of 48x48 pixels must have sides of 80"),
        ({"edges": 2, "border": 5}, "must have sides of 52 or more"),
        ({"edges": 5}, "edges 5: must be"),
        ({"variants": 2, "seamless": "x"}, "seamless x: does not go with variants"),
        ({"variants": 2, "start": torch.zeros(3, 8, 8)}, "start: does not go with variants"),
    ],
)
def test_impossible_tiles_are_refused(model: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.synthesize(SIZE, steps=2, **options)


def test_published_models_have_no_tile_sets() -> None:
    published = gcn.train(small_image(), **SMALL_PUBLISHED, iterations=1)
    with pytest.raises(InputError, match="variants, edges: need a texture model with noise"):
        published.synthesize(variants=2)
