"""The files of mesh-fitted FLAME parameters, `bfm2flame_params/NAME.npy`: a dict of arrays (flame-fitting.md §4)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame_pickle import read_flame_npy
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM

FLAME_PARAMS = "bfm2flame_params"
_KEYS = {"shape": SHAPE_DIM, "exp": EXPRESSION_DIM, "pose": 3, "jaw": 3, "trans": 3}


@dataclass(frozen=True)
class FlameShape:
    """A FLAME head: shape (300,), expression (100,), rotation_rad and jaw_rad (3,) axis-angles, translation_m (3,)."""

    shape: np.ndarray
    expression: np.ndarray
    rotation_rad: np.ndarray
    jaw_rad: np.ndarray
    translation_m: np.ndarray


def save_flame_shape(path: str | Path, head: FlameShape) -> None:
    """Write a head as a dict of float32 arrays under the published keys, atomically."""
    values = (head.shape, head.expression, head.rotation_rad, head.jaw_rad, head.translation_m)
    content = {key: np.asarray(value, np.float32) for key, value in zip(_KEYS, values, strict=True)}
    with atomic_path(path) as temporary:
        np.save(temporary, np.array(content, dtype=object), allow_pickle=True)


def load_flame_shape(path: str | Path) -> FlameShape:
    """Load a head; published files hold chumpy objects, which are read without chumpy. Nothing in the file is run.

    Raises:
        InputFileError: the file is missing, damaged, lacks an array, or has numbers that are not finite.
    """
    arrays = read_flame_npy(path, tuple(_KEYS))
    for key, size in _KEYS.items():
        array = arrays[key]
        if array.dtype.kind not in "fiu" or array.size != size or not np.isfinite(array).all():
            raise InputFileError(path, f"{key}: expected {size} finite numbers", "make it with run_convert.py")
    return FlameShape(*(arrays[key].reshape(size).astype(np.float32) for key, size in _KEYS.items()))
