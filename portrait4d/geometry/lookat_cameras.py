"""Random cameras that look at the face from a spherical cap before it, rolled a little.

Trainings show heads from such cameras as well as from those of real portraits. Source: training-recon-v1.md §5, also
used by training-recon-v2.md §4 and §5.
"""

import math

import torch
from torch import Tensor

from portrait4d.geometry.cameras import join_camera, look_at_cam2world, sphere_position, split_camera

CAMERA_DRAWS = 7
"""Numbers of a camera: yaw, pitch, roll, the point looked at (x, y, z), radius."""
YAW_LIMIT_RAD, PITCH_LIMIT_RAD, ROLL_LIMIT_RAD = 0.78, 0.45, 0.25
PITCH_MEAN_RAD = 0.2
PIVOT_MEAN, PIVOT_LIMIT = (0.0, 0.0, 0.09), 0.03
RADIUS_MIN, RADIUS_MAX = 3.65, 4.45
FRONTAL_DISTANCE = 4.0


def look_at_pose(
    horizontal_rad: Tensor, vertical_rad: Tensor, roll_rad: Tensor, pivot: Tensor, radius: Tensor
) -> Tensor:
    """Put cameras on the sphere about the origin, looking at a pivot.

    Args:
        horizontal_rad, vertical_rad: (...) place on the sphere, (pi/2, pi/2) on +z; see `sphere_position`.
        roll_rad: (...) turn about the view axis.
        pivot: (..., 3) what is looked at, world units.
        radius: (...) world units.

    Returns:
        cam2world (..., 4, 4).
    """
    position = sphere_position(horizontal_rad, vertical_rad, radius[..., None])
    return look_at_cam2world(position, pivot, roll_rad)


def random_camera_pose(draws: Tensor) -> Tensor:
    """Turn uniform numbers into camera poses.

    Yaw, pitch and roll are uniform within 0.78, 0.45 and 0.25 rad of 0, 0.2 and 0, the pivot within 0.03 of
    (0, 0, 0.09), the radius in 3.65 to 4.45 world units.

    Args:
        draws: (..., 7) in [0, 1): yaw, pitch, roll, pivot x, y, z, radius.

    Returns:
        cam2world (..., 4, 4).

    Raises:
        ValueError: another number of columns.
    """
    if draws.shape[-1] != CAMERA_DRAWS:
        raise ValueError(f"draws: expected (..., {CAMERA_DRAWS}), got {tuple(draws.shape)}")
    yaw, pitch, roll = (2 * draws[..., :3] - 1).unbind(-1)
    pivot = (2 * draws[..., 3:6] - 1) * PIVOT_LIMIT + draws.new_tensor(PIVOT_MEAN)
    return look_at_pose(
        math.pi / 2 + yaw * YAW_LIMIT_RAD,
        math.pi / 2 - (pitch * PITCH_LIMIT_RAD + PITCH_MEAN_RAD),
        roll * ROLL_LIMIT_RAD,
        pivot,
        RADIUS_MIN + draws[..., 6] * (RADIUS_MAX - RADIUS_MIN),
    )


def sample_camera_poses(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw camera poses (count, 4, 4) of `random_camera_pose`, on the generator's device (CPU without one)."""
    device = "cpu" if generator is None else generator.device
    return random_camera_pose(torch.rand(count, CAMERA_DRAWS, generator=generator, device=device))


def replace_pose(camera: Tensor, cam2world: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Give camera vectors other poses; intrinsics stay.

    Args:
        camera: (B, 25).
        cam2world: (B, 4, 4).
        chosen: (B,) bool, which get theirs; None: all.

    Returns:
        (B, 25).
    """
    moved = join_camera(cam2world, split_camera(camera).intrinsics)
    return moved if chosen is None else torch.where(chosen[:, None], moved, camera)


def frontal_camera(camera: Tensor) -> Tensor:
    """Return the cameras (B, 25) before the head, at distance 4, with the intrinsics of others (B, 25)."""
    pose = torch.eye(4, device=camera.device).repeat(len(camera), 1, 1)
    pose[:, 2, 3] = FRONTAL_DISTANCE
    return join_camera(pose, split_camera(camera).intrinsics)
