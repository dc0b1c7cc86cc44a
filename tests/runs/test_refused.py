"""What cannot be is refused before any work, in one line that names option, value and remedy."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gcn_cli as gcn
from gcn_cli.cli import app
from gcn_cli.errors import InputError
from gcn_cli.runs import session as starting
from gcn_cli.runs.folder import refuse_inside, sample_targets

SMALL: dict[str, Any] = {"layers": "4@5,4@3/2", "crop": 16, "margin": 2, "device": "cpu"}


def picture(side: int = 32) -> torch.Tensor:
    return 255 * torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10**9}, r"--batch-size 1000000000, --layers: need .* GiB"),
        ({"layers": "100000000@5"}, r"--layers: need .* GiB of memory at the least"),
        ({"iterations": "abc"}, "--iterations abc: must be a whole number"),
        ({"iterations": [1]}, r"--iterations \[1\]: must be a whole number"),
        ({"crop": 16.5}, "--crop 16.5: must be a whole number"),
        ({"noise_max": "high"}, "--noise-max high: must be a number"),
        ({"iterations": float("inf")}, "--iterations inf: must be a whole number"),
    ],
)
def test_settings_that_no_training_can_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gcn.train(picture(), **{**SMALL, **settings})


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    assert gcn.train(picture(), **{**SMALL, "iterations": 2.0}).config.iterations == 2


def test_memory_is_compared_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "free_memory", lambda _: 1000)
    with pytest.raises(InputError, match="make them, or --crop, smaller"):
        gcn.train(picture(), iterations=1, **SMALL)


def test_pictures_are_named_once_and_lie_outside_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "texture.png"
    path.touch()
    with pytest.raises(InputError, match=r"texture.png: given twice; name each picture once"):
        gcn.train([path, str(path)], **SMALL)
    with pytest.raises(InputError, match=r"lies in .*, where the run goes"):
        refuse_inside([str(tmp_path / "run" / "a" / "b.png")], str(tmp_path / "run"))
    refuse_inside(["-", str(path)], str(tmp_path / "run"))


def test_links_that_lead_to_themselves(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match=r"loop\.png: "):
        gcn.train(loop, **SMALL)


def test_a_picture_smaller_than_the_models_stride_has_no_reconstruction() -> None:
    model = gcn.train(picture(), iterations=1, **SMALL)
    with pytest.raises(InputError, match="sides must be 4 pixels or more"):
        model.reconstruct(picture(2))


def test_samples_go_to_folders_and_pictures_only(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(InputError, match="is no folder, nor a picture by its name"):
        sample_targets(str(tmp_path / "there"), tmp_path, [0], 1, (8, 8))


def test_a_message_is_one_line_whatever_a_file_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app._fail("a\nb\x1b[31m.png: no such file", 2, debug=False) == 2
    assert capsys.readouterr().err == "gcn: error: a\\nb\\x1b[31m.png: no such file\n"


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ({}, {"iterations": 7}, "trained with the default of --iterations, not 7; use --overwrite"),
        ({"iterations": 7}, {}, "trained with --iterations 7, not the default; use --overwrite"),
        ({"batch_size": 0}, {}, "trained with --batch-size 0, not 4; use --overwrite"),
        ({}, {"shrink": 0}, "trained with --shrink 512, not 0; use --overwrite"),
        ({}, {"mean_color": "0,0,0"}, "trained with --mean-color own, not 0.0,0.0,0.0; use"),
    ],
)
def test_a_run_under_other_values_says_both_also_where_one_is_the_default(
    first: dict[str, Any], then: dict[str, Any], said: str, tmp_path: Path
) -> None:
    gcn.train(picture(), output=tmp_path, should_stop=lambda: True, **SMALL, **first)
    with pytest.raises(InputError, match=said):
        gcn.train(picture(), output=tmp_path, **SMALL, **then)
