"""Append lines to a log that several processes write, whole or not at all."""

import os
from pathlib import Path


def append_line(path: str | Path, line: str) -> None:
    """Append one line of text to a file in a single write and store it; a last line without its end is ended first.

    Other processes' lines are never mixed into it: the file is locked meanwhile. Creates file and folder.

    Raises:
        ValueError: `line` holds a line break.
        OSError: the file cannot be written.
    """
    import fcntl

    if "\n" in line:
        raise ValueError(f"line: expected one line, got {line.count(chr(10)) + 1}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + line.encode() + b"\n")
        os.fsync(file.fileno())
