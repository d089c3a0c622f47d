"""Append lines to a log that several processes write, whole or not at all."""

import errno
import os
from pathlib import Path

from portrait4d.files.errors import explain_write_errors


def append_line(path: str | Path, line: str) -> None:
    """Append one line of text to a file in a single write and store it; a last line without its end is ended first.

    Other processes' lines are never mixed into it: the file is locked meanwhile. Creates file and folder.

    Raises:
        ValueError: `line` holds a line break.
        OutputFileError: the file cannot be written; it never keeps a part of the line.
    """
    import fcntl

    if "\n" in line:
        raise ValueError(f"line: expected one line, got {line.count(chr(10)) + 1}")
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            torn = False
            if size:
                file.seek(size - 1)
                torn = file.read(1) != b"\n"
            data = (b"\n" if torn else b"") + line.encode() + b"\n"
            if file.write(data) < len(data):  # what a full disk still took
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
