"""Painted ellipsoid heads as portraits of prepared folders: quick to make, and their labels fit them."""

from pathlib import Path

import numpy as np
import torch

from portrait4d.data.image_io import save_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, FITTED_LABELS
from portrait4d.files.atomic import atomic_path
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads.ellipsoid_portrait import Look, paint_portrait

POSES = (
    (0.0, 0.0, 0.0644, 0.0, 1.0, 0.0),
    (0.1299, 0.225, 0.094, 0.06, 0.866, 0.4),
    (0.1299, 0.3897, 0.0984, 0.18, 0.5, 0.8),
    (0.0, 0.45, 0.0765, 0.24, 0.0, 0.4),
    (-0.1299, 0.3897, 0.034, 0.18, -0.5, 0.0),
    (-0.1299, 0.225, -0.0175, 0.06, -0.866, 0.4),
    (-0.0, 0.0, -0.0644, 0.0, -1.0, 0.8),
    (0.1299, -0.225, -0.094, 0.06, -0.866, 0.4),
    (0.1299, -0.3897, -0.0984, 0.18, -0.5, 0.0),
    (0.0, -0.45, -0.0765, 0.24, -0.0, 0.4),
    (-0.1299, -0.3897, -0.034, 0.18, 0.5, 0.8),
    (-0.1299, -0.225, 0.0175, 0.06, 0.866, 0.4),
)
"""Neck x, y, z, jaw x (radians), smile, mouth opening."""


def read_poses() -> list[HeadParams]:
    """Return `POSES` as head parameters of batch size 1."""
    return [_head_params(np.array(row, np.float32)) for row in POSES]


def write_painted_portrait(folder: Path, stem: str, look: Look, params: HeadParams, resolution: int = 512) -> None:
    """Write a painted head as one portrait: the picture by the frontal camera, and its frame label.

    The label's camera sees the head upright.
    """
    frontal = orbit_cam2world(torch.zeros(()), torch.zeros(()), FRONTAL_POSITION)
    camera = join_camera(frontal, intrinsics_from_fov())
    picture = paint_portrait(look, camera, params.pose[0], params.expression[0], resolution)
    save_image(folder / ALIGNED_IMAGES / f"{stem}.jpg", picture, quality=90)
    turn_back = torch.eye(4)
    turn_back[:3, :3] = axis_angle_to_matrix(params.pose[0, :3]).T
    upright = join_camera(turn_back @ frontal, intrinsics_from_fov())
    with atomic_path(folder / FITTED_LABELS / f"{stem}.npy") as temporary:
        np.save(temporary, join_label(upright[None], params)[0].numpy())


def _head_params(row: np.ndarray) -> HeadParams:
    expression = torch.zeros(1, EXPRESSION_DIM)
    expression[0, :2] = torch.from_numpy(row[4:6])
    pose = torch.zeros(1, 6)
    pose[0, :4] = torch.from_numpy(row[:4])
    return HeadParams(torch.zeros(1, SHAPE_DIM), expression, pose, torch.zeros(1, 6))
