"""Splits a camera that contains the head's rotation into the neck's pose and a camera for the head with a posed neck.

Labels hold the head's rotation twice (`head_params.py`): inside the camera, which then looks at an upright head, and as
the neck's axis-angle. Whoever turns the neck needs the camera without that rotation.
"""

import torch
from torch import Tensor

from portrait4d.geometry.cameras import invert_rigid, join_camera, split_camera
from portrait4d.geometry.flame import NECK, HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.rotations import axis_angle_to_matrix


def camera_for_posed_neck(head: HeadModel, params: HeadParams, camera_upright: Tensor) -> Tensor:
    """Return the camera that sees the head with its neck posed as `camera_upright` sees it with the neck unrotated.

    World to camera: R_new = R Rod(n)^T for the neck's axis-angle n, and t_new keeps the neck joint, about which the
    neck turns, where it is in the camera's frame. Whatever the neck carries rigidly looks the same to both cameras.

    Args:
        head: the head model; its neck joint depends on identity and expression.
        params: parameters of B frames; the first three numbers of `pose` are the neck's axis-angle in radians.
        camera_upright: (B, 25) camera vectors, world to camera rigid.

    Returns:
        (B, 25) camera vectors with the same intrinsics. For fitted labels the rotation is the identity.

    Raises:
        ValueError: unless there are B camera vectors of 25 numbers.

    Source: `cameras-and-rasterisation.md` section 3.
    """
    if camera_upright.ndim != 2 or len(camera_upright) != len(params.pose):
        raise ValueError(
            f"camera_upright: expected shape ({len(params.pose)}, 25) as there are parameters, "
            f"got {tuple(camera_upright.shape)}"
        )
    cam2world, intrinsics = split_camera(camera_upright)
    world2camera = invert_rigid(cam2world)
    rest = head.rest(params.shape, params.expression)
    neck_joint = head.posed_joints(rest, params.without_neck_rotation())[:, NECK, :, None]
    rotation = world2camera[:, :3, :3]
    rotation_posed = rotation @ axis_angle_to_matrix(params.pose[:, :3]).transpose(1, 2)
    translation = rotation @ neck_joint + world2camera[:, :3, 3:] - rotation_posed @ neck_joint
    posed = torch.cat([torch.cat([rotation_posed, translation], dim=2), world2camera[:, 3:]], dim=1)
    return join_camera(invert_rigid(posed), intrinsics)
