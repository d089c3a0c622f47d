"""Describe every vertex of the open head by the ring it belongs to: lips, lids, ears (millimetres).

These coordinates tell blend shapes, skinning and paint where a vertex lies on the face, whatever its position.
"""

from dataclasses import dataclass

import numpy as np

from portrait4d.synthetic_heads import head_loops as loops
from portrait4d.synthetic_heads.head_sculpt import EYE_CENTRE, EYE_RADIUS
from portrait4d.synthetic_heads.head_topology import HEAD_VERTICES, Template, build_template

EYEBALL_VERTICES = 546
EYEBALL_RINGS = 17
EYEBALL_SEGMENTS = 32
LID_MARGIN_ROW = 4
SEAM_ROW = 6


@dataclass(frozen=True)
class Surface:
    """The template with eyeballs and per-vertex ring coordinates. V = 5023.

    Attributes:
        template: the head without eyeballs.
        vertices: (V, 3) millimetres: head 0..3930, left eyeball, right eyeball.
        faces: (9976, 3).
        lip_row: (V,) row of `template.mouth`, 6 = seam, below 6 the mouth's inside; 99 elsewhere.
        lid_row: (V,) row of `template.eyes`, 4 = margin, below 4 the socket; 99 elsewhere.
        ear_row: (V,) row of `template.ears`, 11 lies on the head; 99 elsewhere.
        ring_sin: (V,) sine of the place on the lid's or lip's ring: > 0 upper, < 0 lower; 0 elsewhere.
        side: (V,) +1 the subject's left, -1 right, 0 within a micrometre of the middle.
    """

    template: Template
    vertices: np.ndarray
    faces: np.ndarray
    lip_row: np.ndarray
    lid_row: np.ndarray
    ear_row: np.ndarray
    ring_sin: np.ndarray
    side: np.ndarray

    @property
    def is_head(self) -> np.ndarray:
        """Return the mask (V,) of vertices that do not belong to an eyeball."""
        return np.arange(len(self.vertices)) < HEAD_VERTICES


def build_surface() -> Surface:
    """Build the whole neutral head of 5023 vertices."""
    template = build_template()
    ball, ball_faces = build_eyeball()
    left = ball + EYE_CENTRE
    right = loops.mirror(ball)[_mirrored_eyeball()] + loops.mirror(EYE_CENTRE)
    vertices = np.concatenate([template.vertices, left, right])
    first, second = HEAD_VERTICES, HEAD_VERTICES + EYEBALL_VERTICES
    faces = np.concatenate([template.faces, ball_faces + first, ball_faces + second])
    rows = {name: np.full(len(vertices), 99) for name in ("lip", "lid", "ear")}
    sine = np.zeros(len(vertices))
    ring = np.round(np.sin(loops.angles(loops.SEGMENTS)), 12)
    for name, group in (("lip", template.mouth[None]), ("lid", template.eyes), ("ear", template.ears)):
        for patch in group:
            rows[name][patch] = np.arange(patch.shape[0])[:, None]
            if name != "ear":
                sine[patch] = ring
    for pole, name in zip(template.poles, ("lid", "lid", "lip", "ear", "ear"), strict=True):
        rows[name][pole] = -1 if name != "ear" else 0
    side = np.where(np.abs(vertices[:, 0]) < 1e-3, 0.0, np.sign(vertices[:, 0]))
    return Surface(template, vertices, faces, rows["lip"], rows["lid"], rows["ear"], sine, side)


def build_eyeball() -> tuple[np.ndarray, np.ndarray]:
    """Return an eyeball about the origin, (546, 3) mm, and its triangles (1088, 3): pole in front, 17 rings, pole.

    Rings are denser in front; the cornea bulges by 0.9 mm.
    """
    theta = np.pi * ((np.arange(EYEBALL_RINGS) + 1) / (EYEBALL_RINGS + 1)) ** 1.15
    radius = EYE_RADIUS + 0.9 * np.exp(-((theta / 0.4) ** 4))
    around = loops.angles(EYEBALL_SEGMENTS)
    ring = np.stack([np.cos(around), np.sin(around), 0 * around], axis=1)
    body = radius[:, None, None] * (
        np.sin(theta)[:, None, None] * ring + np.cos(theta)[:, None, None] * np.array([0, 0, 1.0])
    )
    vertices = np.concatenate([[[0, 0, EYE_RADIUS + 0.9]], body.reshape(-1, 3), [[0, 0, -EYE_RADIUS]]])
    rows = 1 + np.arange(EYEBALL_RINGS * EYEBALL_SEGMENTS).reshape(EYEBALL_RINGS, -1)
    after = np.roll(rows, -1, axis=1)
    fan = np.stack([np.zeros_like(rows[0]), rows[0], after[0]], axis=-1)
    last = np.stack([np.full_like(rows[0], len(vertices) - 1), after[-1], rows[-1]], axis=-1)
    quads = [
        np.stack([rows[:-1], rows[1:], after[1:]], -1).reshape(-1, 3),
        np.stack([rows[:-1], after[1:], after[:-1]], -1).reshape(-1, 3),
    ]
    return vertices, np.concatenate([fan, *quads, last])


def _mirrored_eyeball() -> np.ndarray:
    """Return the order (546,) in which a mirrored eyeball's vertices give the same triangles, outward again."""
    rows = 1 + np.arange(EYEBALL_RINGS * EYEBALL_SEGMENTS).reshape(EYEBALL_RINGS, -1)
    turned = rows[:, (EYEBALL_SEGMENTS // 2 - np.arange(EYEBALL_SEGMENTS)) % EYEBALL_SEGMENTS]
    return np.concatenate([[0], turned.ravel(), [EYEBALL_VERTICES - 1]])


def mesh_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed edges (3 F, 2) of triangles (F, 3)."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3), weighted by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.zeros_like(vertices)
    cross = np.cross(b - a, c - a)
    for k in range(3):
        for axis in range(3):
            normal[:, axis] += np.bincount(faces[:, k], cross[:, axis], len(vertices))
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
