"""Packages of the npm registry that tests use: the validator of glTF, and a viewer in a browser.

They lie in a folder of the user's cache; GCN_TEST_NETWORK=1 allows a test to fetch them.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("gltf-validator@2.0.0-dev.3.10", "@google/model-viewer@4.4.0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gcn-tests"


def node_modules() -> Path:
    """The folder of the packages; the test is skipped where they are not and cannot be fetched."""
    modules = CACHE / "node_modules"
    names = [package.rpartition("@")[0] for package in PACKAGES]
    if shutil.which("node") is None:
        pytest.skip("no node")
    if not all((modules / name / "package.json").exists() for name in names):
        if os.environ.get("GCN_TEST_NETWORK") != "1" or shutil.which("npm") is None:
            pytest.skip(f"{' and '.join(PACKAGES)} are not there; GCN_TEST_NETWORK=1 fetches them")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*command, *PACKAGES], cwd=CACHE, check=True, timeout=300)
    return modules
