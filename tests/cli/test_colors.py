"""A color profile and a resolution go from the picture to all that is made of it, and back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gcn_cli.images.color import PRIMARIES, made_profile
from tests.cli.running import TEXTURE, gcn

WIDE = made_profile(PRIMARIES[9], (1.8,), 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a profile, one without, a mask, and a model of the first; read only."""
    place = tmp_path_factory.mktemp("colors")
    noise = Image.effect_noise((48, 48), 60).convert("RGB")
    noise.save(place / "wide.png", icc_profile=WIDE, dpi=(300, 300))
    noise.rotate(90).save(place / "plain.png")
    mask = Image.new("L", noise.size)
    mask.paste(255, (20, 20, 26, 26))
    mask.save(place / "mask.png")
    few = ["--iterations", "2", "--preview-every", "2"]
    done = gcn("train", "wide.png", *TEXTURE, *few, "-o", "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def test_samples_sheets_previews_and_the_exemplar_keep_the_profile(folder: Path) -> None:
    options = ["--steps", "2", "-o", "sample.png", "--sheet", "sheet.png"]
    assert gcn("synthesize", "--model", "run", *options, cwd=folder).returncode == 0
    for name in ("sample.png", "sheet.png", "run/exemplar.png", "run/previews/000002.png"):
        with Image.open(folder / name) as image:
            assert image.info.get("icc_profile") == WIDE, name
    with Image.open(folder / "sample.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_repair_converts_to_the_model_and_back(folder: Path) -> None:
    options = ["--mask", "mask.png", "--steps", "2", "-o", "repaired.png"]
    done = gcn("reconstruct", "plain.png", "--model", "run", *options, cwd=folder)
    assert b"the image is converted from sRGB to PNG gamma 1.8" in done.stderr
    with Image.open(folder / "plain.png") as opened:
        plain = np.asarray(opened)
    with Image.open(folder / "repaired.png") as opened:
        assert "icc_profile" not in opened.info
        repaired = np.asarray(opened)
    missing = np.zeros(plain.shape[:2], bool)
    missing[20:26, 20:26] = True
    assert np.array_equal(repaired[~missing], plain[~missing])
    assert not np.array_equal(repaired[missing], plain[missing])
