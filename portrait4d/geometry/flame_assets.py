"""Read the files of the FLAME head model into plain arrays, in metres: licensed files and small published tables.

Source: flame.md sections 1 to 8. Nothing is rescaled here; `flame.py` does that. Nothing named in a file is run.
Tables that the licensed files lack are read where the published ones are there, else computed from the mesh.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy, read_pickle
from portrait4d.files.torch_storage import TORCH_FUNCTIONS, StoredTensor
from portrait4d.geometry.flame_pickle import read_flame_pickle
from portrait4d.geometry.head_regions import (
    NEIGHBOURS,
    FaceGroups,
    compute_regions,
    compute_vertex_neighbours,
    find_outer_mouth,
)
from portrait4d.geometry.mesh_simplification import simplify_mesh

SHAPES = 300
EXPRESSIONS = 100
JOINTS = 5
LANDMARKS = 70
CANONICAL_POSE = (0.0, 0.0, 0.0, 0.3, 0.0, 0.0)
"""Neck and jaw axis-angles of the canonical head, radians: the content of the published `ca_pose.txt`."""

_LICENSED = "https://flame.is.tue.mpg.de (FLAME 2020, under its own licence)"
_PUBLISHED = "the folder models/FLAME of the published Portrait4D repository"
_MODEL = "geometry/generic_model.pkl"
_MASKS = "mask/FLAME_masks.pkl"
_LANDMARKS = "geometry/landmark_embedding_with_eyes.npy"
_COARSE_MESH = "simplify_baricentric2.npy"
_REGIONS = "flame_addition_info_new_smallface.npy"
_REQUIRED = {_MODEL: _LICENSED, _MASKS: _LICENSED, _LANDMARKS: _PUBLISHED}


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

    The licensed model and masks and the landmark file must be there. What else comes with Portrait4D's FLAME folder is
    read if it is there and replaced if not: the group `noinmouth` of the masks and the region tables by the rules of
    `head_regions.py`, the coarse mesh by `mesh_simplification.py` (from the template, whose numbers are the same on
    every machine), the canonical parameters by the published numbers. **Computed tables differ in detail from the
    published ones**: the same kinds of regions and mesh, but other vertices, so that a network gives slightly different
    pictures. A checkpoint brings the tables it was trained with. A file that is there but damaged is an error.

    Raises:
        AssetMissingError: a required file is not there; names it, its place and where it comes from.
        InputFileError: a file is damaged, names something that is not allowed, or has arrays of unexpected shapes.
    """
    folder = Path(folder)
    for name, source in _REQUIRED.items():
        if not (folder / name).is_file():
            raise AssetMissingError(f"the FLAME file {Path(name).name}", [folder / name], source)
    model = _load_model(folder / _MODEL)
    template, faces = model["template"], model["faces"]
    landmarks = _load_landmarks(folder / _LANDMARKS, len(faces))
    masks = _load_masks(folder / _MASKS, len(template))
    regions = masks.regions()
    if "outer_mouth" not in regions:
        regions["outer_mouth"] = find_outer_mouth(template, faces, masks.groups.lips)
    if _is_there(folder / _REGIONS):
        own, neighbours = _load_regions(folder / _REGIONS, len(template))
    else:
        own, neighbours = _compute_regions(folder / _MASKS, template, faces, masks.groups)
    if _is_there(folder / _COARSE_MESH):
        coarse = _load_coarse_mesh(folder / _COARSE_MESH, len(template))
    else:
        coarse = _compute_coarse_mesh(template, faces)
    return HeadAssets(
        name="flame",
        shape_count=SHAPES,
        canonical_shape=_load_numbers(folder / "ca_shape.txt", SHAPES, ()),
        canonical_expression=_load_numbers(folder / "ca_exp.txt", EXPRESSIONS, ()),
        canonical_pose=_load_numbers(folder / "ca_pose.txt", 6, CANONICAL_POSE),
        regions=regions | own,
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


@dataclass(frozen=True)
class _Masks:
    """Vertex groups of the masks file as stored; `outer_mouth` is None where the file lacks it, as FLAME's own does."""

    groups: FaceGroups
    outer_mouth: np.ndarray | None

    def regions(self) -> dict[str, np.ndarray]:
        groups = self.groups
        eyes = np.unique(np.concatenate([groups.right_eyeball, groups.left_eyeball]))
        regions = {
            "face": np.unique(np.concatenate([groups.face, eyes])),
            "eyes": eyes,
            "face_without_eyes": np.unique(groups.face),
            "lips": groups.lips,
        }
        return regions if self.outer_mouth is None else regions | {"outer_mouth": self.outer_mouth}


def _load_masks(path: Path, vertex_count: int) -> _Masks:
    content = read_pickle(path, NUMPY_RULES)
    table = _Table(path, content)
    names = ("face", "lips", "left_eyeball", "right_eyeball")
    groups = FaceGroups(**{name: table.indices(name, vertex_count, None) for name in names})
    return _Masks(groups, table.indices("noinmouth", vertex_count, None) if "noinmouth" in content else None)


def _load_regions(path: Path, vertex_count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    table = _Table(path, read_object_npy(path, NUMPY_RULES))
    stored = {"small_face": "smallface_idxs", "eyelids": "eyelids_idxs", "eyeballs": "eye_idxs", "head": "face_idxs"}
    regions = {name: table.indices(key, vertex_count, None) for name, key in stored.items()}
    return regions, table.indices("vertices_region_idxs", vertex_count + 1, vertex_count, NEIGHBOURS)


def _compute_regions(
    path: Path, template: np.ndarray, faces: np.ndarray, groups: FaceGroups
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    try:
        return compute_regions(template, groups), compute_vertex_neighbours(faces, len(template))
    except ValueError as error:
        raise InputFileError(path, str(error)) from error


def _compute_coarse_mesh(template: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    coarse = simplify_mesh(template, faces)
    return {
        "coarse_indices": coarse.indices,
        "coarse_barycentrics": coarse.barycentrics,
        "coarse_faces": coarse.faces,
    }


def _load_numbers(path: Path, count: int, default: tuple[float, ...]) -> np.ndarray:
    """Load blank-separated numbers of a text file, or the default without one, zero-padded to (count,) float32."""
    try:
        words = path.read_text(encoding="ascii").split() if _is_there(path) else default
        numbers = np.array([float(word) for word in words], np.float32)
    except (OSError, ValueError) as error:
        raise InputFileError(path, "is not a text file of numbers") from error
    if len(numbers) > count or not np.isfinite(numbers).all():
        raise InputFileError(path, f"expected at most {count} finite numbers, got {len(numbers)}")
    return np.pad(numbers, (0, count - len(numbers)))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()  # a link to nothing is a fault, not an absent file
