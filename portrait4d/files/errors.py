"""Errors that are meant for the person at the keyboard: one line, the file's name, the remedy."""

from pathlib import Path


class UserError(Exception):
    """Something the user can put right. Scripts print its one-line text and exit with status 1."""


class InputFileError(UserError):
    """A file that is missing, damaged or of the wrong kind."""

    def __init__(self, path: str | Path, problem: str, remedy: str = "") -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}" + (f"; {remedy}" if remedy else ""))


class AssetMissingError(UserError):
    """A licensed or downloaded file that is not in its place."""

    def __init__(self, name: str, places: list[Path], source: str) -> None:
        where = " or ".join(str(place) for place in places)
        super().__init__(f"{name} is missing: put it at {where}; get it from {source}")
