"""Camera rays of a square picture (`rendering.md` sections 1 and 2)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from portrait4d.geometry.cameras import invert_rigid, split_camera


class Rays(NamedTuple):
    """Rays in row-major pixel order.

    Attributes:
        origins: (B, R, 3), world.
        directions: (B, R, 3), unit length.
        centre_distance: (B,) |camera-space z of the world origin|, the middle of the depth range.
    """

    origins: Tensor
    directions: Tensor
    centre_distance: Tensor


def camera_rays(camera: Tensor, resolution: int) -> Rays:
    """Return one ray through each pixel centre.

    Args:
        camera: (B, 25) camera vectors.
        resolution: pixels per side; R = resolution ** 2, ray (row i, column j) is number i * resolution + j.
    """
    cam2world, intrinsics = split_camera(camera)
    centres = torch.arange(resolution, dtype=torch.float32, device=camera.device) * (1 / resolution) + 0.5 / resolution
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    fx, fy, cx, cy, skew = (
        intrinsics[:, row, column, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1))
    )
    x_camera = (x - cx + cy * skew / fy - skew * y / fy) / fx
    y_camera = -(y - cy) / fy
    minus_one = torch.full_like(x_camera, -1)
    points_camera = torch.stack([x_camera, y_camera, minus_one, -minus_one], dim=1)
    points_world = torch.bmm(cam2world, points_camera)[:, :3].transpose(1, 2)
    origins = cam2world[:, None, :3, 3].expand_as(points_world)
    centre_distance = invert_rigid(cam2world)[:, 2, 3].abs()
    return Rays(origins, normalize(points_world - origins, dim=2), centre_distance)
