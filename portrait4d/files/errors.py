"""Errors that are meant for the person at the keyboard: one line, the file's name, the remedy."""

import copyreg
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can put right. Scripts print its one-line text and exit with status 1."""

    def __reduce__(self) -> tuple:
        """Travel between processes as text and attributes, whatever the constructor takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__


class InputFileError(UserError):
    """A file that is missing, damaged or of the wrong kind."""

    def __init__(self, path: str | Path, problem: str, remedy: str = "") -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}" + (f"; {remedy}" if remedy else ""))


class OutputFileError(UserError, OSError):
    """A file that cannot be written. It is the system's error, too, with its `errno` and `strerror`."""

    __reduce__ = OSError.__reduce__  # its file name is not among its `args`

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


@contextmanager
def explain_write_errors(path: str | Path, numbers: Container[int] | None = None) -> Iterator[None]:
    """Turn an error of the system within the block into an `OutputFileError` that names `path`.

    Args:
        path: what is being written.
        numbers: the `errno` of errors that are meant; None for all.
    """
    try:
        yield
    except OutputFileError:
        raise
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        raise OutputFileError(error.errno, error.strerror or str(error), str(path)) from error


class AssetMissingError(UserError):
    """A licensed or downloaded file that is not in its place."""

    def __init__(self, name: str, places: list[Path], source: str) -> None:
        where = " or ".join(str(place) for place in places)
        super().__init__(f"{name} is missing: put it at {where}; get it from {source}")
