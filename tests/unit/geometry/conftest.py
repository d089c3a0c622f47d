"""The stand-in head's files: a folder to read, a lighter copy, and a copy of links that a test may spoil."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from portrait4d.geometry.flame_assets import HeadAssets, load_flame_assets
from tests.golden.standin import standin_arrays
from tests.helpers.flame_files import MODEL, plain_model, write_pickle
from tests.helpers.standin_head import write_standin_folder


@pytest.fixture(scope="session")
def standin() -> dict[str, np.ndarray]:
    return standin_arrays()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin_folder(tmp_path_factory.mktemp("flame"))


@pytest.fixture(scope="session")
def assets(shared_folder: Path) -> HeadAssets:
    return load_flame_assets(shared_folder)


@pytest.fixture(scope="session")
def light_folder(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Path:
    """The stand-in folder with a model that is quick to read."""
    folder = tmp_path_factory.mktemp("light") / "FLAME"
    shutil.copytree(shared_folder, folder, ignore=shutil.ignore_patterns("generic_model.pkl"))
    write_pickle(folder / MODEL, plain_model(5023), 4)
    return folder


@pytest.fixture
def folder(tmp_path: Path, light_folder: Path) -> Path:
    """A folder of links to the light one; a test replaces what it spoils."""
    copy = tmp_path / "FLAME"
    shutil.copytree(light_folder, copy, copy_function=lambda source, target: os.symlink(source, target))
    return copy
