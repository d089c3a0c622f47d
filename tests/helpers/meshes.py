"""Simple meshes and what can be counted on any mesh, for tests."""

import numpy as np


def grid_mesh(squares: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit square in the plane z = 0 as squares x squares pairs of triangles that face +z."""
    axis = np.linspace(0, 1, squares + 1)
    x, y = np.meshgrid(axis, axis)
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    row, column = (i.ravel() for i in np.meshgrid(np.arange(squares), np.arange(squares), indexing="ij"))
    a = row * (squares + 1) + column
    b, c = a + 1, a + squares + 1
    return vertices, np.stack([a, b, c, b, c + 1, c], axis=1).reshape(-1, 3)


def uv_sphere(rings: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a unit sphere with poles on +-y, faces counter-clockwise seen from outside."""
    polar = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(segments) / segments
    body = [[np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)] for p in polar for a in around]
    vertices = np.array([[0, 1, 0], *body, [0, -1, 0]])
    faces, last = [], len(vertices) - 1
    for s in range(segments):
        after = (s + 1) % segments
        faces += [(0, 1 + s, 1 + after), (last, last - segments + after, last - segments + s)]
        for r in range(rings - 2):
            a, b = 1 + r * segments + s, 1 + r * segments + after
            faces += [(a, a + segments, b), (b, a + segments, b + segments)]
    return vertices, np.array(faces)


def half_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed edges (3 F, 2) of faces (F, 3), in the faces' sense of rotation."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def boundary_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed edges (n, 2) whose opposite is in no face."""
    directed = half_edges(faces)
    present = {tuple(edge) for edge in directed.tolist()}
    return np.array([edge for edge in directed.tolist() if (edge[1], edge[0]) not in present]).reshape(-1, 2)


def component_sizes(faces: np.ndarray) -> list[int]:
    """Return the numbers of vertices of the connected components, ascending."""
    label = np.arange(faces.max() + 1)
    edges = half_edges(faces)
    while True:
        lowest = label.copy()
        np.minimum.at(lowest, edges[:, 0], label[edges[:, 1]])
        np.minimum.at(lowest, edges[:, 1], label[edges[:, 0]])
        if (lowest == label).all():
            return sorted(np.unique(label[np.unique(faces)], return_counts=True)[1].tolist())
        label = lowest


def mesh_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the areas (F,) of the faces."""
    first, second, third = vertices[faces].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
