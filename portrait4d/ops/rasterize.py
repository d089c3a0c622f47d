"""Triangle rasteriser for square pictures, with the reference's coverage, depth and one tie rule on every device.

Contract (`cameras-and-rasterisation.md` sections 4 and 7). Row i, column j of an S-pixel picture is sampled at its
centre, a = (2 j + 1) / S - 1 to the right and b = 1 - (2 i + 1) / S upwards. A vertex (x, y, z) lies at
(s x / depth, s y / depth), s = 1 / tan(fov / 2), depth = -z (perspective), or at (scale x, scale y), depth = z
(orthographic). A pixel is covered where all three barycentrics are **strictly** positive, so a centre exactly on an
edge belongs to neither neighbour. The lowest depth wins, among equal depths the lowest face index. Front faces are
counter-clockwise in the picture. Perspective faces are clipped at depth 0.05; after that, faces with a corner at depth
below 1e-8 and faces of no more than 1e-8 (twice the area in (a, b)) are dropped, as are faces that are not finite.

Everything is float32, rounded after every operation, so a CPU and a GPU agree bit for bit. Each face is tested against
all pixels of its bounding box; these pairs are enumerated in chunks, which bounds memory whatever the faces' sizes.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.ops.backend import native_serves

NEAR_DEPTH = 0.05
"""Depth at which perspective faces are clipped."""

_MIN_DEPTH = 1e-8
_MIN_AREA = 1e-8
_PAIRS_PER_CHUNK = 1 << 18
_NOTHING = torch.iinfo(torch.int64).max
_INDEX_BITS = 32


class Fragments(NamedTuple):
    """What each pixel shows; B pictures of S x S pixels. Not differentiable.

    Attributes:
        face_index: (B, S, S) int64 into the faces, -1 where there is none.
        barycentrics: (B, S, S, 3) float32 weights of the face's corners, perspective-corrected, 0 where there is none.
        depth: (B, S, S) float32, distance along the view axis in the units of the vertices, 0 where there is none.
    """

    face_index: Tensor
    barycentrics: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Covered pixels, (B, 1, S, S) float32, 0 or 1."""
        return (self.face_index >= 0).float()[:, None]


def rasterize_perspective(
    points_camera: Tensor, faces: Tensor, size: int, fov_deg: float, cull_backfaces: bool = True
) -> Fragments:
    """Rasterise meshes seen by a pinhole camera whose principal point is the picture's centre.

    Args:
        points_camera: (B, V, 3) float32, vertices in camera axes: x right, y up, the camera looks along -z.
        faces: (T, 3) int64 vertex indices, shared by the batch.
        size: S, pixels per side.
        fov_deg: full field of view in degrees, between 0 and 180.
        cull_backfaces: whether faces that are clockwise in the picture are left out.

    Raises:
        ValueError: on other shapes or dtypes, or values out of range.
    """
    _check_mesh("points_camera", points_camera, faces, size)
    if not 0 < fov_deg < 180:
        raise ValueError(f"fov_deg: expected a number between 0 and 180, got {fov_deg}")
    with torch.no_grad():
        focal = 1 / math.tan(math.radians(fov_deg) / 2)
        seen = torch.cat([points_camera[..., :2], -points_camera[..., 2:]], dim=-1)
        triangles = _clip(_gather_triangles(seen, faces))
        x, y, z = triangles.corners
        triangles = triangles._replace(corners=torch.stack([-(x * focal / z), y * focal / z, z]))
        return _rasterize(triangles, len(points_camera), size, cull_backfaces, perspective=True)


