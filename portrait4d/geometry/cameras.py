"""Cameras.

World: right-handed, x image right, y up, the face looks to +z; unit = metres of the head model times 3.
Camera: OpenGL axes (x right, y up, looks along -z), `cam2world` 4x4. Intrinsics 3x3 are divided by the image size,
principal point 0.5; pixel (row i, column j) of an H-pixel picture has its centre at ((j + 0.5) / H, (i + 0.5) / H).
A camera vector holds 25 numbers: cam2world row-major, then intrinsics row-major (`cameras-and-rasterisation.md` 1).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.geometry.rotations import rotation_about_x, rotation_about_y

CAMERA_DIM = 25
FOV_DEG = 12.0
FRONTAL_POSITION = (0.0, 0.01, 4.2)
"""Where the reference's reenactment puts a camera that looks straight at an unrotated head."""


class Camera(NamedTuple):
    """`cam2world` (..., 4, 4) and normalised `intrinsics` (..., 3, 3)."""

    cam2world: Tensor
    intrinsics: Tensor


def split_camera(camera: Tensor) -> Camera:
    """Split camera vectors (..., 25) into matrices.

    Raises:
        ValueError: if the last axis is not 25 long.
    """
    if camera.shape[-1] != CAMERA_DIM:
        raise ValueError(f"camera: expected last axis {CAMERA_DIM}, got shape {tuple(camera.shape)}")
    return Camera(camera[..., :16].unflatten(-1, (4, 4)), camera[..., 16:].unflatten(-1, (3, 3)))


def join_camera(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """Join cam2world (..., 4, 4) and intrinsics (..., 3, 3) into camera vectors (..., 25)."""
    return torch.cat([cam2world.flatten(-2), intrinsics.flatten(-2)], dim=-1)


def invert_rigid(transform: Tensor) -> Tensor:
    """Invert rigid 4x4 transforms (..., 4, 4): [R | t] becomes [R^T | -R^T t]."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ transform[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def intrinsics_from_fov(fov_deg: float = FOV_DEG) -> Tensor:
    """Return normalised intrinsics (3, 3) of a field of view in degrees: focal = 1 / (2 tan(fov / 2)).

    Raises:
        ValueError: unless 0 < fov_deg < 180.
    """
    if not 0 < fov_deg < 180:
        raise ValueError(f"fov_deg: expected a number between 0 and 180, got {fov_deg}")
    focal = 0.5 / math.tan(math.radians(fov_deg) / 2)
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def points_to_camera(points_world: Tensor, cam2world: Tensor) -> Tensor:
    """Express points (B, N, 3) in the axes of cameras (B, 4, 4): x right, y up, z < 0 in front."""
    world2camera = invert_rigid(cam2world)
    return points_world @ world2camera[:, :3, :3].transpose(1, 2) + world2camera[:, None, :3, 3]


def project_points(points_world: Tensor, camera: Tensor) -> Tensor:
    """Project points to the picture, x right and **y up**, as fractions of its size: (0, 0) is the lower left corner.

    Args:
        points_world: (B, N, 3), in front of the camera.
        camera: (B, 25) camera vectors.

    Returns:
        (B, N, 2).
    """
    cam2world, intrinsics = split_camera(camera)
    x, y, z = points_to_camera(points_world, cam2world).unbind(-1)
    image = torch.stack([x / -z, y / -z, torch.ones_like(z)], dim=-1)
    return (image @ intrinsics.transpose(1, 2))[..., :2]


def orbit_cam2world(
    yaw_rad: Tensor, pitch_rad: Tensor, position: tuple[float, float, float] = FRONTAL_POSITION
) -> Tensor:
    """Turn the camera at `position` about the head's neck joint (the world origin).

    cam2world = [R | R position] with R = Ry(yaw) Rx(-pitch): yaw > 0 moves the camera to +x (image right of the frontal
    view), pitch > 0 moves it up.

    Args:
        yaw_rad, pitch_rad: (...), radians.
        position: camera position of the frontal view, world units.

    Returns:
        (..., 4, 4).
    """
    rotation = rotation_about_y(yaw_rad) @ rotation_about_x(-pitch_rad)
    return _rigid(rotation, rotation @ rotation.new_tensor(position))


def look_at_cam2world(position: Tensor, target: Tensor, roll_rad: Tensor | float = 0.0) -> Tensor:
    """Place a camera at `position` that looks at `target` with +y up, turned by `roll_rad` about its view axis.

    The look-at pose of `cameras-and-rasterisation.md` section 2.

    Args:
        position, target: (..., 3), world units; distinct, and not on one vertical line.
        roll_rad: (...) or a number.

    Returns:
        (..., 4, 4).
    """
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = -torch.nn.functional.normalize(torch.linalg.cross(up, forward), dim=-1)
    upright = torch.nn.functional.normalize(torch.linalg.cross(right, forward), dim=-1)
    roll = torch.as_tensor(roll_rad, dtype=forward.dtype, device=forward.device)[..., None]
    rolled = upright * torch.cos(roll) + right * torch.sin(roll)
    right = -torch.nn.functional.normalize(torch.linalg.cross(rolled, forward), dim=-1)
    upright = torch.nn.functional.normalize(torch.linalg.cross(forward, right), dim=-1)
    return _rigid(torch.stack([right, -upright, -forward], dim=-1), position)


def sphere_position(horizontal_rad: Tensor, vertical_rad: Tensor, radius: float | Tensor = 1.0) -> Tensor:
    """Return the points (..., 3) of the look-at sampler's sphere; (pi/2, pi/2) lies on +z.

    `vertical_rad` in (0, pi) is mapped to the polar angle arccos(1 - 2 v / pi), which spreads views evenly over the
    sphere; values outside are clamped (`cameras-and-rasterisation.md` section 2).
    """
    fraction = vertical_rad.clamp(1e-5, math.pi - 1e-5) / math.pi
    polar = torch.arccos(1 - 2 * fraction)
    x = torch.sin(polar) * torch.cos(horizontal_rad)
    z = torch.sin(polar) * torch.sin(horizontal_rad)
    return torch.stack([x, torch.cos(polar), z], dim=-1) * radius


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    transform = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1
    return transform
