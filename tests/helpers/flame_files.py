"""Files of a FLAME folder for tests: a model that reads quickly, and writers that replace a file (or a link)."""

import pickle
from pathlib import Path

import numpy as np

MODEL = "geometry/generic_model.pkl"


def plain_model(count: int) -> dict[str, np.ndarray]:
    """Return a model of `count` vertices with zero directions."""
    return {
        "f": np.array([[0, 1, 2]] * 9938),
        "v_template": np.zeros((count, 3)),
        "shapedirs": np.zeros((count, 3, 400), np.float16),
        "posedirs": np.zeros((count, 3, 36), np.float16),
        "J_regressor": np.zeros((5, count)),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "weights": np.zeros((count, 5)),
    }


def write_npy(path: Path, content: object) -> None:
    """Write a value as a 0-d object array, in place of what is there."""
    path.unlink(missing_ok=True)
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def put_back(light_folder: Path, folder: Path, name: str) -> None:
    """Undo a test's change of one file."""
    (folder / name).unlink()
    (folder / name).symlink_to(light_folder / name)


def write_pickle(path: Path, content: object, protocol: int = 2) -> None:
    """Write a pickle in place of what is there."""
    path.unlink(missing_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
