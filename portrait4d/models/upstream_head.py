"""The head model inside a published checkpoint: its names to ours (`flame.md` section 9)."""

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel

PREFIX = "deformer.flame_deform."

NAMES = {
    "flame_model.v_template": "template",
    "flame_model.shapedirs": "blend_directions",
    "flame_model.posedirs": "pose_directions",
    "flame_model.J_regressor": "joint_regressor",
    "flame_model.parents": "parents",
    "flame_model.lbs_weights": "skinning_weights",
    "flame_model.faces_tensor": "faces",
    "flame_model.full_lmk_faces_idx": "landmark_faces",
    "flame_model.full_lmk_bary_coords": "landmark_barycentrics",
    "canonical_shape": "canonical_vertices",
    "simplify_idxs": "coarse_indices",
    "simplify_baris": "coarse_barycentrics",
    "simplify_faces": "coarse_faces",
    "vertices_region_idxs": "vertex_neighbours",
    "eye_idxs": "region_eyeballs",
    "face_idxs": "region_head",
    "lips_idxs": "region_lips",
    "noinmouth_idxs": "region_outer_mouth",
    "smallface_idxs": "region_small_face",
    "eyelids_idxs": "region_eyelids",
}
"""Published name after PREFIX to buffer of `HeadModel`."""

DERIVED = {
    "masked_faces",
    "masked_eye_faces",
    "masked_lips_faces",
    "masked_face_wo_eye_faces",
    "masked_noinmouth_faces",
    "masked_smallface_faces",
    "masked_eyelids_faces",
    "canonical_shape_coarse",
    "if_eye_face_simplify",
    "simplify_faces_region_idxs",
    "dynamic_idxs",
    "flame_model.eye_pose",
    "flame_model.neck_pose",
    "flame_model.lmk_faces_idx",
    "flame_model.lmk_bary_coords",
    "flame_model.dynamic_lmk_faces_idx",
    "flame_model.dynamic_lmk_bary_coords",
    "flame_model.neck_kin_chain",
    "flame_model.global_limits",
    "flame_model.neck_limits",
    "flame_model.jaw_limits",
    "flame_model.eye_limits",
}
"""Published names that hold nothing new: sub-meshes and limits that follow from the rest, tables no network uses."""

FACE_ONLY = "canonical_shape_face_only"
"""Vertices of the face region; matched with the whole mesh to recover the region's indices."""


def head_from_upstream(tensors: dict[str, Tensor]) -> HeadModel:
    """Build the head model from the published tensors whose names start with PREFIX.

    Raises:
        KeyError: naming a tensor that is missing or that the table does not know.
    """
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    unknown = sorted(set(own) - set(NAMES) - DERIVED - {FACE_ONLY})
    missing = sorted((set(NAMES) | {FACE_ONLY}) - set(own))
    if unknown or missing:
        raise KeyError(f"head model in the checkpoint: missing {missing}, unknown {unknown}")
    renamed = {ours: own[theirs] for theirs, ours in NAMES.items()}
    renamed["pose_directions"] = renamed["pose_directions"].T
    for key in ("landmark_faces", "landmark_barycentrics", "canonical_vertices"):
        renamed[key] = renamed[key].squeeze(0)
    face = _matching_rows(renamed["canonical_vertices"], own[FACE_ONLY].squeeze(0))
    eyes = renamed["region_eyeballs"].sort().values
    renamed["region_face"] = face
    renamed["region_eyes"] = eyes
    renamed["region_face_without_eyes"] = face[~torch.isin(face, eyes)]
    for key, tensor in renamed.items():
        renamed[key] = (tensor if tensor.is_floating_point() else tensor.long()).contiguous()
    return HeadModel(renamed, "flame")


def _matching_rows(rows: Tensor, selection: Tensor) -> Tensor:
    """Return the indices in `rows` (V, 3) of the rows of `selection` (n, 3)."""
    position = {row.tobytes(): index for index, row in enumerate(rows.numpy())}
    try:
        return torch.tensor([position[row.tobytes()] for row in selection.numpy()])
    except KeyError:
        raise KeyError(f"{FACE_ONLY}: expected rows of canonical_shape, got others") from None
