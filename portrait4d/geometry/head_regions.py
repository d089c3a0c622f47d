"""Region tables of a head, computed from its mesh and the vertex groups of FLAME's masks file.

FLAME's own release lacks these tables; the authors of Portrait4D published theirs (`flame.md` sections 6 and 7). The
rules here are ours, from shapes alone, and work on any head with the groups face, lips and both eyeballs; their tables
differ in detail from the published ones. Vertices are (V, 3) of the neutral head in any unit: x the
subject's left, y up, z where the face looks to. Faces are (F, 3), counter-clockwise seen from outside.
"""

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
"""Columns of the neighbourhood table."""
EYELID_RADII = 1.75
"""The eyelids reach this far from the eyeball's centre, in radii of the eyeball: lids and socket, but not the brows."""
SMALL_FACE_SHARE = 0.75
"""Size of the small face relative to the face group's bounding box seen from the front."""
MOUTH_SIDE_COSINE = 0.25
"""Lip vertices whose normal points forward less than this belong to the mouth's side of the lips."""


@dataclass(frozen=True)
class FaceGroups:
    """Vertex indices (n,) of FLAME's masks that the rules need, in any order."""

    face: np.ndarray
    lips: np.ndarray
    left_eyeball: np.ndarray
    right_eyeball: np.ndarray


def compute_regions(vertices: np.ndarray, groups: FaceGroups) -> dict[str, np.ndarray]:
    """Return the regions of `HeadAssets` that FLAME's masks do not name.

    * eyeballs: left eyeball, then right, each sorted; head: all other vertices, sorted.
    * eyelids: head vertices closer to an eyeball's centre than EYELID_RADII of its radii; sorted.
    * small_face: eyeballs, eyelids, lips, and those vertices of the face group that lie, seen from the front, in the
      ellipse of SMALL_FACE_SHARE the size of the group's bounding box; sorted.

    The region outer_mouth has a function of its own, `find_outer_mouth`.

    Raises:
        ValueError: the eyeballs have different numbers of vertices.
    """
    left, right = np.unique(groups.left_eyeball), np.unique(groups.right_eyeball)
    if len(left) != len(right):
        raise ValueError(f"eyeballs: expected equally many vertices, got {len(left)} left and {len(right)} right")
    eyeballs = np.concatenate([left, right])
    head = np.setdiff1d(np.arange(len(vertices)), eyeballs)
    near = np.zeros(len(head), bool)
    for eyeball in (left, right):
        centre = vertices[eyeball].mean(axis=0)
        radius = np.linalg.norm(vertices[eyeball] - centre, axis=1).mean()
        near |= np.linalg.norm(vertices[head] - centre, axis=1) < EYELID_RADII * radius
    eyelids = head[near]
    front = vertices[groups.face, :2]
    centre, half = (front.max(axis=0) + front.min(axis=0)) / 2, np.ptp(front, axis=0) / 2
    inside = (((front - centre) / (SMALL_FACE_SHARE * half)) ** 2).sum(axis=1) < 1
    small_face = np.unique(np.concatenate([eyeballs, eyelids, groups.lips, groups.face[inside]]))
    return {"eyeballs": eyeballs, "head": head, "eyelids": eyelids, "small_face": small_face}


def find_outer_mouth(vertices: np.ndarray, faces: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Return the sorted vertices (n,) of the head without the mouth's side of the lips (`noinmouth`).

    That side is the open boundary of the mouth, a hole's edge that holds or adjoins lip vertices, and the lip vertices
    connected with it whose normal points forward by less than MOUTH_SIDE_COSINE: turned up, down or inwards. A head
    without such a hole keeps all vertices.
    """
    lip = np.zeros(len(vertices), bool)
    lip[lips] = True
    edges = _directed_edges(faces)
    unique, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    rim_edges = unique[counts == 2]  # an edge of one face is listed in both directions
    rim_edges = np.concatenate([rim_edges, rim_edges[:, ::-1]])
    rim = np.zeros(len(vertices), bool)
    rim[rim_edges[:, 0]] = True
    near_lips = lip.copy()
    near_lips[edges[lip[edges[:, 0]], 1]] = True
    mouth_rim = _grow(rim & near_lips, rim, rim_edges)
    normals = _vertex_normals(vertices, faces)
    inwards = lip & (normals[:, 2] < MOUTH_SIDE_COSINE * np.linalg.norm(normals, axis=1))
    return np.nonzero(~_grow(mouth_rim, inwards, edges))[0]


def compute_vertex_neighbours(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """Return (V, NEIGHBOURS) int64: each vertex, then its mesh neighbours in ascending order, then V as padding.

    Vertices with more neighbours than fit keep the first ones.
    """
    edges = np.unique(_directed_edges(faces), axis=0)
    start = np.searchsorted(edges[:, 0], np.arange(vertex_count))
    column = np.arange(len(edges)) - start[edges[:, 0]] + 1
    fits = column < NEIGHBOURS
    table = np.full((vertex_count, NEIGHBOURS), vertex_count)
    table[:, 0] = np.arange(vertex_count)
    table[edges[fits, 0], column[fits]] = edges[fits, 1]
    return table


def _directed_edges(faces: np.ndarray) -> np.ndarray:
    """Return (6 F, 2): the edges of every face in both directions."""
    return np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))])


def _grow(seeds: np.ndarray, allowed: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the mask (V,) of seeds and of the allowed vertices connected with them by edges among themselves."""
    grown = seeds.copy()
    while True:
        reached = edges[grown[edges[:, 0]], 1]
        new = reached[allowed[reached] & ~grown[reached]]
        if len(new) == 0:
            return grown
        grown[new] = True


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return area-weighted normals (V, 3), not normalised."""
    first, second, third = vertices[faces].transpose(1, 0, 2)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(second - first, third - first))
    return normals
