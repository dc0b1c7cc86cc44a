"""The page of a run is one file without links, and a browser shows all of it."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gcn_cli.report.curve import curve
from tests.cli.running import TEXTURE, gcn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
RUN = "a <b> & 'run'"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  images: document.images.length,
  broken: [...document.images].filter((image) => !image.naturalWidth).length,
  overflow: document.documentElement.scrollWidth - innerWidth }) })</script>"""


class Page(html.parser.HTMLParser):
    """The tags of a page and the addresses that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as image:
        image.crop((0, 0, 128, 128)).save(folder / "texture.png")
    assert gcn("train", "texture.png", *TEXTURE, "-o", RUN, cwd=folder).returncode == 0
    done = gcn("inspect", "report", "page", "--model", RUN, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"page/index.html\n"
    assert b"writing the report 30/30, " in done.stderr  # not silent in a log
    return folder


def test_the_page_is_one_file_with_all_sections(folder: Path) -> None:
    text = (folder / "page" / "index.html").read_text()
    page = Page(text)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "script" not in page.tags
    assert headings(text) == [
        "In use", "Training", "Steps of the sampling", "Measures of quality", "Filters",
        "Analysis of an image", "Denoising", "Copies", "Settings",
    ]  # fmt: skip
    assert "<h1>a &lt;b&gt; &amp; &#39;run&#39;</h1>" in text
    assert [path.name for path in (folder / "page").iterdir()] == ["index.html"]
    # The verdict, then the images side by side, then what, when and by which command.
    order = ['class="verdict ', 'class="wide"', "trained by", "<h2>Training"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "gcn train IMAGE " in text
    assert "--iterations 20" in text
    assert "--set crop=32" in text
    assert "by gcn inspect report page --model" in text
    assert re.search(r"step \d+ of 25, noise level [\d.]+", text)
    assert ">None<" not in text
    assert len(text) < 3_000_000
    inside = text[text.index("<details>") :]
    assert (
        inside.count("<details>") == 6
    )  # measures, filters, analysis, denoising, copies, settings


def test_a_page_is_replaced_only_with_overwrite(folder: Path) -> None:
    words = ["inspect", "report", "page", "--model", RUN, "--image", "texture.png"]
    assert gcn(*words, cwd=folder).returncode == 2
    again = gcn(*words, "--overwrite", "--json", cwd=folder)
    assert again.returncode == 0, again.stderr.decode()
    assert json.loads(again.stdout)["report"] == "page/index.html"


@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_all_images_within_the_window(folder: Path, width: int) -> None:
    text = (folder / "page" / "index.html").read_text()
    text = text.replace("<details>", "<details open>")
    (folder / "probed.html").write_text(text.replace("</head>", f"{PROBE}</head>"))
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--window-size={width},800", "--dump-dom", f"file://{folder}/probed.html",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    probed: dict[str, Any] = json.loads(title.replace("&quot;", '"'))
    assert probed["images"] > 20
    assert probed["broken"] == 0
    assert probed["overflow"] <= 0
    assert "CONSOLE" not in done.stderr


def test_a_page_is_written_during_training_and_completed_after(tmp_path: Path) -> None:
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as image:
        image.crop((0, 0, 96, 96)).save(tmp_path / "texture.png")
    words = ["train", "texture.png", *TEXTURE, "--preview-every", "1", "-o", "run"]
    words += ["--report", "page", "--iterations", "30"]
    interrupted = gcn(*words, "--max-time", "0.05s", cwd=tmp_path)
    assert interrupted.returncode == 0, interrupted.stderr.decode()
    text = (tmp_path / "page" / "index.html").read_text()
    assert 'http-equiv="refresh"' in text
    assert headings(text) == ["Training"]
    done = gcn(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    text = (tmp_path / "page" / "index.html").read_text()
    assert 'http-equiv="refresh"' not in text
    assert "Filters" in headings(text)


def test_a_foreign_page_is_not_replaced(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("<h1>Mine</h1>")
    words = ["train", "texture.png", *TEXTURE, "-o", "untouched", "--report", "site"]
    done = gcn(*words, cwd=folder)
    assert done.returncode == 2
    assert b"--report site: holds a page that is not gcn's" in done.stderr
    assert (folder / "site" / "index.html").read_text() == "<h1>Mine</h1>"
    assert not (folder / "untouched").exists()


@pytest.mark.parametrize(
    "settings",
    [
        ["--set", "learner=mle", "--set", "layers=4@5/2+2,4@3+1"],
        ["--preset", "object", "--set", "layers=4@5,4@3/2"],
    ],
)
def test_models_without_texture_metrics_have_a_page(settings: list[str], tmp_path: Path) -> None:
    Image.effect_noise((48, 40), 60).convert("RGB").save(tmp_path / "texture.png")
    words = ["train", "texture.png", *settings, "--resize", "32", "--iterations", "2", "-o", "run"]
    done = gcn(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    done = gcn("inspect", "report", "page", "--model", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    shown = headings((tmp_path / "page" / "index.html").read_text())
    assert "Filters" in shown
    assert "In use" not in shown  # which do not tile
    assert "Copies" not in shown


def test_a_curve_has_few_points_and_ignores_one_outlier() -> None:
    rows = [{"iteration": float(k), "loss": 100.0 if k == 1 else 1 / k} for k in range(1, 1001)]
    drawn = curve(rows, "loss", "Loss", 800.0)
    raw, smooth = (line.split() for line in re.findall(r'<polyline .*?points="(.*?)"', drawn))
    assert 200 < len(raw) == len(smooth) < 400
    assert len({point.split(",")[1] for point in raw}) > 50  # the outlier is cut off
    ticks = re.findall(r">([\d.]+)</text>", drawn)
    assert {"200", "400", "600", "800", "1000"} <= set(ticks)  # round numbers
    assert "likelihood joins" in drawn
    assert "<svg" in curve(rows[:1], "loss", "Loss")
    assert "<svg" in curve([{**row, "loss": 2.0} for row in rows], "loss", "Loss")
