"""How good samples are, as the commands say it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.running import TEXTURE, gcn

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 96, 96)).save(folder / "texture.png")
    return folder


@pytest.fixture(scope="module")
def trained(here: Path) -> dict[str, float]:
    done = gcn("train", "texture.png", *TEXTURE, "-o", "run", "--json", cwd=here)
    assert done.returncode == 0, done.stderr.decode()
    assert b"quality " in done.stderr
    quality: dict[str, float] = json.loads(done.stdout)["quality"]
    return quality


def test_a_training_ends_with_its_quality(here: Path, trained: dict[str, float]) -> None:
    saved = json.loads((here / "run" / "quality.json").read_text())
    assert saved == {"iteration": 20, **trained}
    with Image.open(here / "run" / "exemplar.png") as kept:
        assert kept.size == (96, 96)
    again = gcn("train", "texture.png", *TEXTURE, "-o", "run", "--json", cwd=here)
    assert json.loads(again.stdout)["quality"] == trained
    longer = gcn("train", "texture.png", *TEXTURE, "-o", "run", "--extend", "5", "--json", cwd=here)
    assert json.loads(longer.stdout)["quality"] != trained


def test_the_best_of_several_is_kept(here: Path, trained: dict[str, float]) -> None:
    assert trained
    words = ["synthesize", "--model", "run", "--size", "96", "--json"]
    several = json.loads(gcn(*words, "--count", "6", "-o", "all", cwd=here).stdout)["files"]
    best = json.loads(gcn(*words, "--count", "2", "--best-of", "3", "-o", "best", cwd=here).stdout)
    for place, one in enumerate(best["files"]):
        tried = several[3 * place : 3 * place + 3]
        chosen = min(tried, key=lambda row: row["quality"]["quality"])
        assert (here / one["path"]).read_bytes() == (here / chosen["path"]).read_bytes()
        assert one["quality"] == chosen["quality"]
    assert best["quality"]["quality"] in [one["quality"]["quality"] for one in best["files"]]


def test_without_an_exemplar_there_is_no_best(here: Path, trained: dict[str, float]) -> None:
    assert trained
    (here / "alone.safetensors").write_bytes((here / "run" / "model.safetensors").read_bytes())
    words = ["synthesize", "--model", "alone.safetensors", "--size", "96", "--best-of", "2"]
    refused = gcn(*words, "-o", "x.png", cwd=here)
    assert refused.returncode == 2
    assert b"keeps no exemplar to measure by; give it (--exemplar)" in refused.stderr
    given = gcn(*words, "--exemplar", "texture.png", "-o", "x.png", cwd=here)
    assert given.returncode == 0, given.stderr.decode()
    useless = gcn(*words[:-2], "--exemplar", "texture.png", "-o", "y.png", cwd=here)
    assert useless.returncode == 2
    assert b"--exemplar: is for --best-of and --json" in useless.stderr
