"""Read the files of the FLAME head model into plain arrays, in metres: licensed files and small published tables.

Source: flame.md sections 1 to 8. Nothing is rescaled here; `flame.py` does that. Nothing named in a file is run.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy, read_pickle
from portrait4d.files.torch_storage import TORCH_FUNCTIONS, StoredTensor
from portrait4d.geometry.flame_pickle import read_flame_pickle

SHAPES = 300
EXPRESSIONS = 100
JOINTS = 5
LANDMARKS = 70
NEIGHBOURS = 10

_LICENSED = "https://flame.is.tue.mpg.de (FLAME 2020, under its own licence)"
_PUBLISHED = "the folder models/FLAME of the published Portrait4D repository"
_FILES = {
    "geometry/generic_model.pkl": _LICENSED,
    "mask/FLAME_masks.pkl": f"{_LICENSED}; the copy used for Portrait4D has one more group, noinmouth",
    "geometry/landmark_embedding_with_eyes.npy": _PUBLISHED,
    "simplify_baricentric2.npy": _PUBLISHED,
    "flame_addition_info_new_smallface.npy": _PUBLISHED,
    "ca_shape.txt": _PUBLISHED,
    "ca_exp.txt": _PUBLISHED,
    "ca_pose.txt": _PUBLISHED,
}


@dataclass(frozen=True)
class HeadAssets:
    """The arrays of a head model before rescaling: lengths in metres, float32 and int64, C-contiguous, writable.

    V vertices, F faces, J joints, N and T vertices and faces of the coarse mesh. World axes: x the subject's left,
    y up, z where the face looks to. Faces are counter-clockwise seen from outside.

    Attributes:
        name: "flame", or the name of an open head with the same interface.
        template: (V, 3) mean vertices.
        blend_directions: (V, 3, shapes + expressions); the first `shape_count` columns are shapes.
        shape_count: number of shape columns, 300.
        pose_directions: (V, 3, 9 (J - 1)) pose correctives, for rotation entries of joints 1.. in row-major order.
        joint_regressor: (J, V), dense.
        parents: (J,) parent of each joint, -1 for the root, always before the joint.
        skinning_weights: (V, J).
        faces: (F, 3).
        landmark_faces, landmark_barycentrics: (70,) and (70, 3): the `full` set, 68 points and two eye centres.
        canonical_shape, canonical_expression, canonical_pose: (300,), (100,), (6,) neck and jaw axis-angles in radians.
        coarse_indices, coarse_barycentrics: (N, 3) fine vertices of each coarse vertex and their weights.
        coarse_faces: (T, 3).
        regions: index lists (n,) of fine vertices. Sorted and unique: face (face and eyeballs), eyes (both eyeballs),
            face_without_eyes. As stored: lips, outer_mouth (`noinmouth`), small_face, eyelids, eyeballs, head.
        vertex_neighbours: (V, 10): the vertex, its mesh neighbours, then V as padding.
    """

    name: str
    template: np.ndarray
    blend_directions: np.ndarray
    shape_count: int
    pose_directions: np.ndarray
    joint_regressor: np.ndarray
    parents: np.ndarray
    skinning_weights: np.ndarray
    faces: np.ndarray
    landmark_faces: np.ndarray
    landmark_barycentrics: np.ndarray
    canonical_shape: np.ndarray
    canonical_expression: np.ndarray
    canonical_pose: np.ndarray
    coarse_indices: np.ndarray
    coarse_barycentrics: np.ndarray
    coarse_faces: np.ndarray
    regions: dict[str, np.ndarray]
    vertex_neighbours: np.ndarray


def find_flame_folder() -> Path:
    """Return the folder of the FLAME files: $PORTRAIT4D_ASSETS/FLAME, else portrait4d/models/FLAME.

    Raises:
        AssetMissingError: neither folder exists.
    """
    places = [Path(__file__).resolve().parents[1] / "models" / "FLAME"]
    if os.environ.get("PORTRAIT4D_ASSETS"):
        places.insert(0, Path(os.environ["PORTRAIT4D_ASSETS"]) / "FLAME")
    for place in places:
        if place.is_dir():
            return place
    raise AssetMissingError("the folder of FLAME files", places, f"{_LICENSED} and {_PUBLISHED}")


def load_flame_assets(folder: str | Path) -> HeadAssets:
    """Load the FLAME files below `folder` (the layout of flame.md section 1).

    Raises:
        AssetMissingError: a file is not there; names it, its place and where it comes from.
        InputFileError: a file is damaged, names something that is not allowed, or has arrays of unexpected shapes.
    """
    folder = Path(folder)
    for name, source in _FILES.items():
        if not (folder / name).is_file():
            raise AssetMissingError(f"the FLAME file {Path(name).name}", [folder / name], source)
    model = _load_model(folder / "geometry/generic_model.pkl")
    vertex_count, face_count = len(model["template"]), len(model["faces"])
    coarse = _load_coarse_mesh(folder / "simplify_baricentric2.npy", vertex_count)
    landmarks = _load_landmarks(folder / "geometry/landmark_embedding_with_eyes.npy", face_count)
    masks = _load_masks(folder / "mask/FLAME_masks.pkl", vertex_count)
    regions, neighbours = _load_regions(folder / "flame_addition_info_new_smallface.npy", vertex_count)
    return HeadAssets(
        name="flame",
        shape_count=SHAPES,
        canonical_shape=_load_numbers(folder / "ca_shape.txt", SHAPES),
        canonical_expression=_load_numbers(folder / "ca_exp.txt", EXPRESSIONS),
        canonical_pose=_load_numbers(folder / "ca_pose.txt", 6),
        regions=masks | regions,
        vertex_neighbours=neighbours,
        **model,
        **coarse,
        **landmarks,
    )


@dataclass(frozen=True)
class _Table:
    """The named arrays of one file, checked and cast as they are taken out."""

    path: Path
    content: object

    def floats(self, key: str, *shape: int | None) -> np.ndarray:
        """Return float32 values of a shape (None: any size); they are finite."""
        array = self.take(key, shape, "fiu")
        if not np.isfinite(array).all():
            raise InputFileError(self.path, f"{key}: expected finite numbers")
        return np.array(array, np.float32, order="C")

    def indices(self, key: str, limit: int, *shape: int | None) -> np.ndarray:
        """Return int64 values in 0 .. limit - 1 of a shape (None: any size)."""
        array = np.array(self.take(key, shape, "iu"), np.int64, order="C")
        if array.size == 0 or array.min() < 0 or array.max() >= limit:
            raise InputFileError(self.path, f"{key}: expected indices from 0 to {limit - 1}, at least one")
        return array

    def take(self, key: str, shape: tuple[int | None, ...], kinds: str) -> np.ndarray:
        """Return the stored array of a shape (None: any size) whose dtype kind is one of `kinds`."""
        if type(self.content) is not dict or key not in self.content:
            raise InputFileError(self.path, f"has no entry '{key}'")
        value = self.content[key]
        array = value.array if type(value) is StoredTensor else value
        if type(array) is not np.ndarray or array.dtype.kind not in kinds:
            raise InputFileError(self.path, f"{key}: expected an array of numbers, got something else")
        wanted = tuple("any" if size is None else size for size in shape)
        if array.ndim != len(shape) or any(a != b for a, b in zip(array.shape, shape, strict=True) if b is not None):
            raise InputFileError(self.path, f"{key}: expected shape {wanted}, got {array.shape}")
        return array


def _load_model(path: Path) -> dict[str, np.ndarray]:
    keys = ("f", "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
    table = _Table(path, read_flame_pickle(path, keys))
    template = table.floats("v_template", None, 3)
    count = len(template)
    tree = table.take("kintree_table", (2, JOINTS), "iu")
    parents = tree[0].astype(np.int64)
    parents[0] = -1
    if any(not 0 <= parents[joint] < joint for joint in range(1, JOINTS)):
        raise InputFileError(path, "kintree_table: expected parents before their children")
    return {
        "template": template,
        "blend_directions": table.floats("shapedirs", count, 3, SHAPES + EXPRESSIONS),
        "pose_directions": table.floats("posedirs", count, 3, 9 * (JOINTS - 1)),
        "joint_regressor": table.floats("J_regressor", JOINTS, count),
        "parents": parents,
        "skinning_weights": table.floats("weights", count, JOINTS),
        "faces": table.indices("f", count, None, 3),
    }


def _load_landmarks(path: Path, face_count: int) -> dict[str, np.ndarray]:
    table = _Table(path, read_object_npy(path, NUMPY_RULES.extended(TORCH_FUNCTIONS)))
    return {
        "landmark_faces": table.indices("full_lmk_faces_idx", face_count, 1, LANDMARKS)[0],
        "landmark_barycentrics": table.floats("full_lmk_bary_coords", 1, LANDMARKS, 3)[0],
    }


def _load_coarse_mesh(path: Path, vertex_count: int) -> dict[str, np.ndarray]:
    table = _Table(path, read_object_npy(path, NUMPY_RULES))
    indices = table.indices("idxs", vertex_count, None, 3)
    return {
        "coarse_indices": indices,
        "coarse_barycentrics": table.floats("baris", len(indices), 3),
        "coarse_faces": table.indices("faces", len(indices), None, 3),
    }


def _load_masks(path: Path, vertex_count: int) -> dict[str, np.ndarray]:
    content = read_pickle(path, NUMPY_RULES)
    if type(content) is dict and "noinmouth" not in content:
        remedy = "FLAME's own release lacks it; use the masks file that comes with Portrait4D's FLAME folder"
        raise InputFileError(path, "has no vertex group 'noinmouth'", remedy)
    table = _Table(path, content)
    groups = ("face", "left_eyeball", "right_eyeball", "lips", "noinmouth")
    face, left, right, lips, outer = (table.indices(key, vertex_count, None) for key in groups)
    return {
        "face": np.unique(np.concatenate([face, right, left])),
        "eyes": np.unique(np.concatenate([right, left])),
        "face_without_eyes": np.unique(face),
        "lips": lips,
        "outer_mouth": outer,
    }


def _load_regions(path: Path, vertex_count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    table = _Table(path, read_object_npy(path, NUMPY_RULES))
    stored = {"small_face": "smallface_idxs", "eyelids": "eyelids_idxs", "eyeballs": "eye_idxs", "head": "face_idxs"}
    regions = {name: table.indices(key, vertex_count, None) for name, key in stored.items()}
    return regions, table.indices("vertices_region_idxs", vertex_count + 1, vertex_count, NEIGHBOURS)


def _load_numbers(path: Path, count: int) -> np.ndarray:
    """Load blank-separated numbers of a text file, padded with zeros to (count,) float32."""
    try:
        numbers = np.array([float(word) for word in path.read_text(encoding="ascii").split()], np.float32)
    except (OSError, ValueError) as error:
        raise InputFileError(path, "is not a text file of numbers") from error
    if len(numbers) > count or not np.isfinite(numbers).all():
        raise InputFileError(path, f"expected at most {count} finite numbers, got {len(numbers)}")
    return np.pad(numbers, (0, count - len(numbers)))
