"""Save the open head in the files and folders of FLAME, for every tool that reads those (`flame.md` 1-8)."""

import pickle
from pathlib import Path

import numpy as np

from portrait4d.files.atomic import atomic_path, write_bytes
from portrait4d.geometry.flame_assets import HeadAssets
from portrait4d.synthetic_heads.head_template import OpenHeadExtras

EXTRAS_FILE = "open_head_extras.npz"


def save_head_folder(folder: str | Path, assets: HeadAssets, extras: OpenHeadExtras | None = None) -> Path:
    """Write a head model as a FLAME folder that `load_flame_assets` reads; plain numpy arrays, metres.

    Args:
        folder: created if need be.
        assets: the head.
        extras: written beside it as `open_head_extras.npz` if given.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_bytes(folder / "geometry/generic_model.pkl", pickle.dumps(_model(assets), protocol=2))
    write_bytes(folder / "mask/FLAME_masks.pkl", pickle.dumps(_masks(assets), protocol=2))
    _save_dict(folder / "geometry/landmark_embedding_with_eyes.npy", _landmarks(assets))
    coarse = {
        "idxs": assets.coarse_indices,
        "baris": assets.coarse_barycentrics,
        "faces": assets.coarse_faces,
    }
    _save_dict(folder / "simplify_baricentric2.npy", coarse)
    _save_dict(folder / "flame_addition_info_new_smallface.npy", _regions(assets))
    for name, values in (
        ("ca_shape.txt", assets.canonical_shape),
        ("ca_exp.txt", assets.canonical_expression),
        ("ca_pose.txt", assets.canonical_pose),
    ):
        write_bytes(folder / name, (" ".join(f"{value:.18e}" for value in values) + "\n").encode())
    if extras is not None:
        with atomic_path(folder / EXTRAS_FILE) as temporary:
            np.savez_compressed(temporary, **{key: np.asarray(value) for key, value in vars(extras).items()})
    return folder


def _model(assets: HeadAssets) -> dict[str, np.ndarray]:
    tree = np.stack([assets.parents, np.arange(len(assets.parents))]).astype(np.int64)
    return {
        "f": assets.faces.astype(np.uint32),
        "v_template": assets.template,
        "shapedirs": assets.blend_directions,
        "posedirs": assets.pose_directions,
        "J_regressor": assets.joint_regressor,
        "kintree_table": tree,
        "weights": assets.skinning_weights,
    }


def _masks(assets: HeadAssets) -> dict[str, np.ndarray]:
    eyes = assets.regions["eyeballs"]
    half = len(eyes) // 2
    return {
        "face": assets.regions["face_without_eyes"],
        "left_eyeball": eyes[:half],
        "right_eyeball": eyes[half:],
        "lips": assets.regions["lips"],
        "noinmouth": assets.regions["outer_mouth"],
    }


def _landmarks(assets: HeadAssets) -> dict[str, np.ndarray]:
    inner = slice(17, None)
    return {
        "static_lmk_faces_idx": assets.landmark_faces[inner],
        "static_lmk_bary_coords": assets.landmark_barycentrics[inner],
        "full_lmk_faces_idx": assets.landmark_faces[None],
        "full_lmk_bary_coords": assets.landmark_barycentrics[None],
    }


def _regions(assets: HeadAssets) -> dict[str, np.ndarray]:
    return {
        "smallface_idxs": assets.regions["small_face"],
        "eyelids_idxs": assets.regions["eyelids"],
        "eye_idxs": assets.regions["eyeballs"],
        "face_idxs": assets.regions["head"],
        "vertices_region_idxs": assets.vertex_neighbours,
    }


def _save_dict(path: Path, content: dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, np.array(content, dtype=object), allow_pickle=True)
