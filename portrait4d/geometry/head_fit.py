"""A head model in front of the camera of a 512-pixel picture, as fits of landmarks find it.

Points are (x, y) in pixels, y **up**; the neck is unposed, the head's rotation is in the camera. Source:
flame-fitting.md §1, §5.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.geometry.cameras import FOV_DEG, intrinsics_from_fov, invert_rigid, join_camera
from portrait4d.geometry.head_params import HeadParams, join_label
from portrait4d.geometry.posed_points import PosedPoints
from portrait4d.geometry.rotations import axis_angle_to_matrix

PICTURE = 512
FOCAL_PIXELS = PICTURE / (2 * math.tan(math.radians(FOV_DEG) / 2))


@dataclass(frozen=True)
class HeadFit:
    """A head in front of the camera: the state of a fit of B pictures.

    Attributes:
        shape: (B, 300); solvers also take fewer, the first ones, and (1, 300), which is one identity of all.
        expression: (B, 100), or fewer likewise.
        rotation_rad: (B, 3) axis-angle of the head, world to camera.
        jaw_rad: (B, 3) axis-angle.
        eye_rad: (B, 3) axis-angle of both eyes.
        translation: (B, 3) world to camera, world units; z < 0 is in front.
    """

    shape: Tensor
    expression: Tensor
    rotation_rad: Tensor
    jaw_rad: Tensor
    eye_rad: Tensor
    translation: Tensor


def params_of(shape: Tensor, expression: Tensor, jaw_rad: Tensor, eye_rad: Tensor) -> HeadParams:
    """Return head parameters with an unposed neck and both eyes turned alike.

    Args:
        shape: (B, 300), or (1, 300) for one identity; or fewer, for points of fewer coefficients.
        expression: (B, 100), or fewer likewise.
        jaw_rad, eye_rad: (B, 3) axis-angles.
    """
    pose = torch.cat([torch.zeros_like(jaw_rad), jaw_rad], dim=1)
    return HeadParams(shape.expand(len(expression), -1), expression, pose, eye_rad.repeat(1, 2))


def project(points_world: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Project points (B, K, 3) by world-to-camera rotations (B, 3, 3) and translations (B, 3) to (B, K, 2) pixels."""
    points = points_world @ rotation.transpose(-1, -2) + translation[..., None, :]
    return FOCAL_PIXELS * points[..., :2] / -points[..., 2:] + PICTURE / 2


def project_fit(points: PosedPoints, fit: HeadFit) -> Tensor:
    """Return where points of B fitted heads are seen, (B, K, 2) pixels."""
    params = params_of(fit.shape, fit.expression, fit.jaw_rad, fit.eye_rad)
    return project(points.points(params), axis_angle_to_matrix(fit.rotation_rad), fit.translation)


def labels_of(fit: HeadFit) -> Tensor:
    """Return the frame labels (B, 437) of a fit: camera, coefficients, head rotation, jaw, both eyes.

    Eyes turned by more than a quarter turn are taken for turned the other way (flame-fitting.md §5).
    """
    rows = len(fit.expression)
    world2camera = torch.eye(4, device=fit.translation.device).repeat(rows, 1, 1)
    world2camera[:, :3, :3] = axis_angle_to_matrix(fit.rotation_rad)
    world2camera[:, :3, 3] = fit.translation
    intrinsics = intrinsics_from_fov().to(world2camera).expand(rows, 3, 3)
    angle = fit.eye_rad.norm(dim=1, keepdim=True)
    eye = torch.where(angle > math.pi / 2, fit.eye_rad * (angle - math.pi) / angle, fit.eye_rad)
    pose = torch.cat([fit.rotation_rad, fit.jaw_rad], dim=1)
    params = HeadParams(fit.shape.expand(rows, -1), fit.expression, pose, eye.repeat(1, 2))
    return join_label(join_camera(invert_rigid(world2camera), intrinsics), params)
