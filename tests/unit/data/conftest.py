"""Small databases made once: 8 + 8 stills and 3 clips of 5 frames, 32 pixels."""

from pathlib import Path

import pytest

from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from tests.helpers.raw_folders import write_clips, write_stills

SIDE = 32


@pytest.fixture(scope="session")
def raw_stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw folders of stills. Do not change them."""
    return write_stills(tmp_path_factory.mktemp("raw") / "stills", 8, SIDE)


@pytest.fixture(scope="session")
def raw_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw folders of clips. Do not change them."""
    return write_clips(tmp_path_factory.mktemp("raw") / "clips", 3, 5, SIDE)


@pytest.fixture(scope="session")
def still_database(raw_stills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 16 stills."""
    return pack_stills(PackConfig(raw_stills, tmp_path_factory.mktemp("packed"), SIDE)).target


@pytest.fixture(scope="session")
def clip_database(raw_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 3 clips of 5 frames."""
    return pack_clips(PackConfig(raw_clips, tmp_path_factory.mktemp("packed"), SIDE, frames=5)).target
