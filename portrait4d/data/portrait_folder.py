"""A folder of prepared portraits: aligned pictures and, beside them, landmarks, head-model labels and motion vectors.

<root>/align_images/NAME.png|jpg|jpeg|webp and, in each of the other folders, one file NAME.npy per picture. Landmarks
are in pixels of the aligned picture, (x right, y down). Sources: flame-fitting.md §1-2, datasets.md §1.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from portrait4d.config.networks import MOTION_DIMS
from portrait4d.data.image_io import load_image
from portrait4d.data.label_checks import unusable_label
from portrait4d.files.errors import InputFileError
from portrait4d.files.numpy_errors import UNREADABLE_ARRAY
from portrait4d.geometry.head_params import LABEL_DIM

ALIGNED_IMAGES = "align_images"
LANDMARKS_98 = "2dldmks_align"
LANDMARKS_68 = "3dldmks_align"
FITTED_LABELS = "flame_optim_params"
SIMPLIFIED_LABELS = "bfm2flame_params_simplified"
MOTION_VECTORS = "motion_feats"
SEGMENTATIONS = "segs"
CROP_TRANSFORMS = "crop_transforms"
"""Where each portrait was in its original picture: `data_preprocess/prepared_files.py` writes and reads these."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOTION_DIM = MOTION_DIMS["pdfgc"]

_PREPARE = "prepare the folder with data_preprocess/preprocess_dir.py"
_REMEDIES = {
    FITTED_LABELS: "make it with data_preprocess/flame_optim_batch_singleframe.py, or use the simplified labels",
    SIMPLIFIED_LABELS: "make it with data_preprocess/bfm2flame_simplified.py",
    MOTION_VECTORS: "make it with data_preprocess/extract_pdfgc.py",
}


@dataclass(frozen=True)
class PreparedPortrait:
    """One portrait of a prepared folder.

    Attributes:
        stem: name of the picture without its last suffix; it names the files in the other folders.
        image_path: the aligned picture.
        root: the prepared folder.
    """

    stem: str
    image_path: Path
    root: Path

    def array_path(self, folder: str) -> Path:
        """Return where the array of this portrait lies in `folder`, one of the folder names of this module."""
        return self.root / folder / f"{self.stem}.npy"

    @property
    def segmentation_path(self) -> Path:
        """Where the segmentation lies: the picture's own file name in `segs`."""
        return self.root / SEGMENTATIONS / self.image_path.name

    def load_image(self, size: int | None = None) -> Tensor:
        """Load the aligned picture (3, size, size) in [-1, 1]; see `image_io.load_image`.

        Raises:
            InputFileError: it cannot be read, or is not square although `size` is given.
        """
        return load_image(self.image_path, size)

    def load_landmarks68(self) -> np.ndarray:
        """Load the 68 points (68, 2) float32, pixels of the stored picture, y down; further columns are dropped.

        Raises:
            InputFileError: the file is missing, damaged, or holds something else.
        """
        return self._load_points(LANDMARKS_68, 68)

    def load_landmarks98(self) -> np.ndarray:
        """Load the 98 points (98, 2) float32, WFLW order, pixels of the stored picture, y down.

        Raises:
            InputFileError: the file is missing, damaged, or holds something else.
        """
        return self._load_points(LANDMARKS_98, 98)

    def load_frame_label(self, simplified: bool, usable: bool = True) -> np.ndarray:
        """Load the frame label (437,) float32 (layout: `geometry/head_params.py`).

        Args:
            simplified: False reads the fitted label, True the one mapped from another head model.
            usable: whether its numbers must be those of a camera and a head.

        Raises:
            InputFileError: the file is missing, damaged, or holds something else.
        """
        path = self.array_path(SIMPLIFIED_LABELS if simplified else FITTED_LABELS)
        label = _load_array(path)
        if label.shape != (LABEL_DIM,) or label.dtype.kind != "f":
            raise _unexpected(path, f"{LABEL_DIM} float32 numbers (frame label)", label)
        label = _finite_float32(path, label)
        problem = unusable_label(label) if usable else None
        if problem is not None:
            raise InputFileError(path, problem, _REMEDIES[path.parent.name])
        return label

    def load_motion(self) -> np.ndarray | None:
        """Load the motion vector (548,) float32, or None if there is no file; of longer vectors the first 548 numbers.

        Raises:
            InputFileError: the file is damaged, or holds something else.
        """
        path = self.array_path(MOTION_VECTORS)
        if not path.exists():
            return None
        motion = _load_array(path)
        if motion.ndim != 1 or len(motion) < MOTION_DIM or motion.dtype.kind != "f":
            raise _unexpected(path, f"at least {MOTION_DIM} float32 numbers (motion vector)", motion)
        return _finite_float32(path, motion[:MOTION_DIM])

    def _load_points(self, folder: str, count: int) -> np.ndarray:
        path = self.array_path(folder)
        points = _load_array(path)
        if points.ndim != 2 or len(points) != count or points.shape[1] < 2 or points.dtype.kind not in "fiu":
            raise _unexpected(path, f"{count} points as ({count}, 2) numbers (landmarks)", points)
        return _finite_float32(path, points[:, :2])


class PortraitFolder:
    """The portraits of one prepared folder.

    Args:
        root: the folder that holds `align_images`.

    Raises:
        InputFileError: no such folder, or no `align_images` in it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputFileError(self.root, "no such folder", "give the path of a prepared folder")
        if not (self.root / ALIGNED_IMAGES).is_dir():
            raise InputFileError(self.root, f"no {ALIGNED_IMAGES} in this folder", _PREPARE)

    def items(self) -> list[PreparedPortrait]:
        """List the portraits, sorted by file name of the picture.

        Hidden files and files with other suffixes than .png, .jpg, .jpeg, .webp (any case) are passed over.

        Raises:
            InputFileError: no picture, or two pictures whose names differ in the suffix only.
        """
        images = self.root / ALIGNED_IMAGES
        by_stem: dict[str, PreparedPortrait] = {}
        for path in sorted(images.iterdir(), key=lambda path: path.name):
            if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
                continue
            if path.stem in by_stem:
                other = by_stem[path.stem].image_path.name
                raise InputFileError(path, f"has the same name as {other} but for the suffix", "rename or remove one")
            by_stem[path.stem] = PreparedPortrait(path.stem, path, self.root)
        if not by_stem:
            raise InputFileError(images, f"no picture ({', '.join(IMAGE_SUFFIXES)}) in this folder", _PREPARE)
        return list(by_stem.values())


def _load_array(path: Path) -> np.ndarray:
    remedy = _REMEDIES.get(path.parent.name, _PREPARE)
    if not path.is_file():
        raise InputFileError(path, "no such file", remedy)
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        raise InputFileError(path, "not a readable .npy array of numbers (damaged?)", remedy) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputFileError(path, "not a .npy array but an archive of arrays", remedy)
    return array


def _finite_float32(path: Path, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        problem = f"expected finite numbers, got {bad} NaN or infinite among {array.size}"
        raise InputFileError(path, problem, _REMEDIES.get(path.parent.name, _PREPARE))
    return array


def _unexpected(path: Path, expected: str, array: np.ndarray) -> InputFileError:
    kind = "" if array.dtype.kind == "f" else f" of {array.dtype}"
    problem = f"expected {expected}, got shape {array.shape}{kind}"
    return InputFileError(path, problem, _REMEDIES.get(path.parent.name, _PREPARE))
