"""Atomic writing: all or nothing."""

import os
import pickle
from pathlib import Path

import pytest

from portrait4d.files.atomic import atomic_path, write_bytes, write_text
from portrait4d.files.errors import AssetMissingError, InputFileError, OutputFileError, UserError
from tests.helpers.full_disk import file_size_limit


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


def test_the_mode_is_the_usual_one_without_asking_for_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = 0o666 & ~_umask()

    def refuse(mask: int) -> int:
        raise AssertionError("changes the umask for all threads")

    monkeypatch.setattr(os, "umask", refuse)
    path = tmp_path / "a.bin"
    with atomic_path(path) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    assert path.stat().st_mode & 0o777 == expected


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/a.txt", tmp_path / "file/b/a.txt"):
        with pytest.raises(UserError, match=rf"{path}: cannot be written \((File exists|Not a directory)\)"):
            write_text(path, "one")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: cannot be written \(Is a directory\)"):
        write_text(tmp_path / "folder", "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_the_system_s_error_and_the_user_s(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with file_size_limit(100), pytest.raises(OutputFileError) as caught:
        write_bytes(path, bytes(200))
    error = caught.value
    assert isinstance(error, UserError) and isinstance(error, OSError)
    assert str(error) == f"{path}: cannot be written (File too large)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_the_block_cannot_read_is_not_called_unwritable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), atomic_path(tmp_path / "a.bin"):
        (tmp_path / "missing").read_bytes()


def test_messages_are_one_line_with_file_and_remedy() -> None:
    error = InputFileError("x/y.npy", "expected 437 numbers, got 3", "fit it again")
    assert str(error) == "x/y.npy: expected 437 numbers, got 3; fit it again"
    assert isinstance(error, UserError)
    missing = AssetMissingError("FLAME", [Path("a"), Path("b")], "its authors")
    assert str(missing) == "FLAME is missing: put it at a or b; get it from its authors"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
