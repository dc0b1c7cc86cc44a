"""Values, their rules, and which source wins."""

import tomllib
from pathlib import Path

import pytest

from gcn_cli.config import (
    PublishedConfig,
    config_fields,
    from_json,
    parse_value,
    read_toml,
    to_json,
)
from gcn_cli.errors import InputError
from gcn_cli.presets import PRESETS, resolve
from tests.cli.running import gcn


def test_an_option_beats_the_file_beats_the_preset_beats_the_default() -> None:
    preset = PRESETS["paper-codebook"]
    assert resolve({}, {}, "paper-codebook") == preset
    assert preset != PublishedConfig()
    merged = to_json(resolve({"iterations": 3}, {"iterations": 4, "sigma": 2}, "paper-codebook"))
    assert merged == to_json(preset) | {"iterations": 3, "sigma": 2.0}


def test_a_file_can_name_its_preset() -> None:
    assert resolve({}, {"preset": "paper-object"}).head is True
    with pytest.raises(InputError, match="paper-nonsense"):
        resolve({}, {"preset": "paper-nonsense"})


def test_unknown_keys_and_broken_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key itterations"):
        resolve({}, {"itterations": 3})
    broken = tmp_path / "broken.toml"
    broken.write_text("iterations = = 3")
    with pytest.raises(InputError, match=r"broken\.toml: not a TOML file"):
        read_toml(str(broken))
    with pytest.raises(InputError, match="No such file"):
        read_toml(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name: str) -> None:
    assert from_json(to_json(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_printed_as_a_config_file_is_that_preset(name: str, tmp_path: Path) -> None:
    printed = gcn("inspect", "--preset", name, cwd=tmp_path).stdout.decode()
    assert resolve({}, tomllib.loads(printed)) == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("iterations", "0", "--iterations 0: must be 1 or more"),
        ("iterations", "many", "--iterations many"),
        ("sigma", "0", "--sigma 0.0: must be more than 0"),
        ("learner", "sgd", "--learner sgd: must be one of"),
        ("lattice", "cubic", "--lattice cubic"),
        ("layers", "100x3", "--layers 100x3"),
        ("momentum", "1", "--momentum 1.0: must be 0.999 or less"),
    ],
)
def test_a_bad_value_names_the_option_and_the_rule(name: str, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve({"learner": "mle"} | {name: parse_text(name, text)})
    assert words in str(caught.value)


def parse_text(name: str, text: str) -> object:
    return parse_value(name, config_fields()[name].type, text)


def test_options_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(InputError, match="--chains"):
        resolve({"learner": "cd", "chains": 3})
    with pytest.raises(InputError, match="--langevin-steps: means nothing to --learner denoise"):
        resolve({"langevin_steps": 3})
    with pytest.raises(InputError, match="--preset quick: is not for --learner cd"):
        resolve({"learner": "cd"}, {}, "quick")
    with pytest.raises(InputError, match="--crop and --head"):
        resolve({"learner": "mle", "head": True, "crop": 32})


def test_nought_unsets_what_may_be_unset() -> None:
    assert parse_text("size", "0") is None
    assert parse_text("mean_color", "own") is None


@pytest.mark.parametrize("learner", ["denoise", "mle"])
@pytest.mark.parametrize("text", ["300,0,0", "0,-1,0", "0,0,nan", "0,inf,0"])
def test_a_mean_color_is_of_pixels(learner: str, text: str) -> None:
    rule = rf"--mean-color {text}: each value must be in 0\.\.255; give one a channel, or 'own'"
    with pytest.raises(InputError, match=f"^{rule}$"):
        resolve({"learner": learner, "mean_color": parse_text("mean_color", text)})
    kept = resolve({"learner": learner, "mean_color": parse_text("mean_color", "0,127.5,255")})
    assert kept.mean_color == (0, 127.5, 255)
