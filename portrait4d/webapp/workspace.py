"""The app's temporary files: one folder for each run of the app, gone when it ends, and bounded while it runs.

<root>/uploads            what gradio receives, until `uploads.accept_upload` takes it
<root>/jobs/<random>      inputs of one job, gone when the job ends
<root>/results/<token>    what pages show and offer for download, see `Workspace.publish`
"""

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "portrait4d-app-"
KEEP_S = 30 * 60.0
KEEP_BYTES = 1 << 30
_TOKEN_BYTES = 16


class Workspace:
    """Folder of the temporary files of one run of the app.

    Args:
        parent: where the folder is made; None: the system's temporary folder. Folders that apps left there which
            did not end well are removed.
        keep_s, keep_bytes: how long, and how many bytes of, uploads and results are kept; the oldest go first.
    """

    def __init__(self, parent: Path | None = None, keep_s: float = KEEP_S, keep_bytes: int = KEEP_BYTES) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        remove_orphans(parent)
        self.root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent)).resolve()
        self.uploads, self._jobs, self._results = (self.root / name for name in ("uploads", "jobs", "results"))
        for folder in (self.uploads, self._jobs, self._results):
            folder.mkdir()
        self._keep_s, self._keep_bytes = keep_s, keep_bytes
        self._sweeping = threading.Lock()

    @contextmanager
    def job(self) -> Iterator[Path]:
        """Yield a new folder for a job; it is removed when the block ends, whatever happens."""
        self.sweep()
        folder = self.new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def new_folder(self) -> Path:
        """Make a folder that stays until its owner removes it, or the app ends."""
        return Path(tempfile.mkdtemp(dir=self._jobs))

    def publish(self, path: Path) -> str:
        """Move a file to the results; return `token/name`, by which `result` finds it and which nobody can guess."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        folder = self._results / token
        folder.mkdir()
        shutil.move(path, folder / path.name)
        return f"{token}/{path.name}"

    def result(self, token: str, name: str) -> Path | None:
        """Return the file that was published as `token/name`, None if there is none, or no longer."""
        path = self._results / token / name
        is_inside = Path(token).name == token and Path(name).name == name
        return path if is_inside and path.is_file() else None

    def sweep(self) -> None:
        """Remove uploads and results that are too old, and the oldest ones while there are too many bytes."""
        with self._sweeping:
            self._remove_files()
            self._remove_empty_folders()

    def _remove_files(self) -> None:
        files = []
        for path in (*self.uploads.rglob("*"), *self._results.rglob("*")):
            try:
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:
                continue  # another job was quicker
        total, now = 0, time.time()
        for written, size, path in sorted(files, reverse=True):
            total += size
            if now - written > self._keep_s or total > self._keep_bytes:
                path.unlink(missing_ok=True)

    def _remove_empty_folders(self) -> None:
        for folder in (*self.uploads.iterdir(), *self._results.iterdir()):
            with suppress(OSError):  # it is a file or not empty, or a job was quicker
                if time.time() - folder.stat().st_mtime > 1:
                    folder.rmdir()

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)


def remove_orphans(parent: Path) -> None:
    """Remove workspaces in `parent` whose process is no more."""
    for folder in parent.glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        if number.isdecimal() and not _is_running(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
