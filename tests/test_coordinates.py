"""Places in a picture are pixels of the picture as given, whatever the model sees of it."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

import gcn_cli as gcn
from gcn_cli.errors import InputError
from gcn_cli.images import write
from gcn_cli.reconstruction import Scale, fit_to_model, fitted_to_scale
from gcn_cli.report.figures import filters_at
from tests.small import LADDER


def texture() -> torch.Tensor:
    """Grain of 120x80 pixels, smooth enough to be seen at half that size."""
    grain = torch.rand(3, 80, 120, generator=torch.Generator().manual_seed(0))
    return 96 + 64 * grain.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :80, :120]


def odd() -> torch.Tensor:
    """With a checkered square of 20 pixels about (90, 20)."""
    picture = texture()
    checks = (torch.arange(20)[:, None] // 4 + torch.arange(20) // 4) % 2
    picture[:, 10:30, 80:100] = 255.0 * checks
    return picture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> gcn.Model:
    """It sees pictures at half their size: 60x40 of 120x80."""
    run = tmp_path_factory.mktemp("coordinates") / "run"
    return gcn.train(texture(), output=run, shrink=40, iterations=20, **LADDER)


def test_the_scale_goes_to_the_model_and_back() -> None:
    half = Scale((80, 120), (40, 60))
    assert half.inward((0, 0)) == (0, 0)
    assert half.inward((119, 79)) == (59, 39)
    assert half.inward((61, 20)) == (30, 10)
    assert half.outward((59, 39)) == (119, 79)
    unlike = Scale((100, 30), (50, 90))  # half as high, three times as wide
    assert unlike.inward((10, 10)) == (31, 5)
    assert unlike.outward((31, 5)) == (10, 11)
    whole = Scale((7, 9), (7, 9))
    assert all(whole.inward((x, y)) == (x, y) for x in range(9) for y in range(7))


def test_the_most_unusual_place_is_a_pixel_of_the_picture_as_given(model: gcn.Model) -> None:
    unusual = model.unusual(odd())
    assert unusual.deviations.shape == (40, 60)
    assert 74 <= unusual.place[0] < 106
    assert 4 <= unusual.place[1] < 36


def test_filters_are_those_at_the_pixel_as_given(model: gcn.Model) -> None:
    """As of a picture that already has the size the model sees, at half the coordinates."""
    small = fit_to_model(model.checkpoint, odd())
    assert small.shape == (3, 40, 60)
    sheet = filters_at(model, odd(), (90, 20))
    assert torch.equal(sheet, filters_at(model, small, (45, 10)))
    corner = filters_at(model, small, (0, 0))
    assert corner.shape != sheet.shape or not torch.equal(corner, sheet)


def test_standard_input_is_read_once_and_measured_as_given(
    model: gcn.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(odd(), str(tmp_path / "odd.png"))
    stream = io.TextIOWrapper(io.BytesIO((tmp_path / "odd.png").read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    pixels, scale = fitted_to_scale(model.checkpoint, "-")
    assert scale == Scale((80, 120), (40, 60))
    assert pixels.shape == (3, 40, 60)
    with Image.open(tmp_path / "odd.png") as shown:
        assert fitted_to_scale(model.checkpoint, shown)[1] == scale


def test_a_pixel_outside_is_refused_by_the_size_of_the_picture_as_given(model: gcn.Model) -> None:
    with pytest.raises(InputError) as refused:
        filters_at(model, odd(), (120, 20))
    assert str(refused.value) == (
        "--at 120,20: the picture has 120x80 pixels; X must be below 120, Y below 80"
    )


def test_a_pixel_that_is_cut_off_at_the_far_border_is_refused(model: gcn.Model) -> None:
    """Of 61 columns at half the size the layers fit on 60."""
    wide = torch.nn.functional.pad(odd(), (0, 2), value=128.0)  # 122x80, at half its size 61x40
    assert fit_to_model(model.checkpoint, wide).shape == (3, 40, 60)
    filters_at(model, wide, (119, 79))
    with pytest.raises(InputError) as refused:
        filters_at(model, wide, (120, 79))
    assert str(refused.value) == (
        "--at 120,79: the picture has 122x80 pixels, the model sees the first 120x80; "
        "X must be below 120, Y below 80"
    )
