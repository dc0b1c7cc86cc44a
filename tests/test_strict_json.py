"""No Infinity and no NaN in JSON: null in their place, and what they were."""

import json
import math
import re

import pytest
import torch

from gcn_cli.cli.console import JsonResult
from gcn_cli.metrics import psnr
from gcn_cli.strict_json import dumps, finite
from tests.reading import strict_json
from tests.test_architecture import PACKAGE, modules

VALUES = {"a": [1.5, math.inf, {"b": -math.inf}], "c": math.nan, "d": (2, "x", None, True)}


def test_numbers_that_are_not_finite_are_null_and_named() -> None:
    replaced: dict[str, str] = {}
    plain = {"a": [1.5, None, {"b": None}], "c": None, "d": [2, "x", None, True]}
    assert finite(VALUES, replaced) == plain
    assert replaced == {"a.1": "infinity", "a.2.b": "-infinity", "c": "not a number"}
    assert strict_json(dumps(VALUES)) == plain


def test_the_parser_of_the_tests_is_strict() -> None:
    for text in ("NaN", "[Infinity]", '{"a": -Infinity}'):
        json.loads(text)
        with pytest.raises(ValueError, match="no JSON"):
            strict_json(text)


def test_json_is_written_in_one_place() -> None:
    """A model file holds settings and the like, which are finite; presets write TOML."""
    writers = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if re.search(r"json\.dumps?\(", re.sub(r"strict_json\.dumps", "", path.read_text()))
    }
    assert writers == {"checkpoint.py", "presets.py", "strict_json.py"}


def test_a_psnr_without_error_is_null_and_its_reason_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = torch.zeros(3, 4, 4)
    JsonResult("reconstruct").show(files=[{"psnr_db": psnr(image, image), "rms_error": 0.0}])
    printed = strict_json(capsys.readouterr().out)
    assert printed["files"] == [{"psnr_db": None, "rms_error": 0.0}]
    assert printed["not_finite"] == {"files.0.psnr_db": "infinity"}
    JsonResult("inspect").show(image={"energy": 1.0})
    assert "not_finite" not in strict_json(capsys.readouterr().out)
