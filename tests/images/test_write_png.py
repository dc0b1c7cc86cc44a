"""PNG files written row by row: read back, by Pillow and libvips, they are what was written."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from gcn_cli import images
from gcn_cli.images import open_picture
from gcn_cli.images import writing as png
from gcn_cli.images import writing as writes
from gcn_cli.images.writing import write_png


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_it_reads_back_as_it_was(
    bands: int, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "ROWS", 5)
    largest = 2**depth - 1
    whole = torch.randint(largest + 1, (bands, 13, 7), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "made.png"
    with path.open("wb") as file:
        write_png(file, whole * (255 / largest), depth, None)
    with Image.open(path) as picture:
        picture.verify()
    found = open_picture(str(path))
    assert found.depth == depth
    assert torch.equal((found.values * (largest / 255)).round().long(), whole)


def test_values_are_rounded_and_clipped_and_a_profile_is_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    write_png(buffer, torch.tensor([[[-3.0, 0.6, 254.4, 300.0]]]), 8, profile)
    with Image.open(buffer) as picture:
        assert np.asarray(picture).tolist() == [[0, 1, 254, 255]]
        assert picture.info["icc_profile"] == profile


def test_large_pictures_go_that_way_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = 255 * torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
    images.write(pixels, str(tmp_path / "small.png"))
    monkeypatch.setattr(writes, "IN_STRIPS", 10)
    images.write(pixels, str(tmp_path / "large.png"))
    small, large = (open_picture(str(tmp_path / f"{name}.png")) for name in ("small", "large"))
    assert torch.equal(small.values, large.values)
    assert len(list(tmp_path.iterdir())) == 2
