"""The page of a run: whole, one file, without a network; in a real browser where there is one."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gcn_cli as gcn_api
from gcn_cli.report import figures as inside
from gcn_cli.report.page import curve
from tests.cli.running import TEXTURE, gcn

ROOT = Path(__file__).parent.parent.parent
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  pictures: document.images.length,
  broken: [...document.images].filter((one) => !one.naturalWidth).length,
  over: document.documentElement.scrollWidth - innerWidth }) })</script>"""


class Page(html.parser.HTMLParser):
    """What a page loads, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 128, 128)).save(folder / "texture.png")
    run = "a <b> & 'run'"
    assert gcn("train", "texture.png", *TEXTURE, "-o", run, cwd=folder).returncode == 0
    done = gcn("inspect", "--model", run, "--report", "page", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"page/index.html\n"
    return folder


def test_the_page_is_one_file_and_shows_everything(here: Path) -> None:
    text = (here / "page" / "index.html").read_text()
    page = Page(text)
    assert all(one.startswith("data:") for one in page.loads)
    assert "script" not in page.tags
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Exemplar and sample", "How good it is", "Training", "From noise to picture",
        "What filters see and paint", "A picture in its eyes", "What is lost is remembered",
        "Reconstruction at levels of noise", "Is it copied?", "Settings",
    ]  # fmt: skip
    assert "<h1>a &lt;b&gt; &amp; &#39;run&#39;</h1>" in text
    assert [path.name for path in (here / "page").iterdir()] == ["index.html"]


def test_a_page_is_not_replaced_unasked_and_other_pictures_are_looked_into(here: Path) -> None:
    words = ["inspect", "--model", "a <b> & 'run'", "--report", "page", "--picture", "texture.png"]
    assert gcn(*words, cwd=here).returncode == 2
    again = gcn(*words, "--overwrite", "--json", cwd=here)
    assert again.returncode == 0, again.stderr.decode()
    assert json.loads(again.stdout)["report"] == "page/index.html"


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser_all_pictures_load_and_nothing_sticks_out(here: Path, width: int) -> None:
    text = (here / "page" / "index.html").read_text()
    (here / "probed.html").write_text(text.replace("</head>", f"{PROBE}</head>"))
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--window-size={width},800", "--dump-dom", f"file://{here}/probed.html",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    found: dict[str, Any] = json.loads(title.replace("&quot;", '"'))
    assert found["pictures"] > 20
    assert found["broken"] == 0
    assert found["over"] <= 0
    assert "CONSOLE" not in done.stderr


def test_a_training_has_a_page_while_it_runs(tmp_path: Path) -> None:
    """The page of an interrupted one is that of a run that goes on; a complete one's is whole."""
    with Image.open(ROOT / "examples/textures/volcanic_rock.png") as whole:
        whole.crop((0, 0, 96, 96)).save(tmp_path / "texture.png")
    words = ["train", "texture.png", *TEXTURE, "--preview-every", "1", "-o", "run"]
    words += ["--report", "page"]
    cut = gcn(*words, "--iterations", "30", "--max-time", "0.05s", cwd=tmp_path)
    assert cut.returncode == 0, cut.stderr.decode()
    text = (tmp_path / "page" / "index.html").read_text()
    assert 'http-equiv="refresh"' in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Exemplar and sample", "Training"]
    done = gcn(*words, "--iterations", "30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    text = (tmp_path / "page" / "index.html").read_text()
    assert 'http-equiv="refresh"' not in text
    assert "What filters see and paint" in text


def test_a_page_of_someone_else_s_is_left_alone(here: Path) -> None:
    (here / "site").mkdir()
    (here / "site" / "index.html").write_text("<h1>Mine</h1>")
    words = ["train", "texture.png", *TEXTURE, "-o", "untouched", "--report", "site"]
    done = gcn(*words, cwd=here)
    assert done.returncode == 2
    assert b"--report site: holds a page that is not gcn's" in done.stderr
    assert (here / "site" / "index.html").read_text() == "<h1>Mine</h1>"
    assert not (here / "untouched").exists()


def test_a_page_that_is_in_the_way_stops_the_filters_too(here: Path) -> None:
    words = ["inspect", "--model", "a <b> & 'run'", "--report", "page", "--filters", "f.png"]
    assert gcn(*words, cwd=here).returncode == 2
    assert not (here / "f.png").exists()


def test_a_published_model_and_an_object_have_pages_too(tmp_path: Path) -> None:
    Image.effect_noise((48, 40), 60).convert("RGB").save(tmp_path / "texture.png")
    paper = ["--learner", "mle", "--layers", "4@5/2+2,4@3+1", "--size", "32", "--iterations", "2"]
    objects = ["--preset", "object", "--layers", "4@5,4@3/2", "--size", "32", "--iterations", "2"]
    for name, settings in (("paper", paper), ("object", objects)):
        done = gcn("train", "texture.png", *settings, "-o", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        done = gcn("inspect", "--model", name, "--report", f"{name}-page", cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        text = (tmp_path / f"{name}-page" / "index.html").read_text()
        assert "What filters see and paint" in text
        assert "Is it copied?" not in text  # there is no exemplar to measure by


def test_what_a_unit_paints_is_its_filter() -> None:
    """Of the first layer dr/dI is the filter itself, wherever it is looked at."""
    picture = 255 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"learner": "mle", "size": 32, "layers": "3@5/1+2", "iterations": 2}
    model = gcn_api.train(picture, device="cpu", preview_every=0, **settings)
    density = model.checkpoint.family.density(None, torch.float32)
    x = model.checkpoint.pixels.to_model(picture)[None]
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        responses = density.responses(leaf)[0]
        place = int(responses[0, 1].argmax())
        (slope,) = torch.autograd.grad(responses[0, 1].flatten()[place], leaf)
    top, left = place // 32, place % 32
    part = slope[0, :, top - 2 : top + 3, left - 2 : left + 3]
    own = model.checkpoint.family.net.first_filters[1]
    if part.shape == own.shape:
        torch.testing.assert_close(part, own)
    (sheet,) = inside.painted(density, x, [5])
    assert sheet.shape[0] == 3


def test_curves_hold_the_course_and_ignore_one_outlier() -> None:
    rows = [{"iteration": float(k), "loss": 100.0 if k == 1 else 1 / k} for k in range(1, 1001)]
    drawn = curve(rows, "loss")
    points = re.findall(r'<polyline points="(.*?)"', drawn)[0].split()
    assert 200 < len(points) < 400
    assert len(curve(rows[:1], "loss")) > 100
