"""Borders and their adjoints."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.layers import LayerSpec, PaddingMode, layer_border, parse_layers
from gcn_cli.models.padding import fill_border_, interior, pad, pad_transpose_


@pytest.mark.parametrize("lattice", list(PaddingMode))
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (3, 4), (0, 1)])
def test_fold_is_the_transpose_of_extend(
    lattice: PaddingMode, before: int, after: int, images: Callable[..., torch.Tensor]
) -> None:
    if lattice is PaddingMode.VALID:
        before = after = 0
    x = images(2, 3, 7, 9)
    extended = pad(x, lattice, before, after)
    u = images(*extended.shape, seed=1)
    torch.testing.assert_close(
        (extended * u).sum(), (x * pad_transpose_(u.clone(), lattice, before, after)).sum()
    )


@pytest.mark.parametrize("lattice", [PaddingMode.ZERO, PaddingMode.REFLECT, PaddingMode.CIRCULAR])
@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 4), (0, 1)])
def test_a_room_is_closed_as_a_map_is_extended(
    lattice: PaddingMode, before: int, after: int, images: Callable[..., torch.Tensor]
) -> None:
    x = images(2, 3, 7, 9)
    room = torch.full((2, 3, 7 + before + after, 9 + before + after), 5.0, dtype=x.dtype)
    interior(room, before, after).copy_(x)
    assert torch.equal(fill_border_(room, lattice, before, after), pad(x, lattice, before, after))


def test_a_torus_closes_whatever_the_padding() -> None:
    layer = LayerSpec(1, 15, 3, 2)
    before, after = layer_border(PaddingMode.CIRCULAR, layer)
    assert (24 + before + after - 15) / 3 + 1 == 24 / 3


@pytest.mark.parametrize("lattice", [PaddingMode.REFLECT, PaddingMode.CIRCULAR])
def test_an_image_smaller_than_its_border_is_refused(lattice: PaddingMode) -> None:
    with pytest.raises(ValueError, match="side 3"):
        pad(torch.zeros(1, 1, 3, 9), lattice, 4, 4)


def test_layers_are_read_back_as_written() -> None:
    text = "100@15/3+2,64@5+2,30@3"
    assert ",".join(map(str, parse_layers(text))) == text
    with pytest.raises(ValueError, match="100x3"):
        parse_layers("100x3")
    with pytest.raises(ValueError, match="1 or more"):
        parse_layers("0@3")
