"""Samples too small to grade are written all the same; and what `inspect` says to do next."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.running import TEXTURE, gcn

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 96, 96)).save(folder / "texture.png")
        whole.crop((0, 0, 48, 48)).save(folder / "start.png")
    assert gcn("train", "texture.png", *TEXTURE, "-o", "run", cwd=folder).returncode == 0
    return folder


def test_a_sample_too_small_to_grade_is_written(here: Path) -> None:
    words = ["synthesize", "--model", "run", "--steps", "2", "--json"]
    done = gcn(*words, "--size", "48", "--count", "2", "-o", "small", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    printed = json.loads(done.stdout)
    assert printed["quality"] is None
    assert [one["quality"] for one in printed["files"]] == [None, None]
    for one in printed["files"]:
        with Image.open(here / one["path"]) as shown:
            assert shown.size == (48, 48)
    graded = json.loads(gcn(*words, "--size", "64", "-o", "graded", cwd=here).stdout)
    assert graded["quality"]["quality"] > 0
    assert graded["files"][0]["quality"] == graded["quality"]


def test_the_best_of_samples_too_small_to_grade_is_refused(here: Path) -> None:
    words = ["synthesize", "--model", "run", "--best-of", "3", "-o", "best.png"]
    rule = b"gcn: error: --best-of 3: samples of 48x96 pixels are too small to grade; give a --size"
    for more in ([], ["--dry-run"]):
        refused = gcn(*words, "--size", "48x96", *more, cwd=here)
        assert refused.returncode == 2
        assert refused.stderr.startswith(rule)
        assert len(refused.stderr.splitlines()) == 1
    begun = gcn(*words, "--steps", "2", "--start", "start.png", cwd=here)
    assert begun.returncode == 2
    assert b"--best-of 3: samples of 48x48 pixels are too small" in begun.stderr
    assert not (here / "best.png").exists()


def test_every_next_command_names_the_model(here: Path) -> None:
    (here / "run" / "quality.json").unlink()  # what it says of a rough model is another hint
    said = " ".join(gcn("inspect", "--model", "run", cwd=here).stdout.decode().split())
    _, hint = said.split(" next ")
    assert hint == "gcn synthesize --model run --size 1024; gcn inspect --model run --report page"
    assert gcn("inspect", "--model", "run", "--report", "page", cwd=here).returncode == 0
