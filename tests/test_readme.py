"""The README is short, its commands run, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.cli.running import gcn_process
from tests.commands import DOCS, ROOT, commands, make_inputs, run_command, shortened

pytestmark = pytest.mark.slow

README = ROOT / "README.md"


def of_program(name: str) -> list[list[str]]:
    """The commands of the README that call a program."""
    return [words for words in commands(README) if words[0] == name]


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    make_inputs(tmp_path)
    first: dict[str, list[str]] = {}
    for words in of_program("gcn"):
        if words[1] not in first:  # the first of each as a process, as a user starts it
            first[words[1]] = words
            done = gcn_process(*shortened(words)[1:], cwd=tmp_path)
        else:
            done = run_command(words, tmp_path, tmp_path / "runs" / "texture")
        assert done.returncode == 0, (words, done.stderr.decode())
    assert list(first) == ["train", "synthesize", "reconstruct", "inspect"]


def test_no_command_of_the_readme_is_left_out() -> None:
    programs = {words[0] for words in commands(README)}
    assert programs == {"gcn", "make", "pip", "pipx", "uv", "uvx"}
    assert of_program("pip") == [["pip", "install", "."]]
    assert of_program("pipx") == [["pipx", "install", "."]]
    assert of_program("uv") == [["uv", "tool", "install", "."]]
    (uvx,) = of_program("uvx")
    assert uvx[:4] == ["uvx", "--from", ".", "gcn"]
    assert ["gcn", *uvx[4:]] in of_program("gcn")


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in of_program("make")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert len(targets) > 15
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_readme_names_every_how_to_page() -> None:
    for page in (DOCS / "howto").glob("*.md"):
        assert f"(docs/howto/{page.name})" in README.read_text()


def test_the_python_of_the_readme_is_that_of_the_how_to_page() -> None:
    """tests/test_model.py runs the page."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example.strip() in (DOCS / "howto" / "python.md").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 700
