"""What a run keeps of its images has their depth and profile, and its files are strict JSON."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from PIL import ImageCms

import gcn_cli as gcn
from gcn_cli.images import TextureMap, read_image, sheet_map
from gcn_cli.metrics import TextureMetrics
from gcn_cli.options import TrainOptions
from gcn_cli.presets import build_config
from gcn_cli.report.curve import curve
from gcn_cli.runs.grades import keep_exemplar, kept_exemplar, rounded, save_grades, saved_grades
from gcn_cli.training_images import TrainingImages, load_training_images
from tests.reading import check_json_files, strict_json
from tests.small import SMALL_TEXTURE, smooth_image

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def training_on(*image: Any) -> TrainingImages:
    return load_training_images(list(image), TrainOptions(), build_config({}, {}, None))


def relief() -> torch.Tensor:
    """Heights (1, 96, 96) in 0..1."""
    heights = smooth_image(96)[:1]
    return (heights - heights.min()) / (heights.max() - heights.min())


def test_heights_of_600_levels_measure_as_those_of_the_whole_range(tmp_path: Path) -> None:
    qualities = []
    for low, levels, dtype in ((20000, 600, np.uint16), (0, 255, np.uint8)):
        array = (low + levels * relief()[0]).round().numpy().astype(dtype)
        keep_exemplar(tmp_path, training_on(array))
        exemplar = kept_exemplar(tmp_path)
        assert exemplar is not None
        assert exemplar.bit_depth == 8 * array.itemsize
        scale = 255 / np.iinfo(dtype).max
        torch.testing.assert_close(
            exemplar.pixels[0], torch.from_numpy(array.astype("f4")) * scale, rtol=0, atol=1e-4
        )
        sample = scale * (low + levels * relief().flip(1, 2))
        qualities.append(TextureMetrics(exemplar.pixels).measure(sample)["quality"])
    assert qualities[0] == pytest.approx(qualities[1], abs=0.02)


def test_exemplars_and_previews_keep_depth_and_profile(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (32, 40)).astype(np.uint16)
    PillowImage.fromarray(noise).save(tmp_path / "deep.png")
    PillowImage.fromarray((noise >> 8).astype(np.uint8)).convert("RGB").save(
        tmp_path / "flat.png", icc_profile=PROFILE
    )
    for name, depth, profile in (("deep", 16, None), ("flat", 8, PROFILE)):
        run = tmp_path / name
        options = {**SMALL_TEXTURE, "iterations": 2, "preview_every": 2, "output": str(run)}
        gcn.train(str(tmp_path / f"{name}.png"), **options)
        for kept in (run / "exemplar.png", run / "previews" / "000002.png"):
            image = read_image(str(kept))
            assert (image.bit_depth, image.icc_profile) == (depth, profile)
        assert check_json_files(run) == 2  # metrics.jsonl and the description of the model
        source = read_image(str(tmp_path / f"{name}.png"))
        assert torch.equal(read_image(str(run / "exemplar.png")).pixels, source.pixels)


def test_without_libvips_fractions_of_colors_are_kept_with_8_bits_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    training = training_on(128 + 20 * smooth_image())
    with caplog.at_level(logging.WARNING, logger="gcn_cli"):
        keep_exemplar(tmp_path, training)
    assert "exemplar.png: kept with 8 bits" in caplog.text
    assert read_image(str(tmp_path / "exemplar.png")).bit_depth == 8


def test_what_the_model_before_made_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {**SMALL_TEXTURE, "iterations": 1, "output": str(tmp_path)}
    for _ in range(2):
        gcn.train(smooth_image(), **options, overwrite=True)  # nothing to set aside
    for number in (1, 2):
        sample = tmp_path / "samples" / f"bark-{number}-0.png"
        sample.parent.mkdir()
        sample.touch()
        (tmp_path / "repairs").mkdir()
        with caplog.at_level(logging.INFO, logger="gcn_cli"):
            gcn.train(smooth_image(), **options, overwrite=True)
        aside = tmp_path / f"before-{number}"
        assert f"samples of the model before are in {aside}" in caplog.text
        assert (aside / "samples" / sample.name).exists()
        assert not sample.exists()
        (tmp_path / "repairs").rmdir()
    assert sorted(path.name for path in tmp_path.glob("before-*")) == ["before-1", "before-2"]


def test_grades_that_are_not_finite_are_null(tmp_path: Path) -> None:
    grades = {"quality": torch.inf, "structure": torch.nan, "copied": 0.12345}
    assert rounded(grades) == {"quality": None, "structure": None, "copied": 0.123}
    verdict: dict[str, object] = {"verdict": None, "closeness": None, "limits": []}
    save_grades(tmp_path, 7, {**rounded(grades), **verdict})
    text = (tmp_path / "quality.json").read_text()
    assert strict_json(text) == {"iteration": 7, **rounded(grades), **verdict}
    assert saved_grades(tmp_path, 7) == {**rounded(grades), **verdict}
    assert saved_grades(tmp_path, 8) is None
    (tmp_path / "quality.json").write_text('{"iteration": 7, "quality": 1.1}')  # without verdict
    assert saved_grades(tmp_path, 7) is None


def test_curves_leave_out_what_is_not_finite() -> None:
    history = [
        {"iteration": float(k), "loss": v} for k, v in enumerate((1.0, None, torch.nan, 3.0))
    ]
    drawn = curve(history, "loss", "Loss")
    assert drawn.count(",") >= 2
    assert "nan" not in drawn
    assert curve(history[1:3], "loss", "Loss") == ""


def test_linked_maps_share_the_greatest_depth() -> None:
    maps = [TextureMap("albedo", "RGB", 8, icc_profile=PROFILE), TextureMap("height", "L", 16)]
    assert sheet_map(maps) == TextureMap("", "RGB", 16, icc_profile=PROFILE)
    assert sheet_map(maps[1:]) == maps[1]
