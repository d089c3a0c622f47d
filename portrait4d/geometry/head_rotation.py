"""Head rotations of a clip, freed of their common yaw and roll."""

import numpy as np
from scipy.spatial.transform import Rotation


def rectify_head_rotations(head_axis_angle_rad: np.ndarray) -> np.ndarray:
    """Remove a clip's mean yaw and roll from its head rotations and keep pitch.

    Euler angles 'xyz' (about fixed axes) are averaged over the frames; with A = Euler(0, mean y, mean z) each R
    becomes A^T R. So the camera of a turned subject is not taken for a turned head.

    Args:
        head_axis_angle_rad: (F, 3), radians.

    Returns:
        (F, 3) axis-angle, radians, of the same type.

    Source: datasets.md §5.
    """
    rotations = Rotation.from_rotvec(head_axis_angle_rad.astype(np.float64))
    _, yaw, roll = rotations.as_euler("xyz").mean(axis=0)
    camera = Rotation.from_euler("xyz", [0, yaw, roll])
    return (camera.inv() * rotations).as_rotvec().astype(head_axis_angle_rad.dtype)
