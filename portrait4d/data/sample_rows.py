"""Rows of the published FFHQ parameter sets: one identity, camera and motion each, to sample GenHead with by number.

Unlike the pools of `parameter_bank.py` a row keeps its neck rotation and what belongs together
(`datasets.md` section 6, `flame-fitting.md` section 8).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.parameter_bank import SHAPE_FILES, STILL_MOTION_FILE
from portrait4d.files.errors import AssetMissingError, InputFileError, UserError
from portrait4d.files.numpy_errors import UNREADABLE_ARRAY
from portrait4d.geometry.cameras import CAMERA_DIM
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams

IDENTITIES, MOTIONS = SHAPE_FILES[0], STILL_MOTION_FILE
_SOURCE = "the published Portrait4D data (README there, parameter sets for training)"


@dataclass(frozen=True)
class SampleRows:
    """Rows of `identities` (N, 325) and `motions` (M, 112); memory-mapped, read when asked for."""

    folder: Path
    identities: np.ndarray
    motions: np.ndarray

    def row(self, index: int) -> tuple[Tensor, HeadParams]:
        """Return the camera vector (1, 25) and head parameters (batch 1) of a row.

        Raises:
            UserError: if there is no such row.
            InputFileError: if its numbers are not finite.
        """
        count = min(len(self.identities), len(self.motions))
        if not 0 <= index < count:
            raise UserError(f"{self.folder}: has rows 0 to {count - 1}, seed {index} has none; choose other --seeds")
        parts = []
        for name, table in ((IDENTITIES, self.identities), (MOTIONS, self.motions)):
            numbers = torch.from_numpy(np.array(table[index], dtype=np.float32))[None]
            if not numbers.isfinite().all():
                raise InputFileError(self.folder / name, f"row {index}: expected finite numbers")
            parts.append(numbers)
        camera, shape = parts[0].split([CAMERA_DIM, SHAPE_DIM], dim=1)
        return camera, HeadParams(shape, *parts[1].split([EXPRESSION_DIM, 6, 6], dim=1))


def open_sample_rows(folder: str | Path) -> SampleRows:
    """Open the two FFHQ sets of a folder.

    Raises:
        AssetMissingError: if one is missing.
        InputFileError: if one is no array of numbers, or has other columns.
    """
    folder = Path(folder)
    identities = _open_table(folder / IDENTITIES, CAMERA_DIM + SHAPE_DIM)
    return SampleRows(folder, identities, _open_table(folder / MOTIONS, EXPRESSION_DIM + 12))


def _open_table(path: Path, columns: int) -> np.ndarray:
    if not path.is_file():
        raise AssetMissingError(f"the parameter set {path.name}", [path], _SOURCE)
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        raise InputFileError(path, f"cannot be read as a numpy array ({error})", "copy it again") from None
    if not isinstance(table, np.ndarray) or table.ndim < 2 or table.shape[-1] != columns or table.dtype.kind != "f":
        found = f"{table.shape} {table.dtype}" if isinstance(table, np.ndarray) else type(table).__name__
        raise InputFileError(path, f"expected floating-point numbers of shape (..., {columns}), got {found}")
    return table.reshape(-1, columns)
