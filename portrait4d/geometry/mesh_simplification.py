"""Coarse mesh that follows a fine one: quadric-error edge collapse, then each coarse vertex tied to a fine triangle.

Every edge has a cost: the sum of squared distances of its merged vertex to the planes of the triangles that went into
it, weighted by area, plus a little of the distance to the vertices that went into it, which keeps flat parts evenly
meshed and every optimum unique. The cheapest edge collapses first. Open boundaries keep all their vertices and edges,
components and holes stay, no triangle turns over. Decisions use scalar float64 arithmetic in a fixed order and break
ties by vertex number, so every machine builds the same mesh from the same numbers.

Source: `flame.md` section 8, "Own regeneration"; the published coarse mesh differs in detail.
"""

import heapq
from math import sqrt
from operator import add
from typing import NamedTuple

import numpy as np
import torch

from portrait4d.geometry.meshes import plane_barycentrics

COARSE_FACE_SHARE = 0.14
"""Faces of the published coarse mesh relative to FLAME's."""

_POINT_WEIGHT = 1e-3  # of the distance to merged vertices, relative to the distance to planes
_MIN_NORMAL_COSINE = 0.2  # a triangle may turn by at most 78 degrees in one collapse
_MIN_COMPACTNESS = 0.1  # 1 for equilateral triangles, 0 for needles
_EXTENT = 1000.0  # meshes are scaled to this size, far above the thresholds of `plane_barycentrics`
_MIN_AREA = 1e-6  # weight of faces without area, at that size
_EQUAL = 1e-6  # distances this close count as equal, at that size

Point = tuple[float, float, float]


class CoarseMesh(NamedTuple):
    """A coarse mesh in terms of a fine one.

    Vertex n is sum_k barycentrics[n, k] * fine vertex indices[n, k], in any pose.

    Attributes:
        indices: (N, 3) int64, the vertices of one fine face.
        barycentrics: (N, 3) float32, sum 1, not clamped to [0, 1].
        faces: (T, 3) int64, oriented as the fine faces.
    """

    indices: np.ndarray
    barycentrics: np.ndarray
    faces: np.ndarray


def simplify_mesh(vertices: np.ndarray, faces: np.ndarray, face_share: float = COARSE_FACE_SHARE) -> CoarseMesh:
    """Simplify a mesh to about `face_share` of its faces, or as far as its boundaries and components allow.

    Args:
        vertices: (V, 3), any unit, finite. Those without faces are left out.
        faces: (F, 3) vertex indices, consistently oriented. Edges of more than two faces are kept like boundaries.
        face_share: 0 < share <= 1.

    Raises:
        ValueError: on other shapes or numbers.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"vertices: expected finite coordinates (V, 3), got shape {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise ValueError(f"faces: expected shape (F >= 1, 3), got {faces.shape}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"faces: expected indices below {len(vertices)}, got {faces.min()} to {faces.max()}")
    if not 0 < face_share <= 1:
        raise ValueError(f"face_share: expected a number above 0, at most 1, got {face_share}")
    extent = float(np.ptp(vertices.astype(np.float64), axis=0).max())
    scaled = vertices.astype(np.float64) * (_EXTENT / extent if extent else 1.0)
    mesh = _CollapsingMesh(scaled, faces)
    mesh.collapse(round(face_share * len(faces)))
    kept = [vertex for vertex, around in enumerate(mesh.faces_of) if around]
    new_index = np.full(len(vertices), -1)
    new_index[kept] = np.arange(len(kept))
    coarse_faces = new_index[np.array([face for face in mesh.faces if face is not None])]
    positions = np.array([mesh.positions[vertex] for vertex in kept])
    closest, barycentrics = _tie_to_triangles(positions, [mesh.merged[v] for v in kept], scaled[faces], faces)
    return CoarseMesh(faces[closest].astype(np.int64), barycentrics, coarse_faces)


class _Quadric(NamedTuple):
    """x -> x^T A x + 2 b^T x + c with A = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]."""

    xx: float = 0.0
    xy: float = 0.0
    xz: float = 0.0
    yy: float = 0.0
    yz: float = 0.0
    zz: float = 0.0
    bx: float = 0.0
    by: float = 0.0
    bz: float = 0.0
    c: float = 0.0

    def plus(self, other: "_Quadric") -> "_Quadric":
        return _Quadric(*map(add, self, other))

    def at(self, point: Point) -> float:
        x, y, z = point
        row_x = self.xx * x + self.xy * y + self.xz * z + 2 * self.bx
        row_y = self.xy * x + self.yy * y + self.yz * z + 2 * self.by
        row_z = self.xz * x + self.yz * y + self.zz * z + 2 * self.bz
        return x * row_x + y * row_y + z * row_z + self.c

    def minimum(self) -> Point:
        """Solve A x = -b by Cramer's rule; the point terms make A definite."""
        minor_x = self.yy * self.zz - self.yz * self.yz
        minor_y = self.xz * self.yz - self.xy * self.zz
        minor_z = self.xy * self.yz - self.xz * self.yy
        scale = -1 / (self.xx * minor_x + self.xy * minor_y + self.xz * minor_z)
        minor_yy = self.xx * self.zz - self.xz * self.xz
        minor_yz = self.xy * self.xz - self.xx * self.yz
        minor_zz = self.xx * self.yy - self.xy * self.xy
        return (
            scale * (minor_x * self.bx + minor_y * self.by + minor_z * self.bz),
            scale * (minor_y * self.bx + minor_yy * self.by + minor_yz * self.bz),
            scale * (minor_z * self.bx + minor_yz * self.by + minor_zz * self.bz),
        )


