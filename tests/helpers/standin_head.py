"""Writes the files of the stand-in head (FLAME's names and shapes, no FLAME data) as a FLAME folder."""

import pickle
from functools import cache
from pathlib import Path

import numpy as np

from tests.golden.standin import standin_arrays

TABLE = Path(__file__).resolve().parents[1] / "golden" / "standin.npz"
CANONICAL = {"ca_shape.txt": [0.0] * 100, "ca_exp.txt": [0.0] * 50, "ca_pose.txt": [0.0, 0.0, 0.0, 0.3, 0.0, 0.0]}


def write_standin_folder(folder: Path) -> Path:
    """Write every file that `load_flame_assets` reads below `folder`, in the formats of the real ones; return it."""
    for name in ("geometry", "mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "geometry/generic_model.pkl").write_bytes(_model_pickle())
    (folder / "mask/FLAME_masks.pkl").write_bytes(pickle.dumps(standin_table("mask_"), protocol=2))
    _save_dict(folder / "geometry/landmark_embedding_with_eyes.npy", standin_table("lmk_"))
    _save_dict(folder / "simplify_baricentric2.npy", standin_table("simple_"))
    _save_dict(folder / "flame_addition_info_new_smallface.npy", standin_table("region_"))
    for name, values in CANONICAL.items():
        np.savetxt(folder / name, [values], fmt="%.18e")
    return folder


def standin_table(prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays of standin.npz whose names start with `prefix`, without it."""
    with np.load(TABLE) as table:
        return {name.removeprefix(prefix): table[name] for name in table.files if name.startswith(prefix)}


@cache
def _model_pickle() -> bytes:
    return pickle.dumps(standin_arrays(), protocol=4)


def _save_dict(path: Path, content: dict) -> None:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
