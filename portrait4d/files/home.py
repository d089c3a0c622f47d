"""The user's home folder, and caches in it; neither need be there, as for the numbered users of containers."""

import os
from pathlib import Path

from portrait4d.files.errors import UserError


def expand_home(path: str | Path) -> Path:
    """Return a path with "~" replaced.

    Raises:
        UserError: there is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: this user has no home folder; name another folder, or set HOME") from None


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/portrait4d, ~/.cache/portrait4d by default.

    Raises:
        UserError: there is no home folder.
    """
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "portrait4d"
