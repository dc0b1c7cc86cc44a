"""The example scripts make a page and a table with the command line alone."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gcn_cli.presets import build_config
from tests.cli.running import TEXTURE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TRAINING = ["--", *TEXTURE, "--iterations", "5"]


def run_example(name: str, *arguments: str, cwd: Path) -> list[str]:
    """Lines that an example prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments, *TRAINING],
        cwd=cwd,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def save_crop(path: Path, width: int, height: int) -> None:
    path.parent.mkdir()
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as image:
        image.crop((0, 0, width, height)).save(path)


def test_the_gallery_shows_all_results(tmp_path: Path) -> None:
    save_crop(tmp_path / "in" / "rock & <co>.png", 128, 96)
    for _ in range(2):
        lines = run_example("gallery.py", "in", "--output", "out", cwd=tmp_path)
        assert lines[-1] == "out/index.html"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>rock &amp; &lt;co&gt;</h2>" in page
    shown = re.findall(r'<img src="([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert len(shown) == 6
    sizes = {}
    for address, width, height in shown:
        with Image.open(tmp_path / "out" / html.unescape(address)) as image:
            assert image.size == (int(width), int(height))
            sizes[Path(address).stem] = image.size
    assert sizes == {
        "exemplar": (128, 96), "sample": (128, 96), "tiled": (256, 192), "missing": (128, 96),
        "repaired": (128, 96), "extended": (256, 96),
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "sheet.jpg") as sheet:
        assert sheet.height == 128


def test_the_quality_table_scores_samples_with_a_command(tmp_path: Path) -> None:
    save_crop(tmp_path / "in" / "rock.png", 96, 96)
    measure = "import json, sys; print(json.dumps({p: {'score': 2.5} for p in sys.argv[2:]}))"
    (tmp_path / "measure.py").write_text(measure)
    arguments = ["in", "--samples", "2", "--measure", f"{sys.executable} measure.py"]
    lines = run_example("quality_table.py", *arguments, cwd=tmp_path)
    assert lines[0].startswith("image rock  ")
    assert "score: median 2.500  worst 2.500" in lines


def test_the_gpu_check_runs_to_its_end_on_a_processor(tmp_path: Path) -> None:
    """At small sizes, so that no minute on a GPU is lost to an error."""
    words = ["gpu_check.py", str(tmp_path / "figures.json"), "--small", "--skip", "tests"]
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("tiny --set layers=4@5 --set crop=16 --set margin=2 --iterations 2\n")
    words += ["--sweep", str(sweep), "--samples", str(tmp_path / "sweep")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / words[0]), *words[1:]],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "error" not in json.dumps(figures).replace('"error": null', ""), figures
    assert figures["each"]["same_models"]
    shares = [
        row["share_of_matrix_product"] for row in figures["iterations"].values() if len(row) == 3
    ]
    assert min(shares) > 0
    assert all(work["kernels"] for work in figures["kernels"].values())
    assert len(list((tmp_path / "sweep" / "tiny").glob("*.png"))) == 2 * 3


def test_the_settings_of_the_gpu_sweep_exist() -> None:
    lines = (ROOT / "examples" / "gpu_sweep.txt").read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == 10
    for line in lines:
        words = line.split()[1:]
        given = list(zip(words[::2], words[1::2], strict=True))
        assert {flag for flag, _ in given} <= {"--preset", "--batch-size", "--iterations", "--set"}
        settings = dict(text.split("=", 1) for flag, text in given if flag == "--set")
        build_config(settings, preset=dict(given).get("--preset"))
