"""What scripts share: errors on the terminal."""

from pathlib import Path

import click
import pytest

from portrait4d.files.errors import OutputFileError
from portrait4d.script_options import run_job


def test_errors_of_the_system_are_one_line_with_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(click.ClickException) as caught:
        run_job((file / "results.jsonl").unlink)
    assert caught.value.message == f"{file / 'results.jsonl'}: cannot be read or written (Not a directory)"
    with pytest.raises(click.ClickException) as caught:
        run_job(lambda: file.with_name("missing").replace(tmp_path / "new"))
    assert str(tmp_path / "missing") in caught.value.message


def test_outputs_are_said_not_to_be_written() -> None:
    def job() -> None:
        raise OutputFileError(28, "No space left on device", "out/film.mp4")

    with pytest.raises(click.ClickException) as caught:
        run_job(job)
    assert caught.value.message == "out/film.mp4: cannot be written (No space left on device)"


def test_errors_that_name_no_file_are_not_hidden() -> None:
    def job() -> None:
        raise OSError("no file")

    with pytest.raises(OSError, match="no file"):
        run_job(job)
