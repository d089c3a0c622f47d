"""Joints, skinning and pose correctives of the open head (millimetres, radians).

Joints: 0 root, 1 neck (where the skull turns), 2 jaw, 3 left eye, 4 right eye. Above the collar the head is rigid: the
weights of neck, jaw and eyes add up to one.
"""

import numpy as np

from portrait4d.synthetic_heads.head_expressions import blink_field
from portrait4d.synthetic_heads.head_loops import MOUTH_HALF_WIDTH, seam_height
from portrait4d.synthetic_heads.head_sculpt import EYE_CENTRE, NECK_BASE, smoothstep
from portrait4d.synthetic_heads.head_surface import EYEBALL_VERTICES, Surface, mesh_edges
from portrait4d.synthetic_heads.head_topology import HEAD_VERTICES

NECK_JOINT = np.array([0.0, -28.0, -12.0])
JAW_JOINT = np.array([0.0, -12.0, 8.0])
RIGID_ABOVE = -118.0
"""Height in mm above which the head follows the neck joint completely."""
LID_FOLLOW = 1.15
"""How far the upper lid goes with the gaze: share of a blink per sine of the eye's pitch."""


def neck_weight(y: np.ndarray) -> np.ndarray:
    """Return the share of the neck joint at heights `y` in mm; hair and clothes use the same function."""
    return smoothstep(y, -192.0, RIGID_ABOVE)


def jaw_weights(surface: Surface) -> np.ndarray:
    """Return the share of the jaw joint (V,), relative to the neck's share."""
    x, y, z = surface.vertices.T
    seam = seam_height(np.clip(x / MOUTH_HALF_WIDTH, -1, 1))
    half = 1.2 + 0.75 * np.maximum(np.abs(x) - 20, 0)
    window = smoothstep(z, -8, 38) * smoothstep(y, -140, -112) * surface.is_head
    window[surface.ear_row < 99] = 0
    weight = smoothstep(seam - y, -half, half) * window
    rows = surface.lip_row
    sine = surface.ring_sin
    pinned = rows < 9
    bend = np.where(sine <= 0, 0.5 + 0.5 * np.abs(sine) ** 0.6, 0.5 - 0.5 * np.abs(sine) ** 0.55)
    weight[pinned] = bend[pinned]
    weight[surface.template.poles[2]] = 0.5
    edges = mesh_edges(surface.faces)
    degree = np.bincount(edges[:, 0], minlength=len(x))
    free = surface.is_head & ~pinned
    for _ in range(14):
        mean = np.bincount(edges[:, 0], weight[edges[:, 1]], len(x)) / degree
        weight[free] = 0.5 * weight[free] + 0.5 * mean[free]
        weight = np.where(pinned, weight, weight * np.where(window > 0, 1, 0))
    weight = np.where(pinned, weight, np.minimum(weight, window**0.5))
    return np.where(weight < 1e-3, 0, weight)


def skinning_weights(surface: Surface) -> np.ndarray:
    """Return weights (V, 5) of the joints; rows add up to 1."""
    y = surface.vertices[:, 1]
    neck, jaw = neck_weight(y), jaw_weights(surface)
    weights = np.stack([1 - neck, neck * (1 - jaw), neck * jaw, 0 * y, 0 * y], axis=1)
    weights[HEAD_VERTICES:] = 0
    weights[HEAD_VERTICES : HEAD_VERTICES + EYEBALL_VERTICES, 3] = 1
    weights[HEAD_VERTICES + EYEBALL_VERTICES :, 4] = 1
    return weights


def joint_regressor(surface: Surface) -> np.ndarray:
    """Return (5, V): root, neck and jaw from the ears' roots and the neck's edge, each eye from its eyeball."""
    regressor = np.zeros((5, len(surface.vertices)))
    template = surface.template
    base = np.concatenate([template.ears[:, 11].ravel(), template.neck])
    for joint, position in enumerate((NECK_BASE, NECK_JOINT, JAW_JOINT)):
        regressor[joint, base] = _affine(surface.vertices[base], position)
    for number in range(2):
        ball = HEAD_VERTICES + number * EYEBALL_VERTICES + np.arange(EYEBALL_VERTICES)
        centre = EYE_CENTRE * (1 if number == 0 else -1, 1, 1)
        regressor[3 + number, ball] = _affine(surface.vertices[ball], centre)
    return regressor


def _affine(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the smallest weights (N,) with sum 1 whose mean of `points` (N, 3) is `target` (3,)."""
    scaled = np.concatenate([points.T / 50, np.ones((1, len(points)))])
    return scaled.T @ np.linalg.solve(scaled @ scaled.T, np.array([*(target / 50), 1.0]))


def pose_directions(surface: Surface) -> np.ndarray:
    """Return pose correctives (V, 3, 36) in mm: the upper lids follow the gaze up and down.

    Entry 9 (j - 1) + 3 r + c belongs to row r, column c of joint j's rotation less the identity; row 2, column 1 is the
    sine of a turn about x, positive when the eye looks down.
    """
    directions = np.zeros((len(surface.vertices), 3, 36))
    upper = (surface.ring_sin >= 0) & (surface.lid_row < 99)
    for number in range(2):
        lid = blink_field(surface, number) * upper[:, None]
        directions[:, :, 9 * (2 + number) + 7] = LID_FOLLOW * lid
    return directions
