"""What would be published: built, checked, installed beside nothing of the source, and run."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """sdist and wheel, from a copy of what is tracked."""
    folder = tmp_path_factory.mktemp("built")
    source, made = folder / "source", folder / "dist"
    source.mkdir()
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(tracked, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--outdir", str(made), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(made.iterdir())


def test_both_are_built_and_pass_the_index_s_check(built: list[Path]) -> None:
    assert [path.name.partition("-")[0] for path in built] == ["gcn_cli", "gcn_cli"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_hold_the_package_and_what_it_needs(built: list[Path]) -> None:
    (wheel,) = (path for path in built if path.suffix == ".whl")
    (sdist,) = (path for path in built if path.suffix == ".gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"gcn_cli/py.typed", "gcn_cli/report/page.html", "gcn_cli/cli/app.py"} <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)
    with tarfile.open(sdist) as packed:
        assert any(name.endswith("/LICENSE") for name in packed.getnames())


def test_the_wheel_runs_in_a_fresh_environment(built: list[Path], tmp_path: Path) -> None:
    """Fresh but for the dependencies, which are large: those of this environment are lent."""
    (wheel,) = (path for path in built if path.suffix == ".whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*map(str, install)], check=True, capture_output=True)
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    gcn = tmp_path / "env" / "bin" / "gcn"
    said = subprocess.run([gcn, "--version"], cwd=tmp_path, capture_output=True, check=True)
    assert said.stdout.startswith(b"gcn, version ")
    where = "import gcn_cli; print(gcn_cli.__file__)"
    found = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, check=True)
    assert str(packages) in found.stdout.decode()
