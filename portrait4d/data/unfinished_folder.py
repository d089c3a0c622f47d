"""A folder that is being written: one writer at a time, and one step from unfinished to finished."""

from pathlib import Path
from typing import Protocol, TextIO

from portrait4d.files.errors import UserError

_GUARD = ".writer"


class RecordWriter(Protocol):
    """Writers of numbered records that can be killed and resumed.

    Attributes:
        folder: the unfinished folder.
        is_complete: everything is stored, only the final name is missing.
        entries: records appended so far, those of earlier runs included.
        state: the caller's notes at the last commit, None for a new folder.
    """

    folder: Path
    is_complete: bool
    entries: int
    state: dict | None

    def append(self, values: list[bytes], state: dict) -> None:
        """Append encoded records that belong together; `state` is what to note once they are stored."""
        ...

    def finish(self, target: Path) -> None:
        """Store everything and give the folder its final name in one step."""
        ...

    def close(self) -> None:
        """Close without finishing; what is committed can be resumed."""
        ...


def lock_folder(folder: Path) -> TextIO:
    """Make the folder and keep other writers out until the returned file is closed or this process ends in any way.

    Raises:
        UserError: the place cannot be written, or another process is writing there.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _GUARD).open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another output folder") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"{folder}: another process is writing there; wait for it, or end it") from error
    return file


def finish_folder(folder: Path, target: Path) -> None:
    """Give a folder that is complete its final name.

    Raises:
        UserError: `target` exists, or the place cannot be written.
    """
    if target.exists():
        raise UserError(f"{target}: is there already; move it away and run again with --resume")
    try:
        (folder / _GUARD).unlink(missing_ok=True)
        folder.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be made from {folder} ({error.strerror})") from error