def rasterize_orthographic(
    points: Tensor, faces: Tensor, size: int, scale: float, cull_backfaces: bool = True
) -> Fragments:
    """Rasterise meshes along parallel rays, **rows upwards**: row i shows scale y = (2 i + 1) / S - 1.

    Depth is z, and only faces wholly at z >= 1e-8 are drawn: of a mesh around the origin one sees, among the faces
    whose normal points to +z, those nearest to the plane z = 0 (`cameras-and-rasterisation.md` section 7).

    Args:
        points: (B, V, 3) float32.
        faces: (T, 3) int64 vertex indices, shared by the batch.
        size: S, pixels per side.
        scale: factor from the points' units to half pictures.
        cull_backfaces: whether faces whose normal points to -z are left out.

    Raises:
        ValueError: on other shapes or dtypes.
    """
    _check_mesh("points", points, faces, size)
    with torch.no_grad():
        triangles = _gather_triangles(points * points.new_tensor([-scale, scale, 1]), faces)
        fragments = _rasterize(triangles, len(points), size, cull_backfaces, perspective=False)
        return Fragments(*(image.flip(1) for image in fragments))


def interpolate_vertices(fragments: Fragments, faces: Tensor, features: Tensor) -> Tensor:
    """Interpolate vertex features over a rasterised mesh: sum_k barycentric_k * feature of corner k, 0 elsewhere.

    Args:
        fragments: of B pictures of S x S pixels.
        faces: (T, 3) int64, the faces that were rasterised.
        features: (B, V, C) floating.

    Returns:
        (B, C, S, S) of the features' type, differentiable with respect to the features.

    Raises:
        ValueError: on another batch size or number of axes.
    """
    if features.ndim != 3 or len(features) != len(fragments.face_index):
        raise ValueError(f"features: expected shape ({len(fragments.face_index)}, V, C), got {tuple(features.shape)}")
    batch, row, column = (fragments.face_index >= 0).nonzero(as_tuple=True)
    corners = faces[fragments.face_index[batch, row, column]]
    weights = fragments.barycentrics[batch, row, column].to(features.dtype)
    values = sum(weights[:, k, None] * features[batch, corners[:, k]] for k in range(3))
    image = features.new_zeros(*fragments.face_index.shape, features.shape[2])
    return image.index_put((batch, row, column), values).permute(0, 3, 1, 2).contiguous()


class _Triangles(NamedTuple):
    """M triangles in ascending order of picture, then face.

    `corners` (3 coordinates, 3 corners, M): NDC x leftwards, NDC y upwards, depth. `picture` and `face` (M,). `parts`
    (M, 3, 3): barycentrics of the corners in their face where clipping cut it, None where nothing was cut.
    """

    corners: Tensor
    picture: Tensor
    face: Tensor
    parts: Tensor | None = None

    def select(self, index: Tensor) -> "_Triangles":
        """Return the triangles of an index list or mask."""
        parts = None if self.parts is None else self.parts[index]
        return _Triangles(self.corners[:, :, index], self.picture[index], self.face[index], parts)


