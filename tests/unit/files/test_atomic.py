"""Atomic writing: all or nothing."""

from pathlib import Path

import pytest

from portrait4d.files.atomic import atomic_path, write_text
from portrait4d.files.errors import AssetMissingError, InputFileError, UserError


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_messages_are_one_line_with_file_and_remedy() -> None:
    error = InputFileError("x/y.npy", "expected 437 numbers, got 3", "fit it again")
    assert str(error) == "x/y.npy: expected 437 numbers, got 3; fit it again"
    assert isinstance(error, UserError)
    missing = AssetMissingError("FLAME", [Path("a"), Path("b")], "its authors")
    assert str(missing) == "FLAME is missing: put it at a or b; get it from its authors"


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
