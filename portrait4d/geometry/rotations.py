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


def axis_angle_derivatives(axis_angle_rad: Tensor) -> Tensor:
    """Return the derivatives (..., 3, 3, 3) of rotation matrices by their axis-angles (..., 3), which come last.

    dR / dr_i = (r_i [r]x + [r x (1 - R) e_i]x) R / |r|^2, and [e_i]x R where there is no rotation.

    Source: Gallego and Yezzi 2015, "A Compact Formula for the Derivative of a 3-D Rotation in Exponential Coordinates".
    """
    rotation = axis_angle_to_matrix(axis_angle_rad)
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    square = axis_angle_rad.square().sum(dim=-1)[..., None, None]
    moved = torch.linalg.cross(axis_angle_rad[..., None, :], (identity - rotation).mT, dim=-1)
    axes = axis_angle_rad[..., None] * axis_angle_rad[..., None, :] + moved
    axes = torch.where(square > 1e-10, axes / square.clamp_min(1e-10), identity)  # row i: about what r_i turns
    return torch.einsum("...ixy,...yz->...xzi", _cross_matrices(axes), rotation)


def _cross_matrices(vectors: Tensor) -> Tensor:
    """Return the matrices (..., 3, 3) that take points p to vectors x p."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_about_y(angle_rad: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) by `angle_rad` (...) about +y; positive turns +z towards +x."""
    return axis_angle_to_matrix(angle_rad[..., None] * angle_rad.new_tensor([0.0, 1.0, 0.0]))


def rotation_about_x(angle_rad: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) by `angle_rad` (...) about +x; positive turns +y towards +z."""
    return axis_angle_to_matrix(angle_rad[..., None] * angle_rad.new_tensor([1.0, 0.0, 0.0]))
