"""Checks of the noise levels; anomaly maps and filters in coordinates of the original image."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gcn_cli as gcn
from gcn_cli.analysis import LevelReport, unsound_level
from gcn_cli.errors import InputError
from gcn_cli.reconstruction import fit_to_model
from gcn_cli.report.figures import filters_at
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, small_image


@pytest.mark.parametrize(
    ("errors", "noise"),
    [
        ((1.0, 0.8, 0.3, 0.05), None),
        ((1.02, 1.05, 0.3, 0.32), None),  # within chance
        ((14.0, 0.8, 0.3, 0.05), 8),  # above the variance
        ((1.0, 0.4, 0.7, 0.05), 2),  # above the error with more noise
        ((1.0, 1.3, 9.0, 0.05), 2),
    ],
)
def test_an_unsound_level_is_found(errors: tuple[float, ...], noise: float | None) -> None:
    reports = [LevelReport(8 / 2**k, error, 0.5, 0.5) for k, error in enumerate(errors)]
    worst = unsound_level(reports)
    assert (None if worst is None else worst.noise) == noise


def test_the_gaussian_is_sound_and_a_wrong_network_is_not(tmp_path: Path) -> None:
    model = gcn.train(small_image(), output=tmp_path / "run", iterations=1, **SMALL_TEXTURE)
    readouts = model.checkpoint.kind.net.get_submodule("nets.0.readouts")
    for readout in readouts.parameters():
        readout.data.zero_()  # the Gaussian with the spectrum of the data
    reports = model.level_reports()
    assert reports == model.level_reports()
    levels = [report.noise for report in reports]
    assert levels == sorted(levels, reverse=True)
    assert len(reports) == model.evaluations()
    assert unsound_level(reports) is None
    assert reports[0].error == pytest.approx(1, abs=0.1)
    assert reports[-1].error < 0.01
    assert reports[-1].data_variance == pytest.approx(1, abs=0.05)
    for readout in readouts.parameters():
        readout.data.fill_(3.0)
    assert unsound_level(model.level_reports()) is not None


def test_models_without_levels_or_exemplar_are_refused(tmp_path: Path) -> None:
    published = gcn.train(small_image(), output=tmp_path / "mle", iterations=1, **SMALL_PUBLISHED)
    with pytest.raises(InputError, match="levels: only for noise-conditional models"):
        published.level_reports()
    in_memory = gcn.train(small_image(), iterations=1, **SMALL_TEXTURE)
    with pytest.raises(InputError, match="levels: needs the exemplar"):
        in_memory.level_reports()


def smooth_noise() -> Tensor:
    """Noise (3, 80, 120) that keeps its contrast at half the size."""
    noise = torch.rand(3, 80, 120, generator=torch.Generator().manual_seed(0))
    return 96 + 64 * noise.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :80, :120]


def with_checks() -> Tensor:
    """`smooth_noise` with a checkered square of 20 pixels around (90, 20)."""
    image = smooth_noise()
    checks = (torch.arange(20)[:, None] // 4 + torch.arange(20) // 4) % 2
    image[:, 10:30, 80:100] = 255.0 * checks
    return image


@pytest.fixture(scope="module")
def half_size(tmp_path_factory: pytest.TempPathFactory) -> gcn.Model:
    """A model that sees images of 120x80 at half their size."""
    run = tmp_path_factory.mktemp("half") / "run"
    return gcn.train(smooth_noise(), output=run, shrink=40, iterations=20, **SMALL_TEXTURE)


def test_the_most_unusual_place_is_a_pixel_of_the_original_image(half_size: gcn.Model) -> None:
    anomaly = half_size.anomaly_map(with_checks())
    assert anomaly.deviations.shape == (40, 60)
    assert 74 <= anomaly.place[0] < 106
    assert 4 <= anomaly.place[1] < 36


def test_filters_are_those_at_the_pixel_of_the_original_image(half_size: gcn.Model) -> None:
    """The same as for the resized image at half the coordinates."""
    small = fit_to_model(half_size.checkpoint, with_checks())
    assert small.shape == (3, 40, 60)
    sheet = filters_at(half_size, with_checks(), (90, 20))
    assert torch.equal(sheet, filters_at(half_size, small, (45, 10)))
    corner = filters_at(half_size, small, (0, 0))
    assert corner.shape != sheet.shape or not torch.equal(corner, sheet)


def test_pixels_outside_of_the_image_are_refused(half_size: gcn.Model) -> None:
    with pytest.raises(InputError, match=r"--at 120,20: .* 120x80 pixels; X must be below 120"):
        filters_at(half_size, with_checks(), (120, 20))
    wide = torch.nn.functional.pad(with_checks(), (0, 2), value=128.0)  # resized 61x40, cut 60x40
    filters_at(half_size, wide, (119, 79))
    with pytest.raises(InputError, match=r"--at 120,79: .* 122x80 pixels, .* the first 120x80; X"):
        filters_at(half_size, wide, (120, 79))
