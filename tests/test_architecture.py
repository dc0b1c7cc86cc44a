"""Imports run one way: the floors of docs/reading.md, held against the source."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gcn_cli"


def floors() -> dict[str, tuple[int, int]]:
    """Every room's floor, and its place among rooms of one floor that do not know each other."""
    page = (ROOT / "docs" / "reading.md").read_text()
    (listed,) = re.findall(r"```floors\n(.*?)```", page, re.DOTALL)
    return {
        room.strip(): (floor, place)
        for floor, line in enumerate(listed.strip().splitlines())
        for place, rooms in enumerate(line.split("|"))
        for room in rooms.split(",")
    }


def room_of(module: str, known: dict[str, tuple[int, int]]) -> str:
    """The innermost room that a module is in."""
    while module not in known:
        module, _, _ = module.rpartition(".")
    return module


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                as_path = ROOT.joinpath(*inner.split("."))
                is_module = as_path.with_suffix(".py").exists() or as_path.is_dir()
                found.add(inner if is_module else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.split(".")[0] == "gcn_cli"}


def wrong_arrows(files: list[Path]) -> list[str]:
    known = floors()
    wrong = []
    for path in files:
        here = room_of(name_of(path), known)
        for module in imports(path):
            there = room_of(module, known)
            (own, own_place), (floor, place) = known[here], known[there]
            if floor > own or (floor == own and place != own_place):
                wrong.append(f"{name_of(path)} -> {module}")
    return sorted(wrong)


def test_every_arrow_runs_downwards() -> None:
    # `python -m gcn_cli` is the command line under another name.
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py"]
    assert len(files) > 40
    assert wrong_arrows(files) == []


def test_a_wrong_arrow_is_seen(tmp_path: Path) -> None:
    known = floors()
    assert room_of("gcn_cli.model.paper.network", known) == "gcn_cli.model.paper"
    assert known["gcn_cli.model.paper"][0] == known["gcn_cli.model.ladder"][0]
    assert known["gcn_cli.runs"] > known["gcn_cli.learning"] > known["gcn_cli.sampling"]
    source = tmp_path / "some.py"
    source.write_text("def f():\n    from gcn_cli.cli import console\n    import gcn_cli.runs\n")
    assert imports(source) == {"gcn_cli.cli.console", "gcn_cli.runs"}


def test_only_the_setup_asks_for_the_family() -> None:
    asking = [
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        if re.search(
            r"isinstance\([^)]*(LadderConfig|PaperConfig|LadderNet|ConvNet)", path.read_text()
        )
    ]
    assert asking == ["gcn_cli.learning.setup"]


def test_models_and_samplers_know_no_files_and_no_console() -> None:
    for path in [*(PACKAGE / "model").rglob("*.py"), *(PACKAGE / "sampling").rglob("*.py")]:
        found = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not found & {"os", "sys", "io", "pathlib", "click", "logging", "PIL"}, path


def test_click_is_in_the_command_line_alone() -> None:
    users = {
        p
        for p in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import|from) click", p.read_text(), re.M)
    }
    assert {path.parent.name for path in users} == {"cli"}
