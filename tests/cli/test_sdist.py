"""The source package, from which tests can be run as from a checkout."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.helpers.cli import ROOT


def test_tests_documents_and_their_runner_are_in_the_source_package(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "tests", "docs", ".ci", "benchmarks", "configs"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    tree = tmp_path / "tree"
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    waste = tree / "tests/__pycache__/conftest.cpython-311.pyc"
    waste.parent.mkdir()
    waste.touch()
    (tree / "setup.py").write_text("from setuptools import setup\n\nsetup(name='tree', packages=[])\n")
    (tree / "MANIFEST.in").write_bytes((ROOT / "MANIFEST.in").read_bytes())
    subprocess.run([sys.executable, "setup.py", "-q", "sdist"], cwd=tree, capture_output=True, check=True)
    with tarfile.open(next((tree / "dist").iterdir())) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert len(names) > 300 and set(names) <= packed
    assert waste.relative_to(tree).as_posix() not in packed
