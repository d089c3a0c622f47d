"""How often each picture of a data set comes, so that turned heads are not drowned by frontal ones."""

import json
from pathlib import Path

import numpy as np

from portrait4d.files.errors import InputFileError

FFHQ_COUNT = 70000
"""Pictures of FFHQ; the mirrored copy of number i is number i + 70000 and is repeated as often."""
_BIN_DEG = 10.0
_MOST = 16


def load_repetitions(path: str | Path) -> dict[int, int]:
    """Load the published table: one JSON object, keys "0" .. "69999", integers from 1.

    Raises:
        InputFileError: no such file, or something else.
    """
    try:
        table = json.loads(Path(path).read_text())
        repetitions = {int(key): value for key, value in table.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputFileError(path, f"not a readable table of repetitions ({error})") from error
    bad = [key for key, value in repetitions.items() if type(value) is not int or value < 0]
    if bad:
        raise InputFileError(path, f"expected whole numbers of repetitions, got {repetitions[bad[0]]!r} at {bad[0]}")
    return repetitions


def head_yaw_rad(labels: np.ndarray) -> np.ndarray:
    """Return the angle (N,) in radians between the face and the camera, sideways, from labels (N, 437).

    The camera of a label sees the head upright, so its position says how the head is turned.
    """
    return np.arctan2(labels[:, 3], labels[:, 11])


def repetitions_from_yaw(yaw_rad: np.ndarray) -> np.ndarray:
    """Derive repetitions from head yaw: powers of two from 1 to 16.

    Counted in steps of 10 degrees of |yaw|, a head that is k times as rare as the most frequent ones comes sqrt(k)
    times, rounded to a power of two: half-way (in logarithms) between what there is and an even spread.

    Args:
        yaw_rad: (N,), radians.

    Returns:
        (N,) int64.
    """
    bins = (np.degrees(np.abs(yaw_rad)) // _BIN_DEG).astype(np.int64)
    counts = np.bincount(bins, minlength=1)
    rarity = counts.max(initial=1) / np.maximum(counts, 1)
    return (2 ** np.rint(np.log2(rarity) / 2)).clip(1, _MOST).astype(np.int64)[bins]
