"""Write files so that a stop half-way leaves the old file, or none, but never half of one."""

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portrait4d.files.errors import explain_write_errors

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`, renamed to `path` when the block ends without an error.

    The temporary name keeps the suffix of `path`, since many writers choose their format by it.
    Creates the folder. On an error the temporary file is removed and `path` is untouched.

    Raises:
        OutputFileError: the place cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}{path.suffix}")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # so the system applies the umask; to ask for it is to change it for a moment
    try:
        mode = temporary.stat().st_mode
        with explain_write_errors(path, _DISK_FULL):  # other errors can be those of what the block reads
            yield temporary
        with explain_write_errors(path):
            temporary.chmod(mode)  # for writers that make the file anew, such as safetensors
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())
