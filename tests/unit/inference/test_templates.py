"""Driving templates: written row by row, read back, and refused when they are something else."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from portrait4d.files.errors import InputFileError
from portrait4d.inference.head_states import FACE_DIM, HeadState
from portrait4d.inference.templates import TemplateFrame, TemplateWriter, open_template


def frames(count: int) -> list[TemplateFrame]:
    """Return frames of which every fourth has no face; after an hour."""
    random = np.random.default_rng(0)
    states = [HeadState(*(random.normal(size=size) for size in (25, 3, FACE_DIM))) for _ in range(count)]
    return [TemplateFrame(3600 + Fraction(k, 25), None if k % 4 == 3 else states[k]) for k in range(count)]


def write(path: Path, content: list[TemplateFrame]) -> None:
    with TemplateWriter(path, Fraction(30000, 1001)) as writer:
        for frame in content:
            writer.write(frame)


@pytest.mark.parametrize("count", [1, 256, 600])
def test_what_is_written_is_read(tmp_path: Path, count: int) -> None:
    path, written = tmp_path / "a.safetensors", frames(count)
    write(path, written)
    template = open_template(path)
    assert template.frames == count and template.rate == pytest.approx(30000 / 1001)
    read = list(template.read())
    assert len(read) == count
    for ours, theirs in zip(written, read, strict=True):
        assert float(theirs.time_s) == pytest.approx(float(ours.time_s), abs=1e-6)
        assert (theirs.state is None) == (ours.state is None)
        if ours.state is not None:
            for name in ("camera", "neck_rad", "face"):
                np.testing.assert_allclose(getattr(theirs.state, name), getattr(ours.state, name), rtol=1e-6)


def test_others_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", frames(5))
    rows = load_file(tmp_path / "a.safetensors")["rows"]
    assert rows.shape == (5, 688) and rows.dtype == np.float32
    assert rows[:, 2].tolist() == [1, 1, 1, 0, 1]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), TemplateWriter(tmp_path / "a.safetensors", Fraction(25)) as writer:
        writer.write(frames(1)[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_templates(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputFileError, match="no such file; make it with --save-template"):
        open_template(path)
    write(path, frames(3))
    whole = path.read_bytes()
    for content in (b"", b"text" * 99, whole[:-7], whole[:300]):
        path.write_bytes(content)
        with pytest.raises(InputFileError, match="is no driving template"):
            open_template(path)
    save_file({"rows": np.zeros((2, 688), np.float32)}, path)
    with pytest.raises(InputFileError, match="is no driving template"):
        open_template(path)
    write(path, [])
    with pytest.raises(InputFileError, match="expected driving-template-1 of shape"):
        open_template(path)


@pytest.mark.parametrize("bad", [0, 2])
def test_damaged_rows_are_refused(tmp_path: Path, bad: int) -> None:
    """Not a number, and a time that does not grow."""
    path = tmp_path / "a.safetensors"
    write(path, frames(3))
    data = bytearray(path.read_bytes())
    first = 512 + 2 * 688 * 4
    data[first : first + 4] = np.float32([np.nan, 0, 1][bad]).tobytes()
    path.write_bytes(data)
    with pytest.raises(InputFileError, match="damaged before 3600.04 s"):
        list(open_template(path).read())
