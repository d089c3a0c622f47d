"""Published parameter sets: rows by number, files that are missing or of another form."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.sample_rows import IDENTITIES, MOTIONS, open_sample_rows
from portrait4d.files.errors import AssetMissingError, InputFileError, UserError
from tests.helpers.damaged_arrays import DAMAGED_ARRAYS
from tests.helpers.parameter_files import write_parameter_sets


def test_rows_are_numbered_over_all_leading_axes(tmp_path: Path) -> None:
    bank = open_sample_rows(write_parameter_sets(tmp_path))
    camera, params = bank.row(2)
    identities = torch.from_numpy(np.load(tmp_path / IDENTITIES).reshape(-1, 325))
    motions = torch.from_numpy(np.load(tmp_path / MOTIONS))
    assert torch.equal(camera[0], identities[2, :25])
    assert torch.equal(params.shape[0], identities[2, 25:])
    joined = torch.cat([params.expression, params.pose, params.eye_pose], dim=1)
    assert torch.equal(joined[0], motions[2])


@pytest.mark.parametrize("index", [-1, 4])
def test_rows_that_are_not_there(tmp_path: Path, index: int) -> None:
    with pytest.raises(UserError, match=f"has rows 0 to 3, seed {index} has none; choose other --seeds"):
        open_sample_rows(write_parameter_sets(tmp_path)).row(index)


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    write_parameter_sets(tmp_path)
    motions = np.load(tmp_path / MOTIONS)
    motions[1, 3] = np.nan
    np.save(tmp_path / MOTIONS, motions)
    bank = open_sample_rows(tmp_path)
    bank.row(0)
    with pytest.raises(InputFileError, match="row 1: expected finite numbers"):
        bank.row(1)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    write_parameter_sets(tmp_path)
    for content, message in (
        (np.zeros((3, 111), np.float32), r"expected floating-point numbers of shape \(\.\.\., 112\), got \(3, 111\)"),
        (np.zeros((3, 112), np.int64), "got .* int64"),
        (np.array({"a": 1}, dtype=object), "cannot be read as a numpy array"),
    ):
        np.save(tmp_path / MOTIONS, content, allow_pickle=True)
        with pytest.raises(InputFileError, match=message):
            open_sample_rows(tmp_path)
    for content in (b"hello", *DAMAGED_ARRAYS):
        (tmp_path / MOTIONS).write_bytes(content)
        with pytest.raises(InputFileError, match="cannot be read as a numpy array"):
            open_sample_rows(tmp_path)
    (tmp_path / MOTIONS).unlink()
    with pytest.raises(AssetMissingError, match=MOTIONS):
        open_sample_rows(tmp_path)
