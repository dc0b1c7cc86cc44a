"""Imports run one way, and each kind of work has its place."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gcn_cli"

# A module imports only from lines above its own, and from its own package.
LAYERS = """
    errors, processors, strict_json, torchrun
    models.layers, signals
    config
    presets, options
    interactive
    models
    pattern
    detection
    samplers
    images, metrics, runtime
    shading
    training
    kinds, research
    checkpoint
    inputs
    training_images
    synthesis
    inpaint, reconstruction, tile_set
    upscaling
    runs
    analysis
    model
    api
    report
    cli
"""


def layer_of(name: str) -> int:
    """The line in LAYERS of a module, or of the package that it is in."""
    layers = {
        module: number
        for number, line in enumerate(LAYERS.splitlines())
        for module in line.strip().split(", ")
    }
    module = name.removeprefix("gcn_cli.")
    return layers[module if module in layers else module.partition(".")[0]]


def package_of(name: str) -> str:
    return name.split(".")[1]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in the file."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                file = ROOT.joinpath(*name.split("."))
                is_module = file.with_suffix(".py").exists() or file.is_dir()
                modules.add(name if is_module else node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module for module in modules if module.startswith("gcn_cli.")}


def wrong_arrows(name: str, imported: set[str]) -> list[str]:
    return sorted(
        f"{name} -> {module}"
        for module in imported
        if package_of(module) != package_of(name) and layer_of(module) >= layer_of(name)
    )


def modules() -> list[Path]:
    """All of the package but its root and `python -m gcn_cli`."""
    outside = [PACKAGE / "__init__.py", PACKAGE / "__main__.py"]
    return [path for path in PACKAGE.rglob("*.py") if path not in outside]


def test_modules_import_from_layers_above_alone() -> None:
    assert len(modules()) > 40
    for path in modules():
        assert wrong_arrows(name_of(path), imports(path)) == []


def test_a_wrong_arrow_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "some.py"
    source.write_text("def f():\n    from gcn_cli.cli import console\n    import gcn_cli.config\n")
    assert imports(source) == {"gcn_cli.cli.console", "gcn_cli.config"}
    assert wrong_arrows("gcn_cli.runs.job", imports(source)) == [
        "gcn_cli.runs.job -> gcn_cli.cli.console"
    ]
    assert wrong_arrows("gcn_cli.images.image", {"gcn_cli.metrics.texture"})
    assert wrong_arrows("gcn_cli.config", {"gcn_cli.models.cascade"})
    assert not wrong_arrows("gcn_cli.config", {"gcn_cli.models.layers"})


def test_the_kind_of_a_model_is_asked_in_kinds_alone() -> None:
    pattern = r"(?<!assert )isinstance\([^)]*(NoiseConditional|Published|GenerativeConvNet|Cascade)"
    asking = [name_of(path) for path in modules() if re.search(pattern, path.read_text())]
    assert asking == ["gcn_cli.kinds"]


def test_models_and_samplers_know_no_files_and_no_console() -> None:
    for path in [*(PACKAGE / "models").rglob("*.py"), *(PACKAGE / "samplers").rglob("*.py")]:
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not imported & {"os", "sys", "io", "pathlib", "click", "logging", "PIL"}, path


def test_only_the_command_line_imports_click() -> None:
    click = re.compile(r"^\s*(import|from) click", re.MULTILINE)
    users = {path.parent.name for path in modules() if click.search(path.read_text())}
    assert users == {"cli"}
