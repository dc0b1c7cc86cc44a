"""Borders and their transposes; layers as written."""

from collections.abc import Callable

import pytest
import torch

from gcn_cli.models.layers import LayerSpec, PaddingMode, layer_border, parse_layers
from gcn_cli.models.padding import fill_border_, interior, pad, pad_transpose_

Images = Callable[..., torch.Tensor]


@pytest.mark.parametrize("padding_mode", list(PaddingMode))
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (3, 4), (0, 1)])
def test_pad_transpose_is_the_transpose_of_pad(
    padding_mode: PaddingMode, before: int, after: int, images: Images
) -> None:
    if padding_mode is PaddingMode.VALID:
        before = after = 0
    x = images(2, 3, 7, 9)
    padded = pad(x, padding_mode, before, after)
    u = images(*padded.shape, seed=1)
    transposed = pad_transpose_(u.clone(), padding_mode, before, after)
    torch.testing.assert_close((padded * u).sum(), (x * transposed).sum())


@pytest.mark.parametrize(
    "padding_mode", [PaddingMode.ZEROS, PaddingMode.REFLECT, PaddingMode.CIRCULAR]
)
@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 4), (0, 1)])
def test_a_border_filled_in_place_is_that_of_pad(
    padding_mode: PaddingMode, before: int, after: int, images: Images
) -> None:
    x = images(2, 3, 7, 9)
    padded = torch.full((2, 3, 7 + before + after, 9 + before + after), 5.0, dtype=x.dtype)
    interior(padded, before, after).copy_(x)
    filled = fill_border_(padded, padding_mode, before, after)
    assert torch.equal(filled, pad(x, padding_mode, before, after))


def test_maps_close_on_a_torus_whatever_the_padding() -> None:
    before, after = layer_border(PaddingMode.CIRCULAR, LayerSpec(1, 15, 3, 2))
    assert (24 + before + after - 15) / 3 + 1 == 24 / 3


@pytest.mark.parametrize("padding_mode", [PaddingMode.REFLECT, PaddingMode.CIRCULAR])
def test_an_image_smaller_than_its_border_is_refused(padding_mode: PaddingMode) -> None:
    with pytest.raises(ValueError, match="side 3"):
        pad(torch.zeros(1, 1, 3, 9), padding_mode, 4, 4)


def test_layers_are_read_as_written() -> None:
    text = "100@15/3+2,64@5+2,30@3"
    assert ",".join(map(str, parse_layers(text))) == text
    with pytest.raises(ValueError, match="100x3"):
        parse_layers("100x3")
    with pytest.raises(ValueError, match="1 or more"):
        parse_layers("0@3")
