"""Landmarks and vertex groups of the open head, laid on its own rings and curves (millimetres).

The 98 points follow the order of WFLW: contour 0..32 from the subject's right ear over the chin, right brow 33..41,
left brow 42..50, nose 51..59, right eye 60..67, left eye 68..75, outer lips 76..87, inner lips 88..95, pupils.
The 68 + 2 points are a choice from them (`flame-fitting.md` section 5).
"""

import numpy as np

from portrait4d.synthetic_heads.head_sculpt import cast_front, smoothstep
from portrait4d.synthetic_heads.head_surface import EYEBALL_VERTICES, Surface
from portrait4d.synthetic_heads.head_topology import HEAD_VERTICES

_JAW_LINE = ((70, 2, 16), (69, -20, 14), (66, -42, 12), (60, -62, 14), (50, -80, 30), (36, -96, 54), (18, -108, 76))
_NOSE_BASE = ((13.5, -43.5, 91), (7.0, -47.5, 97), (0.0, -48.5, 101))


def brow_height(u: np.ndarray) -> np.ndarray:
    """Return the height in mm of the brow's middle line at u = 0 (inner end) .. 1 (outer end)."""
    u = np.clip(u, 0, 1)
    return 14.2 + 4.7 * np.sin(0.86 * np.pi * u**0.85) - 1.0 * u


def brow_coordinate(x: np.ndarray) -> np.ndarray:
    """Return the place along the brow, 0 at the inner and 1 at the outer end, of |x| in mm."""
    return (np.abs(x) - 8.0) / 43.0


def landmark_targets(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return 98 points (98, 3) in mm and the vertex (98,) each one is, -1 where it lies on a triangle."""
    targets, vertex = np.zeros((98, 3)), np.full(98, -1)
    line = np.array([*_JAW_LINE, (0, -112.5, 84)], float)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    half = np.stack([np.interp(np.linspace(0, steps[-1], 17), steps, line[:, k]) for k in range(3)], axis=1)
    targets[:17] = half * (-1, 1, 1)
    targets[16:33] = half[::-1]
    for start, side in ((33, -1), (42, 1)):
        inner_first = side > 0
        for count, offset, begin in ((5, 2.8, 0), (4, -2.4, 5)):
            u = np.linspace(0.02, 0.98, count) if count == 5 else np.linspace(0.78, 0.03, count)
            u = u if inner_first == (count == 5) else u[::-1]
            thickness = offset * (1 - 0.75 * u**2)
            xy = np.stack([side * (8 + 43 * u), brow_height(u) + thickness], axis=1)
            targets[start + begin : start + begin + count] = cast_front(xy)
    targets[51:55] = cast_front(np.array([[0, 4.0], [0, -9.0], [0, -22.0], [0, -35.0]]))
    base = np.array(_NOSE_BASE)
    targets[55:60] = [*(base * (-1, 1, 1)), *base[1::-1]]
    rings = surface.template.eyes[:, 4]
    # place 0 is the subject's left corner, 8 the top, 16 the right corner, 24 the bottom
    around = np.array([16, 12, 8, 4, 0, 28, 24, 20])
    vertex[60:68], vertex[68:76] = rings[1][around], rings[0][around]
    mouth = surface.template.mouth
    vertex[76:88] = mouth[10][[16, 13, 10, 8, 6, 3, 0, 29, 26, 24, 22, 19]]
    vertex[88:96] = mouth[6][[16, 11, 8, 5, 0, 27, 24, 21]]
    vertex[96], vertex[97] = HEAD_VERTICES + EYEBALL_VERTICES, HEAD_VERTICES
    known = vertex >= 0
    targets[known] = surface.vertices[vertex[known]]
    return targets, vertex


def landmark_embedding(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (98,) and barycentrics (98, 3) of the 98 points."""
    targets, vertex = landmark_targets(surface)
    faces = surface.faces
    outside = (surface.lip_row[faces] >= 6).all(1) & (surface.lid_row[faces] >= 4).all(1)
    outside &= (faces < HEAD_VERTICES).all(1) & (surface.ear_row[faces] >= 11).all(1)
    candidates = np.nonzero(outside)[0]
    corners = surface.vertices[faces]
    index, weights = np.zeros(98, np.int64), np.zeros((98, 3))
    for number in range(98):
        if vertex[number] >= 0:
            index[number] = np.nonzero((faces == vertex[number]).any(1))[0][0]
            weights[number] = faces[index[number]] == vertex[number]
            continue
        closest = closest_points(targets[number], corners[candidates])
        points = np.einsum("tk,tkc->tc", closest, corners[candidates])
        gap = ((points - targets[number]) ** 2).sum(1)
        best = int(np.argmin(np.round(gap, 9)))
        index[number], weights[number] = candidates[best], closest[best]
    return index, weights


def closest_points(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return barycentrics (T, 3) of the point of each triangle (T, 3, 3) that is nearest to `point` (3,)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    scale = np.maximum(d00 * d11 - d01 * d01, 1e-12)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    best = np.stack([1 - v - w, v, w], axis=1)
    inside = (best >= 0).all(1)
    nearest, result = np.full(len(corners), np.inf), best.copy()
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, j] - corners[:, i]
        t = np.clip(((point - corners[:, i]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-12), 0, 1)
        gap = ((corners[:, i] + t[:, None] * edge - point) ** 2).sum(1)
        better = (gap < nearest) & ~inside
        nearest = np.where(better, gap, nearest)
        rows = np.nonzero(better)[0]
        result[rows] = 0
        result[rows, i], result[rows, j] = 1 - t[rows], t[rows]
    return result


def head_masks(surface: Surface) -> dict[str, np.ndarray]:
    """Return masks (V,) of the groups that FLAME's masks file names, and of the outside of the mouth."""
    x, y, z = surface.vertices.T
    head = surface.is_head
    open_surface = head & (surface.lip_row >= 6) & (surface.lid_row >= 3)
    jaw = -116 + 62 * smoothstep(np.abs(x), 20, 72)
    oval = (y > jaw) & (y < 78 - 30 * (x / 70) ** 2) & (z > 4) & (surface.ear_row == 99)
    face = open_surface & oval
    return {
        "face": face | ~head,
        "eyes": ~head,
        "face_without_eyes": face,
        "lips": head & (surface.lip_row >= 6) & (surface.lip_row <= 10),
        "outer_mouth": head & (surface.lip_row >= 7),
    }


def eyelid_vertices(surface: Surface) -> dict[str, np.ndarray]:
    """Return the lid-margin vertices (8,) of the right and left eye, in the order of the points 60..67 and 68..75."""
    _, vertex = landmark_targets(surface)
    return {"right": vertex[60:68], "left": vertex[68:76]}
