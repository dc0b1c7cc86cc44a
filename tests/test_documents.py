"""The site builds without a warning, its links lead somewhere, what it names in the code exists."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """The addresses that a page refers to, and the places in it that others may refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.targets += [given[name] for name in ("href", "src") if name in given]
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "script" and "src" in given:
            self.scripts.append(given["src"])


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
    pages = {path: Page(path.read_text()) for path in site.glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= {path.stem for path in pages}
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme in ("https", "data"):
                continue
            assert not parts.scheme, (path.name, target)
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.exists(), (path.name, target)
            if parts.fragment and there in pages and path.stem not in ("search", "genindex"):
                assert unquote(parts.fragment) in pages[there].places, (path.name, target)


def test_the_site_needs_no_network(site: Path) -> None:
    for path in site.glob("*.html"):
        assert not any(urlsplit(script).netloc for script in Page(path.read_text()).scripts)
    assert "<math" in (site / "theory.html").read_text()


def test_what_the_documents_name_in_the_code_is_there() -> None:
    named = re.findall(r"`(gcn_cli\.[\w.]+)`", (DOCS / "theory.md").read_text())
    assert len(named) > 20
    for name in named:
        parts = name.split(".")
        found: object = None
        for count in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                found = getattr(found, part)
            break
        assert found is not None, name


COMPLETIONS = [
    ("gcn syn", 1, "synthesize"),
    ("gcn train --extr", 2, ""),
    ("gcn train --preset qu", 3, "quick"),
    ("gcn synthesize --seam", 2, "--seamless"),
]


@pytest.mark.parametrize(("words", "place", "expected"), COMPLETIONS)
def test_the_shell_completes(words: str, place: int, expected: str) -> None:
    asked = {"_GCN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    # As the installed command: completion is asked by the name of the program.
    script = (
        "import sys; sys.argv[0] = 'gcn'; from gcn_cli.cli.app import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | asked, capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    offered = [line.partition(",")[2] for line in done.stdout.decode().split()]
    assert offered == ([expected] if expected else [])


def test_the_scripts_of_the_completion_page_are_made(tmp_path: Path) -> None:
    page = (DOCS / "completion.md").read_text()
    shells = re.findall(r"_GCN_COMPLETE=(\w+)_source gcn > (\S+)", page)
    assert [shell for shell, _ in shells] == ["bash", "zsh", "fish"]
    installed = Path(sys.executable).parent / "gcn"
    for shell, _ in shells:
        if shell == "bash":  # Click asks bash for its version
            continue
        asked = os.environ | {"_GCN_COMPLETE": f"{shell}_source"}
        done = subprocess.run([str(installed)], env=asked, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert b"_GCN_COMPLETE" in done.stdout
