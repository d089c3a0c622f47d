"""The open head's skin as pictures need it: refined, with paint coordinates and ambient light for every vertex."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from portrait4d.geometry.flame import WORLD_PER_METRE
from portrait4d.synthetic_heads.bodies import build_torso, torso_distance
from portrait4d.synthetic_heads.hair_roots import NECK_TO_ORIGIN, neutral_millimetres
from portrait4d.synthetic_heads.head_loops import LID_OFFSETS, LIP_OFFSETS
from portrait4d.synthetic_heads.head_sculpt import head_distance, smoothstep
from portrait4d.synthetic_heads.head_surface import vertex_normals
from portrait4d.synthetic_heads.head_template import MM, open_head_assets, open_head_extras
from portrait4d.synthetic_heads.smooth_mesh import Subdivision, loop_subdivision

UNIT = MM * WORLD_PER_METRE
"""World units of a millimetre."""
HEAD_COUNT = 3931
"""Vertices of the head without eyeballs."""


@cache
def head_refinement() -> Subdivision:
    """Return the subdivision of the head's 3931 vertices."""
    faces = open_head_assets().faces
    return loop_subdivision(faces[(faces < HEAD_COUNT).all(1)], HEAD_COUNT)


def _ambient(points: np.ndarray, normals: np.ndarray, distance: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the open share (N,) of the sky, from how much nearer a surface is than the steps along the normals."""
    ambient = np.ones(len(points))
    for reach, share in ((2.5, 0.3), (6.0, 0.35), (13.0, 0.3), (26.0, 0.22)):
        ambient -= share * np.clip(1 - distance(points + reach * normals) / reach, 0, 1.4)
    return ambient


@cache
def torso_ambient() -> np.ndarray:
    """Return the ambient light (V,) of the torso's vertices, in [0.12, 1]; the chin shades the neck."""
    torso = build_torso()

    def distance(points: np.ndarray) -> np.ndarray:
        return np.minimum(head_distance(points), torso_distance(points))

    return np.clip(_ambient(torso.vertices, vertex_normals(torso.vertices, torso.faces), distance), 0.12, 1)


@cache
def skin_coordinates() -> Tensor:
    """Return (3931, 9): rest position | lip offset in mm, lid offset, ring sine, ear, ambient light, side.

    Offsets count from the seam and the lid margin, negative inside; 20 and 13 elsewhere.
    """
    extras = open_head_extras()
    rest, normals = neutral_millimetres()
    rest, normals = rest[:HEAD_COUNT], normals[:HEAD_COUNT]
    lip_row, lid_row, ear_row = (getattr(extras, f"{n}_row")[:HEAD_COUNT] for n in ("lip", "lid", "ear"))
    lip = np.interp(lip_row, np.r_[-1, 0, 5, 6 + np.arange(8), 14], np.r_[-3, -2.8, -1.4, LIP_OFFSETS, 20])
    lid = np.interp(lid_row, np.r_[-1, 2, 3, 4 + np.arange(7), 11], np.r_[-4, -3, -1.2, LID_OFFSETS, 13])
    ear = (ear_row < 11).astype(float)
    ambient = _ambient(rest, normals, head_distance)
    hollow = np.interp(ear_row, [0, 1, 2, 3, 4, 5, 6, 9, 12], [0.3, 0.36, 0.55, 0.95, 0.52, 0.72, 1, 1, 1])
    ambient = np.clip(ambient * hollow, 0.12, 1)
    ambient *= np.interp(lip_row, [-1, 3, 5, 6, 7, 8], [0.1, 0.25, 0.5, 0.62, 0.9, 1])
    side = np.sign(rest[:, 0])
    columns = [lip, lid, extras.ring_sin[:HEAD_COUNT], ear, ambient, side]
    return torch.from_numpy(np.concatenate([rest, np.stack(columns, 1)], 1)).float()


@cache
def _neck_slimming(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how much (3931, 1) the neck narrows inside the torso, towards which points (3931, 3), world units."""
    rest, _ = neutral_millimetres()
    y = rest[:HEAD_COUNT, 1]
    share = 0.36 * smoothstep(-y, 142, 174)
    axis = np.stack([0 * y, y, -24 - 0.09 * (-80 - y)], axis=1) + NECK_TO_ORIGIN
    return torch.from_numpy(share[:, None]).float().to(device), torch.from_numpy(axis * UNIT).float().to(device)


def slim_neck(vertices: Tensor, device: torch.device) -> Tensor:
    """Return the head's vertices (3931, 3), world units, with a neck that ends inside the torso."""
    share, axis = _neck_slimming(device)
    return vertices + share * (axis - vertices)


@cache
def lip_closing(device: torch.device) -> Tensor:
    """Return the motion (3931, 3), world units, that brings the edges of the lips together again after refinement."""
    extras = open_head_extras()
    amount = np.interp(extras.lip_row[:HEAD_COUNT], [4, 5, 6, 7, 8], [0, 0.3, 0.62, 0.25, 0])
    shift = np.zeros((HEAD_COUNT, 3))
    shift[:, 1] = -amount * extras.ring_sin[:HEAD_COUNT]
    return torch.from_numpy(shift * UNIT).float().to(device)


@cache
def upper_lid_vertices() -> np.ndarray:
    """Return the upper lid margins' vertices (2, 17): left and right eye, each from the subject's left to the right."""
    extras = open_head_extras()
    rest, _ = neutral_millimetres()
    result = []
    for side in (1, -1):
        on = np.nonzero((extras.lid_row == 4) & (extras.ring_sin >= 0) & (np.sign(rest[:, 0]) == side))[0]
        result.append(on[np.argsort(-rest[on, 0])])
    return np.stack(result)
