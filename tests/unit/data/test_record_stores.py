"""Opening records of either container."""

from pathlib import Path

import pytest

from portrait4d.data.lmdb_store import LmdbWriter
from portrait4d.data.record_stores import detect_kind, open_records
from portrait4d.data.records import STILL
from portrait4d.data.shards import ShardWriter
from portrait4d.files.errors import InputFileError


def test_empty_databases_are_refused(tmp_path: Path) -> None:
    LmdbWriter(tmp_path / "a").finish(tmp_path / "lmdb")
    ShardWriter(tmp_path / "b", STILL).finish(tmp_path / "shards")
    for name in ("lmdb", "shards"):
        with pytest.raises(InputFileError, match=f"{name}: holds no record; pack it again"):
            open_records(tmp_path / name, STILL)
    with pytest.raises(InputFileError, match="lmdb: holds no record; pack it again"):
        detect_kind(tmp_path / "lmdb")
