"""One step of Loop subdivision as a fixed sparse matrix, so that pictures show no facets; linear in the vertices."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Subdivision:
    """`matrix` (V', V) sparse float32 takes vertices to refined ones; `faces` (4 F, 3) int64."""

    matrix: Tensor
    faces: Tensor

    def refine(self, values: Tensor) -> Tensor:
        """Refine values (V, C) to (V', C)."""
        return torch.sparse.mm(self.matrix, values)


def loop_subdivision(faces: np.ndarray, vertex_count: int) -> Subdivision:
    """Build the step for a mesh with or without boundary (C. Loop, 1987)."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, place, uses = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    border = uses == 1
    rows, columns, weights = [], [], []

    def add(row: np.ndarray, column: np.ndarray, weight: np.ndarray | float) -> None:
        rows.append(row)
        columns.append(column)
        weights.append(np.broadcast_to(weight, row.shape).astype(float))

    middle = vertex_count + np.arange(len(edges))
    for end in range(2):
        add(middle, edges[:, end], np.where(border, 0.5, 0.375))
    inner = ~border[place]
    add(middle[place][inner], opposite[inner], 0.125)
    on_border = np.zeros(vertex_count, bool)
    on_border[edges[border]] = True
    both = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(both[:, 0], minlength=vertex_count)
    share = np.where(degree == 3, 3 / 16, 3 / (8 * np.maximum(degree, 1)))
    free = ~on_border[both[:, 0]]
    add(both[free, 0], both[free, 1], share[both[free, 0]])
    every = np.arange(vertex_count)
    add(every, every, np.where(on_border, 0.75, 1 - degree * share))
    rim = np.concatenate([edges[border], edges[border][:, ::-1]])
    add(rim[:, 0], rim[:, 1], 0.125)
    index = torch.from_numpy(np.stack([np.concatenate(rows), np.concatenate(columns)]))
    values = torch.from_numpy(np.concatenate(weights)).float()
    shape = (vertex_count + len(edges), vertex_count)
    matrix = torch.sparse_coo_tensor(index, values, shape, check_invariants=True).coalesce()
    ab, bc, ca = (vertex_count + place[k * len(faces) : (k + 1) * len(faces)] for k in range(3))
    a, b, c = faces.T
    refined = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return Subdivision(matrix.to_sparse_csr(), torch.from_numpy(refined))
