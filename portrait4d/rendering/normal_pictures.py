"""Pictures of surface normals from rendered depths."""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.geometry.cameras import split_camera
from portrait4d.rendering.rays import camera_rays


def normal_picture(camera: Tensor, depth: Tensor, transmittance: Tensor) -> Tensor:
    """Colour depths (B, 1, R, R) along the rays of cameras (B, 25) with the normals of the surface that they show.

    Red, green and blue are x, y, z in the camera's axes, -1 to 1; black as far as rays, by their transmittance
    (B, 1, R, R) in [0, 1], do not meet the head.

    Returns:
        (B, 3, R, R).
    """
    resolution = depth.shape[-1]
    rays = camera_rays(camera, resolution)
    points_world = (rays.origins + rays.directions * depth.flatten(2).transpose(1, 2)).unflatten(1, (resolution, -1))
    points_camera = points_world @ split_camera(camera).cam2world[:, None, :3, :3]
    padded = functional.pad(points_camera.movedim(-1, 1), (1, 1, 1, 1), mode="replicate").movedim(1, -1)
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    normals = functional.normalize(torch.linalg.cross(down, across), dim=-1).movedim(-1, 1)
    return torch.lerp(normals, torch.full_like(normals, -1), transmittance)