def _face_quadric(normal: Point, corner: Point) -> _Quadric:
    """Return area * squared distance to the plane, for the doubled area vector `normal`."""
    length = sqrt(_dot(normal, normal))
    if length == 0:
        return _Quadric()
    x, y, z = normal
    s = 0.5 / length
    d = -_dot(normal, corner)
    return _Quadric(
        s * x * x, s * x * y, s * x * z, s * y * y, s * y * z, s * z * z, s * x * d, s * y * d, s * z * d, s * d * d
    )


def _point_quadric(point: Point, weight: float) -> _Quadric:
    x, y, z = point
    offset = weight * (x * x + y * y + z * z)
    return _Quadric(weight, 0, 0, weight, 0, weight, -weight * x, -weight * y, -weight * z, offset)


class _CollapsingMesh:
    """A mesh under edge collapse. Dead vertices have no faces, dead faces are None."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.positions: list[Point] = [tuple(row) for row in vertices.tolist()]
        self.faces: list[tuple[int, int, int] | None] = [tuple(row) for row in faces.tolist()]
        self.face_count = len(self.faces)
        self.merged = [[vertex] for vertex in range(len(vertices))]
        self.stamp = [0] * len(vertices)
        self.faces_of: list[set[int]] = [set() for _ in self.positions]
        self.quadrics = [_Quadric() for _ in self.positions]
        for number, face in enumerate(self.faces):
            corners = [self.positions[vertex] for vertex in face]
            normal = _normal(*corners)
            quadric = _face_quadric(normal, corners[0])
            weight = _POINT_WEIGHT * max(sqrt(_dot(normal, normal)) / 2, _MIN_AREA)
            for vertex, corner in zip(face, corners, strict=True):
                self.faces_of[vertex].add(number)
                own = quadric.plus(_point_quadric(corner, weight))
                self.quadrics[vertex] = self.quadrics[vertex].plus(own)
        self.locked = [self._is_irregular(vertex) for vertex in range(len(vertices))]
        self.queue: list[tuple[float, int, int, int, int]] = []

    def _is_irregular(self, vertex: int) -> bool:
        """Whether an edge of the vertex has not exactly two faces: boundaries stay, and so does what is no surface."""
        return any(len(self.faces_of[vertex] & self.faces_of[other]) != 2 for other in self.neighbours(vertex))

    def neighbours(self, vertex: int) -> list[int]:
        """Return the vertices that share a face with one, ascending."""
        return sorted({other for face in self.faces_of[vertex] for other in self.faces[face]} - {vertex})

    def collapse(self, face_limit: int) -> None:
        """Collapse edges, the cheapest first, until at most `face_limit` faces are left or no edge may collapse."""
        progress = True
        while progress and self.face_count > face_limit:
            progress = False  # edges refused earlier may have become possible: go round again
            for vertex in range(len(self.positions)):
                self._queue_edges(vertex, above=vertex)
            while self.queue and self.face_count > face_limit:
                _, first, second, first_stamp, second_stamp = heapq.heappop(self.queue)
                if self.stamp[first] != first_stamp or self.stamp[second] != second_stamp:
                    continue
                kept, lost = (second, first) if self.locked[second] else (first, second)
                place = self._place(kept, lost)
                if self._may_collapse(kept, lost, place):
                    self._merge(kept, lost, place)
                    self._queue_edges(kept, above=-1)
                    progress = True
            self.queue.clear()

    def _queue_edges(self, vertex: int, above: int) -> None:
        for other in self.neighbours(vertex):
            if other <= above or (self.locked[vertex] and self.locked[other]):
                continue
            first, second = min(vertex, other), max(vertex, other)
            kept, lost = (second, first) if self.locked[second] else (first, second)
            cost = self.quadrics[first].plus(self.quadrics[second]).at(self._place(kept, lost))
            heapq.heappush(self.queue, (cost, first, second, self.stamp[first], self.stamp[second]))

    def _place(self, kept: int, lost: int) -> Point:
        """Return where the merged vertex goes: the cheapest point, or where the kept vertex is locked."""
        if self.locked[kept]:
            return self.positions[kept]
        return self.quadrics[kept].plus(self.quadrics[lost]).minimum()

    def _may_collapse(self, kept: int, lost: int, place: Point) -> bool:
        shared = self.faces_of[kept] & self.faces_of[lost]
        opposite = {vertex for face in shared for vertex in self.faces[face]} - {kept, lost}
        common = set(self.neighbours(kept)) & set(self.neighbours(lost))
        if len(shared) != 2 or common != opposite or len(opposite) != 2:
            return False  # would close a hole, pinch a neck, or tie two sheets together
        if any(len(self.faces_of[vertex]) <= 3 and not self.locked[vertex] for vertex in opposite):
            return False  # would fold two faces onto each other
        return all(
            self._stays_a_triangle(face, vertex, place)
            for vertex in (kept, lost)
            for face in sorted(self.faces_of[vertex] - shared)
        )

    def _stays_a_triangle(self, face: int, moved: int, place: Point) -> bool:
        """Whether a face with the vertex `moved` put elsewhere keeps its side and does not become a needle."""
        before = [self.positions[vertex] for vertex in self.faces[face]]
        after = [place if vertex == moved else self.positions[vertex] for vertex in self.faces[face]]
        old, new = _normal(*before), _normal(*after)
        if _dot(old, new) < _MIN_NORMAL_COSINE * sqrt(_dot(old, old) * _dot(new, new)):
            return False
        return _compactness(after, new) >= min(_MIN_COMPACTNESS, _compactness(before, old))

    def _merge(self, kept: int, lost: int, place: Point) -> None:
        for face in self.faces_of[kept] & self.faces_of[lost]:
            for vertex in self.faces[face]:
                self.faces_of[vertex].discard(face)
            self.faces[face] = None
            self.face_count -= 1
        for face in self.faces_of[lost]:
            self.faces[face] = tuple(kept if vertex == lost else vertex for vertex in self.faces[face])
        self.faces_of[kept] |= self.faces_of[lost]
        self.faces_of[lost] = set()
        self.positions[kept] = place
        self.quadrics[kept] = self.quadrics[kept].plus(self.quadrics[lost])
        self.merged[kept] += self.merged[lost]
        self.stamp[kept] += 1
        self.stamp[lost] += 1


def _normal(first: Point, second: Point, third: Point) -> Point:
    """Return (second - first) x (third - first), twice the area long."""
    ax, ay, az = second[0] - first[0], second[1] - first[1], second[2] - first[2]
    bx, by, bz = third[0] - first[0], third[1] - first[1], third[2] - first[2]
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _compactness(corners: list[Point], normal: Point) -> float:
    """Return 4 sqrt(3) area / sum of squared edge lengths: 1 for an equilateral triangle."""
    squares = 0.0
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = [e - s for e, s in zip(corners[end], corners[start], strict=True)]
        squares += edge[0] * edge[0] + edge[1] * edge[1] + edge[2] * edge[2]
    return 2 * sqrt(3) * sqrt(_dot(normal, normal)) / squares if squares else 0.0


def _tie_to_triangles(
    positions: np.ndarray, merged: list[list[int]], triangles: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the closest fine triangle of each coarse vertex (N,) and its unclamped barycentrics there (N, 3).

    Candidates are the triangles around the fine vertices that were merged into it, so that a lip never follows the
    other lip nor an eyeball the lid in front of it, however close they are. The first of equally close ones wins.
    """
    around: dict[int, list[int]] = {}
    for number, face in enumerate(faces.tolist()):
        for vertex in face:
            around.setdefault(vertex, []).append(number)
    candidates = [sorted({face for vertex in group for face in around[vertex]}) for group in merged]
    row = np.repeat(np.arange(len(positions)), [len(group) for group in candidates])
    candidate = np.concatenate(candidates)
    distance = _triangle_distance(positions[row], triangles[candidate])
    order = np.lexsort((candidate, np.round(distance / _EQUAL), row))
    closest = candidate[order[np.searchsorted(row, np.arange(len(positions)))]]
    barycentrics = plane_barycentrics(torch.from_numpy(positions), torch.from_numpy(triangles[closest]))
    return closest, barycentrics.float().numpy()


def _triangle_distance(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the distances (n,) of points (n, 3) to triangles (n, 3 corners, 3), inside or edge."""
    inside = (plane_barycentrics(torch.from_numpy(points), torch.from_numpy(triangles)).numpy() >= 0).all(axis=1)
    first, second, third = triangles.transpose(1, 0, 2)
    normal = np.cross(second - first, third - first)
    height = np.abs(_dots(points - first, normal)) / np.maximum(np.sqrt(_dots(normal, normal)), 1e-300)
    distance = np.where(inside, height, np.inf)
    for start, end in ((first, second), (second, third), (third, first)):
        edge = end - start
        along = np.clip(_dots(points - start, edge) / np.maximum(_dots(edge, edge), 1e-300), 0, 1)
        away = points - (start + along[:, None] * edge)
        distance = np.minimum(distance, np.sqrt(_dots(away, away)))
    return distance


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]
