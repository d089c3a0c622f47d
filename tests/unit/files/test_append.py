"""Appending lines: none is torn or lost in silence."""

from pathlib import Path

import pytest

from portrait4d.files.append import append_line
from portrait4d.files.errors import UserError
from tests.helpers.full_disk import file_size_limit


@pytest.mark.parametrize("before", ["x" * 79 + "\n", "x" * 80])
def test_a_line_that_a_full_disk_takes_in_part_is_an_error(tmp_path: Path, before: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(before)
    with (
        file_size_limit(100),
        pytest.raises(UserError, match=r"log\.jsonl: cannot be written \(No space left") as error,
    ):
        append_line(path, "y" * 60)
    assert isinstance(error.value, OSError)
    assert path.read_text() == before
    append_line(path, "z")
    assert path.read_text() == before.removesuffix("\n") + "\nz\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/log\.jsonl: cannot be written"):
        append_line(tmp_path / "file" / "log.jsonl", "z")
