"""The parts of a head model that fitting evaluates thousands of times, made small once.

Landmarks are few points. The mesh term compares the whole mesh with its start; while the neck is unposed and the jaw
stays, that is a quadratic form of the coefficients' change for all vertices but those of the eyeballs, which are
replaced by the few orthogonal patterns in which they can move. Both are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.posed_points import (
    EYES,
    JAW,
    STILL,
    PosedPoints,
    part_rotations,
    split_vertices,
    turn_parts,
)

FLAME_LIDS = {
    37: (2452, 2454),
    38: (2471, 2471),
    40: (2276, 2276),
    41: (2360, 2360),
    43: (1292, 1292),
    44: (1217, 1217),
    46: (999, 999),
    47: (827, 827),
}
"""Landmarks on FLAME's lids that are the mean of two vertices, not a point of the embedding (flame-fitting.md §5)."""
_NEGLIGIBLE = 1e-6
"""Patterns of the eyeballs that move less than this share of the largest one are left out."""


@dataclass(frozen=True)
class FittedParts:
    """A head model reduced to what fitting needs. L = coefficients.

    Attributes:
        landmarks: the 70 landmarks.
        still: (L, L), still_jaw: (3, 3, L, L): squared change of the vertices outside the eyes and lids, summed, is
            change^T (still + sum_cd R_cd still_jaw[c, d]) change for the jaw's rotation R.
        eyes: patterns of the eyeballs, in place of their vertices.
        vertex_count: how many vertices the mesh term compares.
    """

    landmarks: PosedPoints
    still: Tensor
    still_jaw: Tensor
    eyes: PosedPoints
    vertex_count: int

    def mesh_term(self, initial: HeadParams) -> Callable[[HeadParams], Tensor]:
        """Return the function that measures how far the mesh outside the lids is from its start.

        It maps parameters with the same jaw and an unposed neck, both eyes turned alike, to the mean square (scalar)
        of the vertices' coordinates, in world units, less those of `initial` posed alike. As in the reference, the
        start is a constant in the gradient even though it turns its eyes too.
        """
        jaw = part_rotations(initial)[:, JAW]
        form = self.still + torch.einsum("bcd,cdkl->bkl", jaw, self.still_jaw)
        start = torch.cat([initial.shape, initial.expression], dim=1).detach()
        eyes_at_start = self.eyes.parts(initial).detach()

        def measure(params: HeadParams) -> Tensor:
            change = torch.cat([params.shape, params.expression], dim=1) - start
            pull = torch.bmm(form, change.detach()[..., None])[..., 0]
            skin = (2 * change - change.detach()).mul(pull).sum()  # form(change), of which the gradient is 2 pull
            rotations = part_rotations(params)
            gap = turn_parts(self.eyes.parts(params), rotations) - turn_parts(eyes_at_start, rotations.detach())
            return (skin + (gap**2).sum()) / (len(change) * self.vertex_count * 3)

        return measure


def reduce_head(head: HeadModel) -> FittedParts:
    """Reduce a head model (FLAME, or an open head) for fitting; on the head's device, float32.

    Raises:
        ValueError: a vertex follows jaw and eyes at once, or joints are not attached to the neck as FLAME's are.
    """
    vertices = split_vertices(head, dtype=torch.float32)
    moves = vertices.directions.any(3).any(2)
    if (moves[JAW] & moves[EYES]).any():
        raise ValueError("skinning weights: expected no vertex that follows both jaw and eyes")
    compared = torch.ones_like(moves[EYES])
    compared[head.region("eyelids")] = False
    still, still_jaw = _quadratic_forms(vertices.select(compared & ~moves[EYES]))
    eyes = _orthogonal_patterns(vertices.select(compared & moves[EYES]))
    return FittedParts(_landmarks(head, vertices), still, still_jaw, eyes, int(compared.sum()))


def _landmarks(head: HeadModel, vertices: PosedPoints) -> PosedPoints:
    corners, weights = head.faces[head.landmark_faces].clone(), head.landmark_barycentrics.clone()
    if head.name == "flame":
        for landmark, (first, second) in FLAME_LIDS.items():
            corners[landmark] = corners.new_tensor([first, second, second])
            weights[landmark] = weights.new_tensor([0.5, 0.25, 0.25])
    return vertices.interpolate(corners, weights)


def _quadratic_forms(vertices: PosedPoints) -> tuple[Tensor, Tensor]:
    """Return `FittedParts.still` and `.still_jaw` of vertices without a part that turns with the eyes."""
    still, jaw = vertices.directions[[STILL, JAW], ..., 1:]
    moving = jaw.flatten(1).any(1)
    form = _product(still, still)
    still, jaw = still[moving], jaw[moving]
    form += _product(jaw, jaw)
    mixed = torch.stack([torch.stack([still[:, c].T @ jaw[:, d] for d in range(3)]) for c in range(3)])
    return form, mixed + mixed.mT


def _product(first: Tensor, second: Tensor) -> Tensor:
    return first.flatten(0, 1).T @ second.flatten(0, 1)


def _orthogonal_patterns(vertices: PosedPoints) -> PosedPoints:
    """Replace points by fewer whose differences have the same sum of squares, whatever coefficients and rotations.

    Correctives, which such differences do not contain, are left out.
    """
    rows = vertices.directions.transpose(0, 1).flatten(1).double()
    squares, patterns = torch.linalg.eigh(rows @ rows.T)
    kept = patterns[:, squares > _NEGLIGIBLE**2 * squares.max()].float()
    directions = torch.einsum("vp,hvxl->hpxl", kept, vertices.directions)
    return PosedPoints(directions, torch.zeros_like(vertices.correctives[:, : kept.shape[1]]))
