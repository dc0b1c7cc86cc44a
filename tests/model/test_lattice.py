"""Borders and their adjoints."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.model.lattice import close_, extend, fold_, inside
from gcn_cli.model.spec import Lattice, LayerSpec, border, parse_layers


@pytest.mark.parametrize("lattice", list(Lattice))
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (3, 4), (0, 1)])
def test_fold_is_the_transpose_of_extend(
    lattice: Lattice, before: int, after: int, images: Callable[..., torch.Tensor]
) -> None:
    if lattice is Lattice.VALID:
        before = after = 0
    x = images(2, 3, 7, 9)
    extended = extend(x, lattice, before, after)
    u = images(*extended.shape, seed=1)
    torch.testing.assert_close(
        (extended * u).sum(), (x * fold_(u.clone(), lattice, before, after)).sum()
    )


@pytest.mark.parametrize("lattice", [Lattice.ZERO, Lattice.REFLECT, Lattice.CIRCULAR])
@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 4), (0, 1)])
def test_a_room_is_closed_as_a_map_is_extended(
    lattice: Lattice, before: int, after: int, images: Callable[..., torch.Tensor]
) -> None:
    x = images(2, 3, 7, 9)
    room = torch.full((2, 3, 7 + before + after, 9 + before + after), 5.0, dtype=x.dtype)
    inside(room, before, after).copy_(x)
    assert torch.equal(close_(room, lattice, before, after), extend(x, lattice, before, after))


def test_a_torus_closes_whatever_the_padding() -> None:
    layer = LayerSpec(1, 15, 3, 2)
    before, after = border(Lattice.CIRCULAR, layer)
    assert (24 + before + after - 15) / 3 + 1 == 24 / 3


@pytest.mark.parametrize("lattice", [Lattice.REFLECT, Lattice.CIRCULAR])
def test_an_image_smaller_than_its_border_is_refused(lattice: Lattice) -> None:
    with pytest.raises(ValueError, match="side 3"):
        extend(torch.zeros(1, 1, 3, 9), lattice, 4, 4)


def test_layers_are_read_back_as_written() -> None:
    text = "100@15/3+2,64@5+2,30@3"
    assert ",".join(map(str, parse_layers(text))) == text
    with pytest.raises(ValueError, match="100x3"):
        parse_layers("100x3")
    with pytest.raises(ValueError, match="1 or more"):
        parse_layers("0@3")
