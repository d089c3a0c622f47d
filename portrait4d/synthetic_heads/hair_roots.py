"""Where hair grows on the open head: a fixed pool of points on its triangles, and regions of scalp, brows and beard.

Millimetres on the neutral head (`head_sculpt`).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from portrait4d.synthetic_heads.head_landmarks import brow_coordinate, brow_height
from portrait4d.synthetic_heads.head_mechanics import NECK_JOINT
from portrait4d.synthetic_heads.head_sculpt import smoothstep
from portrait4d.synthetic_heads.head_surface import vertex_normals
from portrait4d.synthetic_heads.head_template import MM, open_head_assets, open_head_extras

POOL = 150_000
_HAIRLINE_AZIMUTH = (0, 20, 34, 46, 56, 64, 71, 84, 104, 122, 180)
_HAIRLINE_HEIGHT = (71, 70, 66, 57, 40, 18, -12, 2, 6, -38, -66)


@dataclass(frozen=True)
class Roots:
    """Points on the head's triangles.

    Attributes:
        face: (N,) triangle.
        weights: (N, 3) barycentrics.
        points: (N, 3) on the neutral head, mm.
        normals: (N, 3).
    """

    face: np.ndarray
    weights: np.ndarray
    points: np.ndarray
    normals: np.ndarray

    def take(self, index: np.ndarray) -> "Roots":
        """Return the roots of an index list or mask."""
        return Roots(self.face[index], self.weights[index], self.points[index], self.normals[index])


@cache
def neutral_millimetres() -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (5023, 3) in mm and unit normals of the neutral head."""
    assets = open_head_assets()
    vertices = assets.template.astype(np.float64) / MM
    return vertices, vertex_normals(vertices, assets.faces)


@cache
def root_pool() -> Roots:
    """Return points spread evenly by area over the head's outer skin, in a shuffled order."""
    faces = open_head_assets().faces
    extras = open_head_extras()
    vertices, normals = neutral_millimetres()
    outer = (extras.lip_row[faces] >= 10).all(1) & (extras.lid_row[faces] >= 8).all(1)
    outer &= (extras.ear_row[faces] == 99).any(1) & (faces < 3931).all(1)
    kept = np.nonzero(outer)[0]
    a, b, c = (vertices[faces[kept, k]] for k in range(3))
    ends = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    number = np.arange(POOL)
    face = kept[np.searchsorted(ends, ends[-1] * ((number * 0.6180339887498949) % 1))]
    u, v = (number * 0.7548776662466927) % 1, (number * 0.5698402909980532) % 1
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)
    points = np.einsum("nk,nkc->nc", weights, vertices[faces[face]])
    normal = np.einsum("nk,nkc->nc", weights, normals[faces[face]])
    return Roots(face, weights, points, normal / np.linalg.norm(normal, axis=1, keepdims=True))


def hairline_depth(points: np.ndarray, recession: float = 0.0) -> np.ndarray:
    """Return how far (N,) mm points (N, 3) lie above the hairline; `recession` mm move its temples up and back."""
    x, y, z = points.T
    azimuth = np.degrees(np.arctan2(np.abs(x), z + 8))
    height = np.interp(azimuth, _HAIRLINE_AZIMUTH, _HAIRLINE_HEIGHT)
    height = height + recession * np.exp(-(((azimuth - 33) / 16) ** 2)) + 0.35 * recession * (azimuth < 25)
    return y - height


def brow_mask(points: np.ndarray, thickness: float) -> np.ndarray:
    """Return which points (N, 3) lie in the brows, of `thickness` 1 for ordinary ones."""
    u = brow_coordinate(points[:, 0])
    half = 3.4 * thickness * np.clip(1 - u, 0, 1) ** 0.6 * smoothstep(u, -0.04, 0.12) + 0.3
    inside = (u > 0) & (u < 1) & (np.abs(points[:, 1] - brow_height(u)) < half)
    return inside & (points[:, 2] > 30)


def beard_density(points: np.ndarray, cut: str) -> np.ndarray:
    """Return the density (N,) in [0, 1] of a beard of a cut: "full", "goatee", "moustache", "chin_strap"."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = smoothstep(z, -14, 12)
    throat = smoothstep(y, -138, -118) * smoothstep(z + 0.35 * (y + 112), -4, 18)
    top = np.interp(x, [0, 14, 30, 46, 58, 66, 74], [-50, -51, -57, -54, -40, -18, -2])
    cheek = smoothstep(top - y, -3, 6)
    under_nose = 1 - np.exp(-((x / 4) ** 2) - ((y + 50) / 4) ** 2)
    soul = 1 - 0.8 * np.exp(-(((x - 14) / 6) ** 2) - ((y + 84) / 6) ** 2)
    middle = -58.5 - 0.0065 * x * x  # a moustache droops and thins out to its ends
    half = 4.6 - 3.0 * (x / 29) ** 2
    moustache = smoothstep(half - np.abs(y - middle), -0.6, 1.2) * (x < 29) * (z > 70) * under_nose
    sides = {
        "full": np.ones_like(x),
        "goatee": (1 - smoothstep(x, 22, 31)) * (z > 40),
        "moustache": np.zeros_like(x),
        "chin_strap": smoothstep(-y - 0.2 * x, 62, 82) + (z < 34),
    }[cut]
    return np.clip(np.maximum(front * throat * cheek * under_nose * soul * np.clip(sides, 0, 1), moustache), 0, 1)


NECK_TO_ORIGIN = -NECK_JOINT
"""What to add to millimetres of the sculpt to count from the neck joint, the world's origin."""
