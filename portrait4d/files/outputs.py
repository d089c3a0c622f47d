"""Outputs that must not take the place of what they are made from."""

import os
from collections.abc import Iterable
from pathlib import Path

from portrait4d.files.errors import UserError
from portrait4d.files.home import expand_home


def refuse_to_replace(option: str, out: Path, inputs: Iterable[str | Path | None]) -> None:
    """Make sure that a file to write is none of the files to read.

    Args:
        option: that names `out`, for the message.
        out: file to write.
        inputs: files and folders to read; None where there is none.

    Raises:
        UserError: it is one of them, by whatever name.
    """
    if os.path.realpath(out) in {os.path.realpath(expand_home(path)) for path in inputs if path is not None}:
        raise UserError(f"{option} {out}: would replace what it is made from; name another file")
