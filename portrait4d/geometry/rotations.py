"""Rotations: axis-angle vectors in radians, 3x3 matrices acting on column vectors, right-handed."""

import torch
from torch import Tensor


def axis_angle_to_matrix(axis_angle_rad: Tensor) -> Tensor:
    """Convert axis-angle vectors to rotation matrices by Rodrigues' formula.

    The angle is regularised as in the reference, angle = |r + 1e-8|, axis = r / angle (`flame.md` section 3, step 3),
    because the last bit of a rotation decides ties of the head-pose field; r = 0 gives the identity.

    Args:
        axis_angle_rad: (..., 3), radians.

    Returns:
        (..., 3, 3) rotation matrices of the same dtype.
    """
    vectors = axis_angle_rad.reshape(-1, 3)
    angle = torch.norm(vectors + 1e-8, dim=1, keepdim=True)
    x, y, z = (vectors / angle).unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    sine, cosine = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    rotation = identity + sine * skew + (1 - cosine) * torch.bmm(skew, skew)
    return rotation.view(*axis_angle_rad.shape[:-1], 3, 3)


def rotation_about_y(angle_rad: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) by `angle_rad` (...) about +y; positive turns +z towards +x."""
    return axis_angle_to_matrix(angle_rad[..., None] * angle_rad.new_tensor([0.0, 1.0, 0.0]))


def rotation_about_x(angle_rad: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) by `angle_rad` (...) about +x; positive turns +y towards +z."""
    return axis_angle_to_matrix(angle_rad[..., None] * angle_rad.new_tensor([1.0, 0.0, 0.0]))
