"""examples/gallery.py makes its page from the command line alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.cli.running import TEXTURE

ROOT = Path(__file__).parent.parent


def test_a_gallery_shows_everything_of_every_picture(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 128, 96)).save(tmp_path / "in" / "rock & <co>.png")
    command = [sys.executable, str(ROOT / "examples/gallery.py"), "in", "--output", "out"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(2):
        done = subprocess.run(
            [*command, "--", *TEXTURE, "--iterations", "5"],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().splitlines()[-1] == "out/index.html"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>rock &amp; &lt;co&gt;</h2>" in page
    shown = re.findall(r'<img src="([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert len(shown) == 6
    sizes = {}
    for name, width, height in shown:
        with Image.open(tmp_path / "out" / name.replace("&amp;", "&").replace("&lt;", "<").replace(
            "&gt;", ">"
        )) as picture:  # fmt: skip
            assert picture.size == (int(width), int(height))
            sizes[Path(name).stem] = picture.size
    assert sizes == {
        "exemplar": (128, 96), "sample": (128, 96), "tiled": (256, 192), "lost": (128, 96),
        "repaired": (128, 96), "wider": (256, 96),
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "sheet.jpg") as small:
        assert small.height == 128


def test_a_table_of_quality_by_any_command(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 96, 96)).save(tmp_path / "in" / "rock.png")
    measure = "import json, sys; print(json.dumps({p: {'score': 2.5} for p in sys.argv[2:]}))"
    (tmp_path / "measure.py").write_text(measure)
    command = [sys.executable, str(ROOT / "examples/quality_table.py"), "in", "--samples", "2"]
    command += ["--measure", f"{sys.executable} measure.py", "--", *TEXTURE, "--iterations", "5"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"picture rock  ")
    assert b"score: median 2.500  worst 2.500" in done.stdout
