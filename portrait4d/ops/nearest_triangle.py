"""Nearest triangle of a mesh for each point, with the reference's distance and one tie rule on every device.

Contract (`deformation.md` section 1; PyTorch3D's point-to-face distance): the squared distance to a triangle is the one
to its plane only where the foot of the perpendicular lies inside and the triangle's area is at least 5e-3; for smaller
triangles, which are practically all of a head mesh, it is the distance to the nearest *edge*. Neighbours share
edges, so exactly equal minima are the normal case: **the last triangle index among equal minima wins**. Everything is
float32, rounded after every operation, each edge in its own direction (v0 to v1, v0 to v2, v1 to v2).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.ops.backend import native_serves

MIN_AREA = 5e-3
_EDGES = ((0, 1), (0, 2), (1, 2))
_PAIRS_PER_CHUNK = 1 << 22


class NearestTriangle(NamedTuple):
    """`squared_distance` (B, P) float32 and `index` (B, P) int64 into the triangles of the same batch item."""

    squared_distance: Tensor
    index: Tensor


def nearest_triangle(points: Tensor, triangles: Tensor) -> NearestTriangle:
    """Find the nearest triangle of each point.

    Args:
        points: (B, P, 3) float32, finite.
        triangles: (B, T, 3 corners, 3) float32, finite, T >= 1.

    Returns:
        Squared distances and triangle indices, see the module's contract. Not differentiable.

    Raises:
        ValueError: on other shapes or dtypes.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points: expected shape (B, P, 3), got {tuple(points.shape)}")
    if triangles.ndim != 4 or triangles.shape[2:] != (3, 3) or triangles.shape[1] < 1:
        raise ValueError(f"triangles: expected shape (B, T >= 1, 3, 3), got {tuple(triangles.shape)}")
    if points.shape[0] != triangles.shape[0]:
        raise ValueError(
            f"points and triangles: expected one batch size, got {points.shape[0]} and {triangles.shape[0]}"
        )
    if points.dtype != torch.float32 or triangles.dtype != torch.float32:
        raise ValueError(f"points and triangles: expected float32, got {points.dtype} and {triangles.dtype}")
    with torch.no_grad():
        if native_serves(points, triangles):
            return NearestTriangle(*torch.ops.portrait4d.nearest_triangle(points, triangles))
        return nearest_triangle_reference(points, triangles)


def nearest_triangle_reference(points: Tensor, triangles: Tensor) -> NearestTriangle:
    """Do the same in PyTorch."""
    results = [_search_one_mesh(p, t) for p, t in zip(points, triangles, strict=True)]
    if not results:
        empty = points.new_empty(points.shape[:2])
        return NearestTriangle(empty, empty.long())
    return NearestTriangle(torch.stack([r[0] for r in results]), torch.stack([r[1] for r in results]))


def _search_one_mesh(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Let bounding spheres rule out most pairs, and evaluate the rest exactly."""
    centres = triangles.mean(dim=1)
    radii = (triangles - centres[:, None]).norm(dim=2).amax(dim=1)
    distances, indices = [], []
    step = max(1, _PAIRS_PER_CHUNK // len(triangles))
    for chunk in points.split(step) if len(points) else [points]:
        distance, index = _nearest_of_candidates(chunk, triangles, centres, radii)
        distances.append(distance)
        indices.append(index)
    return torch.cat(distances), torch.cat(indices)


def _nearest_of_candidates(points: Tensor, triangles: Tensor, centres: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(points), device=points.device)
    to_centre = _distances(points, centres)
    bound = triangle_squared_distance(points, triangles[to_centre.argmin(dim=1)]).sqrt()
    # The margin is far above float32 rounding at head-model scale, so no triangle that could win or tie is lost.
    candidate = to_centre - radii <= (bound * 1.0001 + 1e-5)[:, None]
    row, triangle = candidate.nonzero(as_tuple=True)
    squared = triangle_squared_distance(points[row], triangles[triangle])
    best = torch.full_like(rows, torch.inf, dtype=points.dtype).scatter_reduce_(0, row, squared, "amin")
    winners = torch.where(squared == best[row], triangle, -1)
    return best, torch.full_like(rows, -1).scatter_reduce_(0, row, winners, "amax")


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    squared = torch.zeros(len(points), len(centres), dtype=points.dtype, device=points.device)
    for axis in range(3):
        squared += (points[:, None, axis] - centres[None, :, axis]).square_()
    return squared.sqrt_()


def triangle_squared_distance(points: Tensor, triangles: Tensor) -> Tensor:
    """Return the contract's squared distance (N,) of points (N, 3) to triangles (N, 3 corners, 3), pair by pair."""
    corners = [[triangles[:, k, axis] for axis in range(3)] for k in range(3)]
    point = [points[:, axis] for axis in range(3)]
    squared = None
    for start, end in _EDGES:
        distance = _edge_squared_distance(point, corners[start], corners[end])
        squared = distance if squared is None else torch.minimum(squared, distance)
    return _over_large_faces(points, triangles, squared)


def _edge_squared_distance(point: list[Tensor], start: list[Tensor], end: list[Tensor]) -> Tensor:
    w = [e - s for e, s in zip(end, start, strict=True)]
    offset = [p - s for p, s in zip(point, start, strict=True)]
    length = _dot(w, w)
    position = (_dot(w, offset) / length).clamp(0, 1)
    position = torch.where(length < 1e-8, 0.0, position)  # a degenerate edge is a point
    away = [p - (s + position * x) for p, s, x in zip(point, start, w, strict=True)]
    return _dot(away, away)


def _over_large_faces(points: Tensor, triangles: Tensor, squared: Tensor) -> Tensor:
    """Replace the edge distance by the plane distance above the inside of triangles of at least MIN_AREA."""
    v0, v1, v2 = triangles.unbind(1)
    normal = torch.linalg.cross(v2 - v0, v1 - v0)
    length = normal.norm(dim=1)
    large = (length / 2 >= MIN_AREA).nonzero().squeeze(1)
    if len(large) == 0:
        return squared
    v0, v1, v2, q = v0[large], v1[large], v2[large], points[large]
    unit = normal[large] / (length[large, None] + 1e-8)
    t = ((v0 - q) * unit).sum(1)
    foot = q + t[:, None] * unit
    a, b, w = v1 - v0, v2 - v0, foot - v0
    aa, ab, bb, aw, bw = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1), (a * w).sum(1), (b * w).sum(1)
    denominator = aa * bb - ab * ab + 1e-8
    w1 = (bb * aw - ab * bw) / denominator
    w2 = (aa * bw - ab * aw) / denominator
    w0 = 1 - w1 - w2
    inside = (w0 >= 0) & (w0 <= 1) & (w1 >= 0) & (w1 <= 1) & (w2 >= 0) & (w2 <= 1)
    return squared.index_put((large,), torch.where(inside, t * t, squared[large]))


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
