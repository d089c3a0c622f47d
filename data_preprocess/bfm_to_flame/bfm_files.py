"""The files of Basel Face Model coefficients, `bfm_params/NAME.npy`: a dict of arrays (flame-fitting.md §2)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait4d.files.errors import InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy

BFM_PARAMS = "bfm_params"
_SIZES = {"id": 80, "exp": 64, "angle": 3}


@dataclass(frozen=True)
class BfmShape:
    """What a head model can take over from a face: identity (80,), expression (64,), angle_rad (3,), float32."""

    identity: np.ndarray
    expression: np.ndarray
    angle_rad: np.ndarray


def list_coefficient_files(root: str | Path) -> list[Path]:
    """List the files of `root`/bfm_params, sorted by name.

    Raises:
        InputFileError: no such folder, or nothing in it.
    """
    folder = Path(root) / BFM_PARAMS
    paths = sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
    if not paths:
        raise InputFileError(folder, "no .npy file in this folder", "make them with data_preprocess/preprocess_dir.py")
    return paths


def load_coefficients(path: str | Path) -> BfmShape:
    """Load the coefficients of one face. Nothing in the file is run.

    Raises:
        InputFileError: the file is missing, damaged, lacks an array, or has numbers that are not finite.
    """
    content = read_object_npy(path, NUMPY_RULES)
    if type(content) is not dict:
        raise InputFileError(path, f"expected a dict of coefficients, got {type(content).__name__}")
    arrays = []
    for key, size in _SIZES.items():
        array = content.get(key)
        if type(array) is not np.ndarray or array.dtype.kind != "f" or array.size != size:
            raise InputFileError(path, f"{key}: expected {size} numbers", "make it with preprocess_dir.py")
        if not np.isfinite(array).all():
            raise InputFileError(path, f"{key}: expected finite numbers")
        arrays.append(array.reshape(size).astype(np.float32))
    return BfmShape(*arrays)
