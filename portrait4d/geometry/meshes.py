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


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return unit vertex normals (B, V, 3), outwards, of vertices (B, V, 3) and faces (T, 3).

    The sum of (v2 - v1) x (v0 - v1) over incident faces, so large faces count more; a vertex without faces has normal 0
    (`cameras-and-rasterisation.md` section 5).
    """
    first, second, third = face_corners(vertices, faces).unbind(2)
    weighted = torch.linalg.cross(third - second, first - second)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner], weighted)
    return normalize(total, dim=-1, eps=1e-6)


def submesh_faces(faces: Tensor, vertex_indices: Tensor, vertex_count: int) -> Tensor:
    """Keep the faces whose corners all are listed, in file order, relabelled by position in the list (`flame.md` 6).

    Args:
        faces: (T, 3) int64.
        vertex_indices: (n,) int64; of a repeated index the last position counts.
        vertex_count: V, number of vertices of the whole mesh.

    Returns:
        (t, 3) int64 into `vertex_indices`.
    """
    places = torch.arange(len(vertex_indices), device=faces.device)
    position = torch.full((vertex_count,), -1, device=faces.device)
    position = position.scatter_reduce(0, vertex_indices, places, "amax")
    relabelled = position[faces]
    return relabelled[(relabelled >= 0).all(1)]


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
