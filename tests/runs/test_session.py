"""The beginning of a training: refused settings, resuming, extending."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.checkpoint import load
from gcn_cli.errors import InputError
from gcn_cli.images import to_pillow
from gcn_cli.runs import session as sessions
from tests.clock import Clock
from tests.small import SMALL_PUBLISHED, SMALL_TEXTURE, small_image

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10**9}, r"--batch-size 1000000000, --set layers: need .* GiB"),
        ({"layers": "100000000@5"}, r"--set layers: need .* GiB of memory or more"),
        ({"iterations": "abc"}, "--iterations abc: must be a whole number"),
        ({"iterations": [1, 2]}, "--iterations 1,2: must be a whole number"),
        ({"crop": 16.5}, "crop.16.5: must be a whole number"),
        ({"noise_max": "high"}, "noise_max.high: must be a number"),
        ({"iterations": float("inf")}, "--iterations inf: must be a whole number"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gcn.train(small_image(), **{**SMALL_TEXTURE, **settings})


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    model = gcn.train(small_image(), **{**SMALL_TEXTURE, "iterations": 2.0})
    assert model.config.iterations == 2


def test_memory_is_compared_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "free_memory", lambda _: 1000)
    with pytest.raises(InputError, match="make them, or --set crop, smaller"):
        gcn.train(small_image(), iterations=1, **SMALL_TEXTURE)


def test_an_image_is_given_once(tmp_path: Path) -> None:
    path = tmp_path / "texture.png"
    path.touch()
    with pytest.raises(InputError, match=r"texture\.png: given twice"):
        gcn.train([path, str(path)], **SMALL_TEXTURE)


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match=r"loop\.png: "):
        gcn.train(loop, **SMALL_TEXTURE)


def test_an_image_smaller_than_the_stride_has_no_reconstruction() -> None:
    model = gcn.train(small_image(), iterations=1, **SMALL_TEXTURE)
    with pytest.raises(InputError, match="sides must be 4 pixels or more"):
        model.reconstruct(small_image()[:, :2, :2])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"iterations": 7}, "the default of --iterations, not --iterations 7; --overwrite"),
        ({"iterations": 7}, {"iterations": 8}, "--iterations 7, not --iterations 8; --overwrite"),
        ({"batch_size": 0}, {"batch_size": 4}, "--batch-size 0, not --batch-size 4; --overwrite"),
        ({}, {"shrink": 0}, "--set shrink=512, not --set shrink=0; --overwrite"),
        ({}, {"mean_color": "0,0,0"}, "--set mean_color=own, not --set mean_color=0,0,0; --over"),
        ({"preset": "quick"}, {"preset": "best"}, "--preset quick, not --preset best; --overwrite"),
        ({}, {"preset": "quick"}, "--preset default, not --preset quick; --overwrite starts over"),
        ({"preset": "quick"}, {"flips": True}, r"--preset quick \(--no-flips\), not --flips; --o"),
    ],
)
def test_a_run_with_other_settings_is_refused_with_both_values(
    first: dict[str, Any], second: dict[str, Any], message: str, tmp_path: Path
) -> None:
    trained(tmp_path, SMALL_TEXTURE | first, should_stop=lambda: True)
    with pytest.raises(InputError, match=f"trained with {message}"):
        trained(tmp_path, SMALL_TEXTURE | second)


def test_going_on_needs_no_setting_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = tmp_path / "wall.png"
    to_pillow(small_image()).save(image)
    place: dict[str, Any] = {"device": "cpu", "output": tmp_path / "run"}
    first = {**SMALL_TEXTURE, "preset": "quick", "flips": True, "iterations": 4}
    gcn.train(image, **{**first, **place}, should_stop=lambda: True)
    with caplog.at_level(logging.INFO, logger="gcn_cli"):
        forecast = gcn.forecast(image, **place)
        model = gcn.train(image, **place)
    assert (forecast["iterations"], forecast["config"]["crop"]) == (4, 16)
    assert model.complete
    assert model.config.crop == 16
    assert (
        "as before, --preset quick --set layers=4@5,4@3/2 --set crop=16 --set margin=2 --flips"
        in (caplog.text)
    )
    longer = gcn.train(image, **place, extend=2)
    assert longer.checkpoint.iteration == 6
    assert gcn.train(image, **place, preset="quick", flips=True).checkpoint.iteration == 6
    with pytest.raises(InputError, match="trained with --preset quick, not --preset default"):
        gcn.train(image, **place, preset="default")
    with pytest.raises(InputError, match="learning_rate=many: must be a number"):
        gcn.train(image, **place, learning_rate="many")
    with pytest.raises(InputError, match="step_size: has no meaning with"):
        gcn.train(image, **place, step_size=1)


def test_other_images_are_named(tmp_path: Path) -> None:
    for name, pixels in (("a", small_image()), ("b", 255 - small_image()), ("m", small_image())):
        to_pillow(pixels).save(tmp_path / f"{name}.png")
    mask = torch.zeros(1, 32, 40)
    mask[:, :4] = 255
    to_pillow(mask).save(tmp_path / "mask.png")
    a, b, m, hidden = (str(tmp_path / f"{name}.png") for name in ("a", "b", "m", "mask"))
    options: dict[str, Any] = {**SMALL_TEXTURE, "crop": 12, "iterations": 1}
    cases: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
        ({}, b, {}, "trained on other images: a.png, not b.png; --overwrite"),
        ({"linked": (m,)}, a, {}, "trained with --map m.png, not no --map; "),
        ({"mask": hidden}, a, {}, "trained with --mask mask.png, not no --mask; "),
        ({}, a, {"mask": hidden}, "trained with no --mask, not --mask mask.png; "),
    ]
    for number, (first, image, second, message) in enumerate(cases):
        run = tmp_path / f"run{number}"
        gcn.train(a, output=run, **options, **first)
        with pytest.raises(InputError, match=message):
            gcn.train(image, output=run, **options, **second)
    to_pillow(255 - small_image()).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"trained on other images: another a\.png; --overwrite"):
        gcn.train(a, output=tmp_path / "run0")


def trained(run: Path, settings: dict[str, Any], **options: Any) -> gcn.Model:
    return gcn.train(small_image(), output=run, **settings, **options)


def test_an_extension_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    settings = {"iterations": 20, **SMALL_TEXTURE}
    trained(tmp_path / "run", settings)
    model = trained(tmp_path / "run", settings, extend=10)
    assert model.complete
    assert [row["likelihood"] > 0 for row in model.history] == [
        *[False] * 16, *[True] * 4, *[False] * 8, *[True] * 2,
    ]  # fmt: skip
    # Without --extend the same command finds it complete, although longer than requested.
    assert len(trained(tmp_path / "run", settings).history) == 30
    assert len(trained(tmp_path / "run", settings, extend=5).history) == 35


@pytest.mark.parametrize("settings", [SMALL_TEXTURE, SMALL_PUBLISHED])
def test_an_interrupted_extension_ends_as_an_uninterrupted_one(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"iterations": 6, **settings}
    for name in ("whole", "cut"):
        trained(tmp_path / name, settings)
    trained(tmp_path / "whole", settings, extend=8)
    cut = trained(tmp_path / "cut", settings, extend=8, should_stop=lambda: True)
    assert len(cut.history) == 7
    assert not cut.complete
    trained(tmp_path / "cut", settings, extend=8)  # resumes, and adds nothing
    whole, resumed = (load(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.iteration == resumed.iteration == 14
    for name, tensor in whole.trainer_state.items():
        assert torch.equal(tensor, resumed.trainer_state[name]), name


def test_an_unfinished_training_is_not_extended(tmp_path: Path) -> None:
    settings = {"iterations": 6, **SMALL_TEXTURE}
    with pytest.raises(InputError, match=r"holds no model to resume \(--extend\)"):
        trained(tmp_path / "run", settings, extend=3)
    trained(tmp_path / "run", settings, should_stop=lambda: True)
    with pytest.raises(InputError, match="is not finished, iteration 1 of 6"):
        trained(tmp_path / "run", settings, extend=3)


def test_an_extension_by_time_follows_the_speed_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, settings = Clock(monkeypatch, 0.1, 0.22), {"iterations": 20, **SMALL_TEXTURE}
    trained(tmp_path / "run", settings, on_step=clock.note)
    before = clock.now
    model = trained(tmp_path / "run", settings, on_step=clock.note, extend_time=10.0)
    assert model.complete
    assert 8.5 < clock.now - before <= 10.0
    likelihood = sum(row["likelihood"] > 0 for row in model.history[20:])
    assert likelihood / (len(model.history) - 20) == pytest.approx(0.2, abs=0.02)
