"""Settings: their rules, how they are written, and which source wins."""

import tomllib
from pathlib import Path

import pytest

from gcn_cli.config import (
    SETTINGS,
    PublishedConfig,
    from_json,
    option_text,
    parse_pattern,
    parse_setting,
    to_json,
)
from gcn_cli.errors import InputError
from gcn_cli.presets import PRESETS, RENAMED, build_config, read_toml, to_toml
from tests.cli.running import gcn


def test_an_option_beats_the_file_beats_the_preset_beats_the_default() -> None:
    preset = PRESETS["paper-codebook"]
    assert build_config({}, {}, "paper-codebook") == preset
    assert preset != PublishedConfig()
    merged = to_json(
        build_config({"iterations": 3}, {"iterations": 4, "sigma": 2}, "paper-codebook")
    )
    assert merged == to_json(preset) | {"iterations": 3, "sigma": 2.0}


def test_a_file_can_name_its_preset() -> None:
    assert build_config({}, {"preset": "paper-object"}).head is True
    with pytest.raises(InputError, match="paper-nonsense"):
        build_config({}, {"preset": "paper-nonsense"})


def test_unknown_keys_and_broken_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--config: itterations: no such setting; similar are it"):
        build_config({}, {"itterations": 3})
    with pytest.raises(
        InputError, match="--set zzz: no such setting; see gcn inspect --preset default"
    ):
        build_config({"zzz": 3})
    for old, new in RENAMED.items():
        with pytest.raises(InputError, match=f"--set {old}: is now {new}"):
            build_config({old: 3})
        assert new in SETTINGS
    broken = tmp_path / "broken.toml"
    broken.write_text("iterations = = 3")
    with pytest.raises(InputError, match=r"broken\.toml: not a TOML file"):
        read_toml(str(broken))
    with pytest.raises(InputError, match="no such file"):
        read_toml(str(tmp_path / "absent.toml"))


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("iterations = 3\r\n", encoding="utf-8-sig")
    assert read_toml(str(tmp_path / "my.toml")) == {"iterations": 3}
    (tmp_path / "my.toml").write_text("iterations = 3\r\n", encoding="utf-16")  # of PowerShell
    assert read_toml(str(tmp_path / "my.toml")) == {"iterations": 3}


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name: str) -> None:
    assert from_json(to_json(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_printed_as_a_config_file_is_that_preset(name: str, tmp_path: Path) -> None:
    printed = gcn("inspect", "--preset", name, cwd=tmp_path).stdout.decode()
    assert printed.strip() == to_toml(PRESETS[name])
    assert build_config({}, tomllib.loads(printed)) == PRESETS[name]
    helps, names = printed.splitlines()[::2], printed.splitlines()[1::2]
    assert all(line.startswith("# ") and line.endswith(".") for line in helps)
    assert {line.removeprefix("# ").split(" = ")[0] for line in names} == vars(PRESETS[name]).keys()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("iterations", "0", "--iterations 0: must be 1 or more"),
        ("iterations", "many", "--iterations many: must be a whole number"),
        ("iterations", 1.5, "--iterations 1.5: must be a whole number"),
        ("iterations", True, "--iterations true: must be a whole number"),
        ("layerwise", 1, "--set layerwise=1: must be true or false"),
        ("sigma", "0", "--set sigma=0: must be more than 0"),
        ("sigma", "inf", "--set sigma=inf: must be finite"),
        ("sigma", "nan", "--set sigma=nan: must be more than 0"),
        ("learner", "sgd", "--set learner=sgd: must be one of"),
        ("padding_mode", "cubic", "--set padding_mode=cubic: must be one of valid, zeros"),
        ("layers", "100x3", "--set layers=100x3: must be FILTERS@SIZE"),
        ("momentum", "1", "--set momentum=1: must be 0.999 or less"),
    ],
)
def test_a_bad_value_names_the_option_and_the_rule(name: str, text: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_config({"learner": "mle"} | {name: text})
    assert words in str(caught.value)


def test_options_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(InputError, match="--set chains=3: contrastive"):
        build_config({"learner": "cd", "chains": 3})
    with pytest.raises(InputError, match="--set langevin_steps: has no meaning with"):
        build_config({"langevin_steps": 3})
    with pytest.raises(
        InputError, match="--preset quick: has another learner than --set learner=cd"
    ):
        build_config({"learner": "cd"}, {}, "quick")
    with pytest.raises(InputError, match="--set crop=32: a head needs whole images"):
        build_config({"learner": "mle", "head": True, "crop": 32})


def test_nought_unsets_what_may_be_unset() -> None:
    assert parse_setting("size", "0") is None
    assert parse_setting("mean_color", "own") is None
    assert option_text("crop", None) == "--set crop=0"


@pytest.mark.parametrize("learner", ["denoise", "mle"])
@pytest.mark.parametrize("text", ["300,0,0", "0,-1,0", "0,0,nan", "0,inf,0"])
def test_a_mean_color_is_of_pixels(learner: str, text: str) -> None:
    remedy = "give one value for each channel, or own"
    rule = rf"--set mean_color={text}: each value must be in 0\.\.255; {remedy}"
    with pytest.raises(InputError, match=f"^{rule}$"):
        build_config({"learner": learner, "mean_color": text})
    kept = build_config({"learner": learner, "mean_color": "0,127.5,255"})
    assert kept.mean_color == (0, 127.5, 255)


@pytest.mark.parametrize(
    ("preset", "side", "crop", "layers", "margin"),
    [
        ("default", 512, 128, 10, 12),  # as it is: there is room
        ("default", 171, 128, 10, 12),
        ("default", 170, 96, 10, 12),
        ("default", 128, 96, 10, 12),
        ("default", 127, 80, 8, 10),
        ("default", 72, 48, 8, 6),  # the shorter side of a strip
        ("default", 48, 32, 6, 4),
        ("quick", 128, 96, 8, 12),
        ("quick", 97, 64, 8, 8),
        ("quick", 96, 64, 8, 8),
        ("quick", 64, 48, 8, 6),
        ("best", 128, 96, 10, 12),
    ],
)
def test_crops_leave_room_for_many_places(
    preset: str, side: int, crop: int, layers: int, margin: int
) -> None:
    """With one place to cut from, a net learns the places of things, and samples are flat."""
    requested = PRESETS[preset]
    config, notes = requested.resolve(side, 3, 0.0, on_gpu=False, shortest_side=side)
    assert (config.crop, len(config.layers)) == (crop, layers)
    assert to_json(config)["margin"] == margin
    assert config.crop is not None
    assert config.crop % config.size_multiple == 0
    assert config.layers == requested.layers[:layers]
    told = [note for note in notes if f"crop={requested.crop}: reduced to {crop}" in note]
    assert len(told) == (crop != requested.crop)
    if told:
        assert f"three quarters of the shorter side, {side} pixels" in told[0]
        assert (f"the first {layers} of 10 layers" in told[0]) == (layers < len(requested.layers))


def test_crops_between_holes_are_not_reduced_twice() -> None:
    """They already have many places: 120 of the 256 pixels are all that holes leave."""
    config, notes = PRESETS["default"].resolve(120, 3, 0.0, on_gpu=False, shortest_side=256)
    assert (config.crop, len(config.layers)) == (96, 10)
    assert "120 pixels, of which enough crops are known" in notes[0]


@pytest.mark.parametrize("preset", ["default", "quick"])
def test_an_image_too_small_for_crops_is_refused(preset: str) -> None:
    rule = "the shorter side, 42 pixels, leaves crops of 31, too small .* enlarge it to 43 pixels"
    with pytest.raises(InputError, match=rule):
        PRESETS[preset].resolve(42, 3, 0.0, on_gpu=False, shortest_side=42)
    PRESETS[preset].resolve(43, 3, 0.0, on_gpu=False, shortest_side=43)


@pytest.mark.parametrize(
    ("text", "vectors"),
    [
        ("auto", None),
        ("off", []),
        ("51,83.5", [(83.5, 0), (0, 51)]),
        ("0,16", [(16, 0)]),
        ("12.5,0", [(0, 12.5)]),
        ("43,0:21.5,21", [(0, 43), (21, 21.5)]),
        ("-9,9:9,9", [(9, -9), (9, 9)]),
    ],
)
def test_a_pattern_is_given_by_periods_or_vectors(
    text: str, vectors: list[tuple[float, float]] | None
) -> None:
    assert parse_pattern(text) == vectors
    config = build_config({"pattern": text})
    assert config.pattern == text
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("yes", "must be auto, off, two periods ACROSS,DOWN as 51,83.5"),
        ("12", "must be auto, off"),
        ("12,12,12", "must be auto, off"),
        ("12,12,12,12", "must be auto, off"),
        ("12:12", "must be auto, off"),
        ("12,nan", "must be auto, off"),
        ("inf,12", "must be auto, off"),
        ("5.9,12", "periods must be 6 pixels or more"),
        ("0,0", "periods must be 6 pixels or more"),
        ("-12,12", "periods must be 6 pixels or more"),
        ("3,4:20,0", "periods must be 6 pixels or more"),
        ("20,10:40,21", "the two vectors must point in different directions"),
    ],
)
def test_another_pattern_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=f"^{option_text('pattern', text)}: {rule}"):
        build_config({"pattern": text})


def test_a_pattern_is_of_textures() -> None:
    with pytest.raises(InputError, match=r"pattern.12,12: only for textures"):
        build_config({"pattern": "12,12"}, {}, "object")
    with pytest.raises(InputError, match="pattern: has no meaning with"):
        build_config({"pattern": "off"}, {}, "paper-texture")
