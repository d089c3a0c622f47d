"""What a frame label must look like to be believed."""

import numpy as np

from portrait4d.geometry.head_params import LABEL_DIM

_ORTHONORMAL_TOLERANCE = 1e-2
_DISTANCE_RANGE = (1.0, 30.0)
"""World units between camera and neck joint; portraits with a field of view of 12 degrees have about 4."""
_FOCAL_RANGE = (0.5, 50.0)
_PRINCIPAL_TOLERANCE = 0.25
_ANGLE_LIMIT_RAD = np.pi
_NUMBER_LIMIT = 1e3
"""Beyond any coefficient, angle, distance or focal length of a label; arithmetic with such numbers is still sound."""


def unusable_label(label: np.ndarray) -> str | None:
    """Say why nothing can be computed from a frame label (437,) of finite numbers; None if it can be used.

    Unlike `label_problems` this passes labels that are merely hard to believe.
    """
    largest = np.abs(label).max()
    if largest >= _NUMBER_LIMIT:
        return f"label: expected numbers below {_NUMBER_LIMIT:g}, got {largest:.3g}"
    focal = label[[16, 20]]
    if focal.min() <= 0:
        return f"camera: expected focal lengths above 0, got {focal.tolist()}"
    return next(iter(_pose_problems(label[:16].reshape(4, 4).astype(np.float64))), None)


def label_problems(label: np.ndarray) -> list[str]:
    """Say what is wrong with a frame label (437,), in a few words each; an empty list for a good one."""
    if label.shape != (LABEL_DIM,):
        return [f"label: expected {LABEL_DIM} numbers, got shape {label.shape}"]
    if not np.isfinite(label).all():
        return [f"label: {np.count_nonzero(~np.isfinite(label))} numbers are NaN or infinite"]
    cam2world, intrinsics = label[:16].reshape(4, 4).astype(np.float64), label[16:25].reshape(3, 3)
    problems = _pose_problems(cam2world)
    distance = np.linalg.norm(cam2world[:3, 3])
    if not _DISTANCE_RANGE[0] <= distance <= _DISTANCE_RANGE[1]:
        problems.append(f"camera: {distance:.3g} units from the neck, expected {_DISTANCE_RANGE}")
    focal = intrinsics[[0, 1], [0, 1]]
    if not ((_FOCAL_RANGE[0] <= focal) & (focal <= _FOCAL_RANGE[1])).all():
        problems.append(f"camera: focal lengths {focal.tolist()} of the picture's size, expected {_FOCAL_RANGE}")
    if np.abs(intrinsics[:2, 2] - 0.5).max() > _PRINCIPAL_TOLERANCE:
        problems.append(f"camera: principal point {intrinsics[:2, 2].tolist()}, expected about 0.5")
    angles = np.linalg.norm(label[425:].reshape(4, 3), axis=1)
    if angles.max() > _ANGLE_LIMIT_RAD:
        problems.append(f"pose: a joint is turned by {angles.max():.3g} rad")
    return problems


def _pose_problems(cam2world: np.ndarray) -> list[str]:
    problems = []
    rotation = cam2world[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
        problems.append("camera: its rotation is none")
    if np.abs(cam2world[3] - [0, 0, 0, 1]).max() > _ORTHONORMAL_TOLERANCE:
        problems.append("camera: the last row of cam2world is not 0 0 0 1")
    return problems