def _check_mesh(name: str, points: Tensor, faces: Tensor, size: int) -> None:
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype != torch.float32:
        raise ValueError(f"{name}: expected float32 of shape (B, V, 3), got {points.dtype} {tuple(points.shape)}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise ValueError(f"faces: expected int64 of shape (T, 3), got {faces.dtype} {tuple(faces.shape)}")
    if size < 1:
        raise ValueError(f"size: expected at least 1 pixel, got {size}")


def _gather_triangles(points: Tensor, faces: Tensor) -> _Triangles:
    corners = points[:, faces].permute(3, 2, 0, 1).flatten(2)
    picture = torch.arange(len(points), device=points.device).repeat_interleave(len(faces))
    return _Triangles(corners, picture, torch.arange(len(faces), device=points.device).repeat(len(points)))


def _clip(triangles: _Triangles) -> _Triangles:
    """Cut off what lies nearer than NEAR_DEPTH; corners hold coordinates before the division by depth."""
    behind = (triangles.corners[2] < NEAR_DEPTH).sum(0)
    if not bool(behind.any()):
        return triangles
    pieces = [_whole(triangles.select(behind == 0))]
    cut_one, cut_two = triangles.select(behind == 1), triangles.select(behind == 2)
    # One corner behind (number 0 after turning): the quadrilateral is two triangles. Two behind: one triangle is left.
    pieces += [_cut(cut_one, True, keep) for keep in (((0, 1), (1, 1), (2, 2)), ((0, 1), (2, 2), (2, 0)))]
    pieces.append(_cut(cut_two, False, ((0, 0), (0, 1), (2, 0))))
    corners = torch.cat([piece.corners for piece in pieces], dim=2)
    picture, face, parts = (torch.cat(lists) for lists in zip(*(piece[1:] for piece in pieces), strict=True))
    order = torch.argsort(picture * (int(face.max()) + 1 if len(face) else 1) + face, stable=True)
    return _Triangles(corners, picture, face, parts).select(order)


def _whole(triangles: _Triangles) -> _Triangles:
    return triangles._replace(parts=torch.eye(3, device=triangles.corners.device).expand(len(triangles.face), 3, 3))


def _cut(triangles: _Triangles, odd_is_behind: bool, ends: tuple[tuple[int, int], ...]) -> _Triangles:
    """Build one piece of each triangle; corner 0 is the odd one out, and a piece's corner lies on the edge `ends`."""
    behind = triangles.corners[2] < NEAR_DEPTH
    odd = (behind == odd_is_behind).int().argmax(0)
    turned = (odd + torch.arange(3, device=odd.device)[:, None]) % 3  # (corner, M): original number of each corner
    corners = triangles.corners.gather(1, turned.expand(3, -1, -1))
    cut = corners.new_zeros(corners.shape)
    parts = corners.new_zeros(len(triangles.face), 3, 3)
    for k, (start, end) in enumerate(ends):
        share = torch.zeros_like(corners[2, 0])
        if start != end:
            share = (NEAR_DEPTH - corners[2, start]) / (corners[2, end] - corners[2, start])
        cut[:, k] = corners[:, start] + share * (corners[:, end] - corners[:, start])
        parts[:, k].scatter_add_(1, turned[start, :, None], 1 - share[:, None])
        parts[:, k].scatter_add_(1, turned[end, :, None], share[:, None])
    return triangles._replace(corners=cut, parts=parts)


def _rasterize(triangles: _Triangles, pictures: int, size: int, cull_backfaces: bool, perspective: bool) -> Fragments:
    triangles = triangles.select(_drawable(triangles.corners, cull_backfaces).nonzero()[:, 0])
    centres = _pixel_centres(size, triangles.corners.device)
    if native_serves(triangles.corners, centres):
        visible = torch.ops.portrait4d.rasterize(triangles.corners, triangles.picture, centres, pictures, perspective)
    else:
        visible = _find_visible(triangles, centres, pictures, perspective)
    index, weights, depth = visible
    face_index = torch.cat([triangles.face, triangles.face.new_full((1,), -1)])[index]  # number -1 is the last
    if triangles.parts is not None:
        row, pixel = index.view(-1), (index.view(-1) >= 0).nonzero()[:, 0]
        parts = triangles.parts[row[pixel]]
        whole = sum(weights.view(-1, 3)[pixel, k, None] * parts[:, k] for k in range(3))
        weights = torch.zeros_like(weights).view(-1, 3).index_put_((pixel,), whole).view_as(weights)
    return Fragments(face_index, weights, depth)


@functools.cache
def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return the centres (S,) of a row's pixels in NDC, ascending. Divided on the CPU: a GPU multiplies by 1 / S."""
    return ((2 * torch.arange(size) + 1 - size).float() / size).to(device)


def _find_visible(
    triangles: _Triangles, centres: Tensor, pictures: int, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pixel's triangle, barycentrics and depth, each (pictures, S, S, ...); -1 and 0 for none."""
    size = len(centres)
    nearest = torch.full((pictures * size * size,), _NOTHING, device=centres.device)
    for triangle, row, column in _pairs(triangles.corners, centres):
        # row by row: one index_select along the last axis of (3, 3, M) is ten times slower on a CPU
        corners = [[coordinate.index_select(0, triangle) for coordinate in axis] for axis in triangles.corners]
        weights, depth = _shade(corners, -centres[column], -centres[row], perspective)
        covered = ((weights > 0).all(0) & (depth >= 0)).nonzero()[:, 0]
        triangle, row, column = triangle[covered], row[covered], column[covered]
        # Floats that are not negative sort like their bits: one integer holds depth, then order of the faces.
        bits = (depth[covered] + 0.0).view(torch.int32).long()
        pixel = (triangles.picture[triangle] * size + row) * size + column
        nearest.scatter_reduce_(0, pixel, bits << _INDEX_BITS | triangle, "amin")
    pixel = (nearest != _NOTHING).nonzero()[:, 0]
    seen = nearest[pixel] & ((1 << _INDEX_BITS) - 1)
    corners = triangles.corners[:, :, seen]
    weights, depth = _shade(corners, -centres[pixel % size], -centres[pixel // size % size], perspective)
    shape = (pictures, size, size)
    index = torch.full_like(nearest, -1).index_put_((pixel,), seen)
    barycentrics = weights.new_zeros(len(nearest), 3).index_put_((pixel,), weights.T)
    depths = depth.new_zeros(len(nearest)).index_put_((pixel,), depth)
    return index.view(shape), barycentrics.view(*shape, 3), depths.view(shape)


def _drawable(corners: Tensor, cull_backfaces: bool) -> Tensor:
    x, y, z = corners
    area = _edge(x[0], y[0], x[1], y[1], x[2], y[2])
    large = area > _MIN_AREA if cull_backfaces else area.abs() > _MIN_AREA
    return large & (z.amin(0) >= _MIN_DEPTH) & corners.isfinite().all(0).all(0)


def _pairs(corners: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield triangle, row and column of the pixels in the triangles' closed bounding boxes, a chunk at a time."""
    first_column, columns = _covered_range(-corners[0], centres)
    first_row, rows = _covered_range(-corners[1], centres)
    counts = rows * columns
    ends = counts.cumsum(0)
    starts = ends - counts
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, _PAIRS_PER_CHUNK):
        pair = torch.arange(begin, min(begin + _PAIRS_PER_CHUNK, total), device=ends.device)
        low, high = torch.searchsorted(ends, pair[[0, -1]], right=True).tolist()
        shares = ends[low : high + 1].clamp_max(begin + len(pair)) - starts[low : high + 1].clamp_min(begin)
        triangle = torch.arange(low, high + 1, device=ends.device).repeat_interleave(shares, output_size=len(pair))
        local, width = pair - starts[triangle], columns[triangle]
        row = local // width
        yield triangle, first_row[triangle] + row, first_column[triangle] + local - row * width


def _covered_range(positions: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index and the number of ascending centres within the closed range of positions (3, M)."""
    low, high = positions.amin(0), positions.amax(0)
    first = torch.searchsorted(centres, low)
    return first, torch.searchsorted(centres, high, right=True) - first


def _shade(corners: Tensor | list[list[Tensor]], x: Tensor, y: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Return barycentrics (3, N) and depths (N,) at the points x, y (N,) of triangles (3 coordinates, 3 corners, N)."""
    (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = corners
    area = _edge(x2, y2, x0, y0, x1, y1) + 1e-8
    w0 = _edge(x, y, x1, y1, x2, y2) / area
    w1 = _edge(x, y, x2, y2, x0, y0) / area
    w2 = _edge(x, y, x0, y0, x1, y1) / area
    if perspective:
        w0, w1, w2 = w0 * z1 * z2, w1 * z0 * z2, w2 * z0 * z1
        total = (w0 + w1 + w2).clamp_min(1e-8)
        w0, w1, w2 = w0 / total, w1 / total, w2 / total
    return torch.stack([w0, w1, w2]), w0 * z0 + w1 * z1 + w2 * z2


def _edge(px: Tensor, py: Tensor, ux: Tensor, uy: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """Return E(p; u, w), twice the signed area of the triangle p, u, w."""
    return (px - ux) * (wy - uy) - (py - uy) * (wx - ux)
