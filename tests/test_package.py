"""The published package: built, checked, installed without the source tree, and run."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """sdist and wheel, built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("built")
    source, output = folder / "source", folder / "dist"
    source.mkdir()
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(tracked, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--outdir", str(output), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(output.iterdir())


def test_sdist_and_wheel_are_built_and_valid(built: list[Path]) -> None:
    assert [path.name.partition("-")[0] for path in built] == ["gcn_cli", "gcn_cli"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sdist_and_wheel_contain_the_package_and_its_data(built: list[Path]) -> None:
    (wheel,) = (path for path in built if path.suffix == ".whl")
    (sdist,) = (path for path in built if path.suffix == ".gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"gcn_cli/py.typed", "gcn_cli/report/page.html", "gcn_cli/cli/app.py"} <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)
    with tarfile.open(sdist) as packed:
        assert any(name.endswith("/LICENSE") for name in packed.getnames())


def test_the_wheel_runs_in_a_fresh_environment(built: list[Path], tmp_path: Path) -> None:
    """Dependencies are large, so they are taken from this environment."""
    (wheel,) = (path for path in built if path.suffix == ".whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*map(str, install)], check=True, capture_output=True)
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    gcn = tmp_path / "env" / "bin" / "gcn"
    version = subprocess.run([gcn, "--version"], cwd=tmp_path, capture_output=True, check=True)
    assert version.stdout.startswith(b"gcn, version ")
    assert f"torch {torch.__version__} (".encode() in version.stdout
    where = "import gcn_cli; print(gcn_cli.__file__)"
    location = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, check=True)
    assert str(packages) in location.stdout.decode()


WINDOWS = """
import os, pkgutil, signal, sys, types
# Other packages know their systems.
import click, jinja2, numpy, PIL.Image, rich.table, safetensors.torch, torch.distributed, tqdm.auto
for name in ("fcntl", "grp", "posix", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in (
    "fchmod", "fork", "getloadavg", "getpgid", "getuid", "killpg", "posix_fallocate",
    "sched_getaffinity", "setsid", "sysconf",
):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "pthread_sigmask"):
    delattr(signal, name)
sys.platform = "win32"
locking = lambda number, mode, size: print("locked", mode, size)
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
import gcn_cli
for module in pkgutil.walk_packages(gcn_cli.__path__, "gcn_cli."):
    __import__(module.name)
from gcn_cli.cli.app import cli
small = "--set layers=4@5,4@3/2 --set crop=16 --set margin=2 --iterations 2 --preview-every 0"
for words in (
    f"train texture.png -o run --device cpu {small}",
    "synthesize --model run --size 32 --steps 2 -o sample.png --json",
    "reconstruct texture.png --model run -o same.png",
    "inspect --model run",
    "--version",
):
    cli(words.split(), standalone_mode=False)
"""


def test_nothing_needs_what_windows_and_macos_do_not_have(tmp_path: Path) -> None:
    """All modules are imported, and commands run, where the modules of Linux are hidden."""
    Image.effect_noise((48, 40), 60).convert("RGB").save(tmp_path / "texture.png")
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "locked 2 1" in done.stdout
    assert '"peak_memory_mib": null' in done.stdout
    assert (tmp_path / "sample.png").exists()


def test_the_version_says_why_torch_cannot_be_loaded() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['gcn', '--version']\n"
        "from gcn_cli.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith("gcn, version ")
    assert "gcn: error: torch: cannot be loaded" in done.stderr
