"""Nearest vertex of a point set for each query point, exact in float32 and the same on every device.

Contract (`deformation.md` section 5, step 1): the squared distance is the float32 sum of the squared coordinate
differences in the order x, y, z, rounded after every operation (not |a|^2 + |b|^2 - 2 ab), and **the first vertex index
among equal minima wins**; equal values do occur, as eyeballs are symmetric.

On a GPU the native operation, or else the PyTorch reference, evaluates every pair. On the CPU a search tree in float64
finds the two nearest vertices; only where they are so close to each other that rounding could swap them is every pair
evaluated.
"""

from typing import NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from portrait4d.ops.backend import native_serves

_PAIRS_PER_CHUNK = 1 << 22
_PAIRS_PER_GPU_CHUNK = 1 << 26
_LEAF_SIZE = 24
_ROUNDING = 2e-6
"""Relative difference of squared distances beyond which float32 rounding (at most 6e-7) cannot change their order."""
_UNDERFLOW = 1e-30
"""Squared distances below this may lose digits to underflow, so their order is not trusted."""


class NearestVertex(NamedTuple):
    """`squared_distance` (B, P) float32 and `index` (B, P) int64 into the vertices of the same batch item."""

    squared_distance: Tensor
    index: Tensor


@torch.no_grad()
def nearest_vertex(points: Tensor, vertices: Tensor) -> NearestVertex:
    """Find the nearest vertex of each point.

    Args:
        points: (B, P, 3) float32, finite (which is checked on the CPU alone: asking a GPU would make it wait).
        vertices: (B, V, 3) float32, finite, V >= 1.

    Returns:
        Squared distances and vertex indices, see the module's contract. Not differentiable.

    Raises:
        ValueError: on other shapes, dtypes or numbers.
    """
    _check(points, vertices)
    if points.device.type != "cpu":
        if native_serves(points, vertices):
            return NearestVertex(*torch.ops.portrait4d.nearest_vertex(points, vertices))
        return nearest_vertex_reference(points, vertices)
    results = [_nearest_in_tree(p, v) for p, v in zip(points, vertices, strict=True)]
    if not results:
        empty = points.new_empty(points.shape[:2])
        return NearestVertex(empty, empty.long())
    return NearestVertex(torch.stack([r.squared_distance for r in results]), torch.stack([r.index for r in results]))


def nearest_vertex_reference(points: Tensor, vertices: Tensor) -> NearestVertex:
    """Evaluate every pair of points (..., P, 3) and vertices (..., V, 3), a bounded number of pairs at a time."""
    squared = points.new_empty(points.shape[:-1])
    index = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
    pairs_at_once = _PAIRS_PER_CHUNK if points.device.type == "cpu" else _PAIRS_PER_GPU_CHUNK
    step = max(1, pairs_at_once // max(vertices[..., 0].numel(), 1))
    for start in range(0, points.shape[-2], step):
        chunk = ..., slice(start, start + step)
        pairs = _squared_distance(points[..., start : start + step, None, :], vertices[..., None, :, :])
        index[chunk] = pairs.argmin(dim=-1)  # the first of equal minima, by PyTorch's contract
        squared[chunk] = pairs.gather(-1, index[chunk][..., None])[..., 0]
    return NearestVertex(squared, index)


def _nearest_in_tree(points: Tensor, vertices: Tensor) -> NearestVertex:
    if len(points) == 0 or len(vertices) == 1:
        return nearest_vertex_reference(points, vertices)
    tree = cKDTree(vertices.double().numpy(), leafsize=_LEAF_SIZE)
    found_distance, found = tree.query(points.double().numpy(), k=2, workers=torch.get_num_threads())
    first, second = torch.from_numpy(found_distance).square().unbind(1)
    index = torch.from_numpy(found)[:, 0].contiguous()
    squared = _squared_distance(points, vertices[index])
    unsure = (second <= first * (1 + _ROUNDING) + _UNDERFLOW).nonzero()[:, 0]
    squared[unsure], index[unsure] = nearest_vertex_reference(points[unsure], vertices)
    return NearestVertex(squared, index)


def _squared_distance(points: Tensor, vertices: Tensor) -> Tensor:
    """Return float32 squared distances (...) of points and vertices (..., 3), broadcast against each other."""
    squared = (points[..., 0] - vertices[..., 0]).square_()
    for axis in (1, 2):
        squared += (points[..., axis] - vertices[..., axis]).square_()
    return squared


def _check(points: Tensor, vertices: Tensor) -> None:
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points: expected shape (B, P, 3), got {tuple(points.shape)}")
    if vertices.ndim != 3 or vertices.shape[2] != 3 or vertices.shape[1] < 1:
        raise ValueError(f"vertices: expected shape (B, V >= 1, 3), got {tuple(vertices.shape)}")
    if points.shape[0] != vertices.shape[0]:
        raise ValueError(f"points and vertices: expected one batch size, got {points.shape[0]} and {vertices.shape[0]}")
    if points.dtype != torch.float32 or vertices.dtype != torch.float32:
        raise ValueError(f"points and vertices: expected float32, got {points.dtype} and {vertices.dtype}")
    for name, values in (("points", points), ("vertices", vertices)):
        if values.device.type == "cpu" and not torch.isfinite(values).all():
            raise ValueError(f"{name}: expected finite coordinates, got NaN or infinity")
