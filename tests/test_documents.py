"""The site builds without a warning, its links and names lead somewhere, its commands run."""

import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from PIL import Image

from tests.commands import DOCS, ROOT, commands, make_inputs, run_command
from tests.test_architecture import LAYERS

pytestmark = pytest.mark.slow

PAGES = [
    str(page.relative_to(DOCS))
    for page in sorted(DOCS.rglob("*.md"))
    if any(words[0] in ("gcn", "torchrun") for words in commands(page))
]
assert len(PAGES) > 10


class Page(HTMLParser):
    """The addresses that a page refers to, and the anchors in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.targets += [values[name] for name in ("href", "src") if name in values]
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "script" and "src" in values:
            self.scripts.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(built)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return built


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Page(path.read_text()) for path in site.rglob("*.html")}
    names = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")}
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} <= names
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme in ("https", "data"):
                continue
            assert not parts.scheme, (path.name, target)
            linked = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert linked.exists(), (path.name, target)
            if parts.fragment and linked in pages and path.stem not in ("search", "genindex"):
                assert unquote(parts.fragment) in pages[linked].anchors, (path.name, target)


def test_the_site_needs_no_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not any(urlsplit(script).netloc for script in Page(path.read_text()).scripts)
    assert "<math" in (site / "theory.html").read_text()


def test_the_landing_page_has_a_picture_the_installation_and_three_commands(site: Path) -> None:
    text = (site / "index.html").read_text()
    (picture,) = (target for target in Page(text).targets if target.endswith(".jpg"))
    assert (site / picture).stat().st_size > 100_000
    assert "uv tool install ." in re.sub("<[^>]*>", "", text)
    assert [words[:2] for words in commands(DOCS / "index.md")] == [
        ["gcn", "train"], ["gcn", "synthesize"], ["gcn", "inspect"],
    ]  # fmt: skip


def test_words_of_the_glossary_can_be_linked(site: Path) -> None:
    anchors = Page((site / "glossary.html").read_text()).anchors
    assert {"term-exemplar", "term-noise-level", "term-lattice", "term-seamless"} <= anchors


def test_the_api_lists_arguments_and_examples(site: Path) -> None:
    text = (site / "api.html").read_text()
    assert "&gt;&gt;&gt; " in text
    for name in ("train", "load", "forecast", "compare", "Model.synthesize", "Model.quality"):
        assert f'id="gcn_cli.{name}"' in text
    for name in ("guide_strength", "max_time", "make_seamless"):  # fields of options
        assert f'<span class="pre">{name}</span>' in text


def test_the_reference_is_generated() -> None:
    command = [sys.executable, str(DOCS / "generate_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_names_of_the_code_in_the_documents_exist() -> None:
    names = re.findall(r"`(gcn_cli\.[\w.]+)`", (DOCS / "theory.md").read_text())
    assert len(names) > 20
    for name in names:
        parts = name.split(".")
        value: object = None
        for count in range(len(parts), 0, -1):
            try:
                value = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                value = getattr(value, part)
            break
        assert value is not None, name


def _layout() -> str:
    """The table of modules on the development page."""
    page = (DOCS / "development.md").read_text()
    return page.partition("## Layout")[2].partition("Imports go")[0]


def test_modules_of_the_development_page_exist() -> None:
    cells = re.findall(r"^\| (`.*?) \|", _layout(), re.MULTILINE)
    modules = re.findall(r"`([\w/]+)`", " ".join(cells))
    package = ROOT / "gcn_cli"
    for name in modules:
        assert (package / name).is_dir() or (package / f"{name}.py").exists(), name
    there = {path.stem for path in package.iterdir() if not path.name.startswith("__")} - {"py"}
    assert there == {name.rstrip("/") for name in modules}


def test_modules_of_the_development_page_are_in_the_order_of_imports() -> None:
    """The table has the order of tests/test_architecture.py."""
    layers = [line.strip().split(", ") for line in LAYERS.strip().splitlines()]
    lines = {name: number for number, names in enumerate(layers) for name in names}
    rows = [
        [lines[name.rstrip("/")] for name in re.findall(r"`([\w/]+)`", cell)]
        for cell in re.findall(r"^\| (`.*?) \|", _layout(), re.MULTILINE)
    ]
    numbers = [number for row in rows for number in row]
    assert numbers == sorted(numbers)
    assert all(max(row) < min(below) for row, below in itertools.pairwise(rows))


def test_the_python_of_the_research_page_runs(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "howto" / "research.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = [line for line in example.splitlines() if line and not line.startswith("#")]
    assert len(code) <= 20
    make_inputs(tmp_path)
    shutil.copytree(trained, tmp_path / "runs" / "texture")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/howto/research.md", "exec"), names)
    net, p, x = names["net"], names["p"], names["x"]
    shape = names["images"].shape
    assert names["u"].shape == (2,)
    assert names["b"].shape == names["chains"].shape == names["synthesized"].shape == shape
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert len(names["gates"]) == len(names["model"].config.layers)
    torch.testing.assert_close(names["log_p"], p.score(x) - x.square().sum() / (2 * p.sigma**2))
    noisy, score = names["noisy"], names["score"]
    torch.testing.assert_close(score, p.basis(noisy) - noisy / p.sigma**2, rtol=1e-2, atol=1e-2)
    with Image.open("denoised.png") as image:
        assert image.size == (64, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small model."""
    folder = tmp_path_factory.mktemp("trained")
    make_inputs(folder)
    words = ["gcn", "train", "texture.jpg", "-o", "run"]
    assert run_command(words, folder, folder).returncode == 0
    return folder / "run"


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_runs(name: str, tmp_path: Path, trained: Path) -> None:
    make_inputs(tmp_path)
    for words in commands(DOCS / name):
        done = run_command(words, tmp_path, trained)
        assert done.returncode == 0, (words, done.stderr.decode())


COMPLETIONS = [
    ("gcn syn", 1, "synthesize"),
    ("gcn train --extr", 2, ""),
    ("gcn train --preset qu", 3, "quick"),
    ("gcn synthesize --seam", 2, "--seamless"),
]


@pytest.mark.parametrize(("words", "position", "expected"), COMPLETIONS)
def test_the_shell_completes(words: str, position: int, expected: str) -> None:
    request = {"_GCN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    # As the installed command: completion is requested by the name of the program.
    script = (
        "import sys; sys.argv[0] = 'gcn'; from gcn_cli.cli.app import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | request, capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    offered = [line.partition(",")[2] for line in done.stdout.decode().split()]
    assert offered == ([expected] if expected else [])


def test_the_scripts_of_shell_completion_are_written() -> None:
    page = (DOCS / "reference.md").read_text()
    shells = re.findall(r"_GCN_COMPLETE=(\w+)_source gcn > (\S+)", page)
    assert [shell for shell, _ in shells] == ["bash", "zsh", "fish"]
    installed = Path(sys.executable).parent / "gcn"
    for shell, _ in shells:
        if shell == "bash":  # Click asks bash for its version
            continue
        request = os.environ | {"_GCN_COMPLETE": f"{shell}_source"}
        done = subprocess.run([str(installed)], env=request, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert b"_GCN_COMPLETE" in done.stdout
