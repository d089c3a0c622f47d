"""Errors for the user travel between processes as they are."""

import copy
import errno
import pickle
from pathlib import Path

import pytest

from portrait4d.files.download import DownloadError
from portrait4d.files.errors import AssetMissingError, InputFileError, OutputFileError, UserError


@pytest.mark.parametrize(
    "error",
    [
        UserError("text"),
        DownloadError("text"),
        InputFileError("a/b.png", "is damaged", "make it again"),
        AssetMissingError("FLAME", [Path("a"), Path("b")], "somewhere"),
        OutputFileError(errno.ENOSPC, "No space left on device", "a/b.png"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel(error: UserError) -> None:
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is type(error) and str(found) == str(error) and found.__dict__ == error.__dict__
