"""Temporary files of the app: bounded while it runs, gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portrait4d.webapp.workspace import PREFIX, Workspace


def write(path: Path, size: int, age_s: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    changed = path.stat().st_mtime - age_s
    os.utime(path, (changed, changed))
    return path


def test_jobs_leave_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError), workspace.job() as folder:
        write(folder / "a" / "b", 10)
        raise RuntimeError
    assert not folder.exists()


def test_results_are_found_by_their_token_alone(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.job() as folder:
        address = workspace.publish(write(folder / "film.mp4", 3))
    token, name = address.split("/")
    assert name == "film.mp4" and len(token) >= 20
    assert workspace.result(token, name).read_bytes() == bytes(3)
    assert workspace.result(token, "other.mp4") is None
    for wrong in ("..", ".", f"../results/{token}", "../uploads"):
        assert workspace.result(wrong, name) is None
    assert workspace.result(token, "../../jobs") is None


def test_what_is_old_or_too_much_goes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, keep_s=100, keep_bytes=25)
    old = write(workspace.uploads / "x" / "old", 1, age_s=200)
    older, newer, newest = (write(workspace.uploads / name, 10, age) for name, age in (("a", 30), ("b", 20), ("c", 10)))
    workspace.sweep()
    assert [path.exists() for path in (old, older, newer, newest)] == [False, False, True, True]


def test_folders_without_files_go_and_others_stay(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    gone, fresh, full = (workspace.uploads / name for name in ("gone", "fresh", "full"))
    write(full / "a", 1)
    for folder in (gone, fresh):
        folder.mkdir()
    for folder in (gone, full):
        os.utime(folder, (1, 1))
    workspace.sweep()
    assert [folder.exists() for folder in (gone, fresh, full)] == [False, True, True]


def test_closing_removes_all_and_orphans_are_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write(workspace.uploads / "a", 1)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    orphan = tmp_path / f"{PREFIX}{ended.stdout.strip()}-abc"
    other = tmp_path / f"{PREFIX}notes"
    orphan.mkdir(), other.mkdir()
    second = Workspace(tmp_path)
    assert not orphan.exists() and other.exists() and workspace.root.exists()
    workspace.close(), second.close()
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
