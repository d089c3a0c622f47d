"""Triangle meshes: faces are (T, 3) vertex indices, counter-clockwise seen from outside."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def face_corners(vertices: Tensor, faces: Tensor) -> Tensor:
    """Gather triangles (B, T, 3 corners, 3) of vertices (B, V, 3) and faces (T, 3)."""
    return vertices[:, faces]


def face_normals(triangles: Tensor) -> Tensor:
    """Return unit normals (..., 3) of triangles (..., 3 corners, 3): normalise((P2 - P1) x (P3 - P1))."""
    first, second, third = triangles.unbind(-2)
    return normalize(torch.linalg.cross(second - first, third - first), dim=-1, eps=1e-12)


def plane_barycentrics(points: Tensor, triangles: Tensor) -> Tensor:
    """Return barycentrics of the orthogonal projection of points on the triangles' planes, not clamped to [0, 1].

    Args:
        points: (..., 3).
        triangles: (..., 3 corners, 3), one for each point.

    Returns:
        (..., 3) weights of the corners in their order, sum 1 (`deformation.md` section 1, last formula).
    """
    first, second, third = triangles.unbind(-2)
    a, b, w = second - first, third - first, points - first
    aa, bb, ab = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
    aw, bw = (a * w).sum(-1), (b * w).sum(-1)
    denominator = (bb * aa - ab * ab).clamp_min(1e-12)
    third_weight = (aa * bw - ab * aw) / denominator
    second_weight = (bb * aw - ab * bw) / denominator
    return torch.stack([1 - second_weight - third_weight, second_weight, third_weight], dim=-1)


def interpolate_corners(barycentrics: Tensor, corners: Tensor) -> Tensor:
    """Return sum_k barycentrics[..., k] * corners[..., k, :], added in the order k = 0, 1, 2.

    The order is part of the contract: the last float32 bit of a coarse vertex decides ties of the head-pose field.
    """
    weighted = corners * barycentrics[..., None]
    return weighted[..., 0, :] + weighted[..., 1, :] + weighted[..., 2, :]
