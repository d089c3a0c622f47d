"""What fitting minimises: distances of landmarks in pixels, lid gaps, and how far the head leaves its start.

Pictures have 512 pixels a side; points are (x, y) in pixels, y **up**. Source: flame-fitting.md §5.
"""

import numpy as np
import torch
from torch import Tensor

from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.geometry.head_fit import PICTURE, HeadFit

CONTOUR = 17
EYE_CORNERS = [36, 39, 42, 45]
MOUTH = slice(48, 68)
UPPER_LIDS = [36, 37, 38, 39, 42, 43, 44, 45]
LOWER_LIDS = [36, 41, 40, 39, 42, 47, 46, 45]
CLOSED_GAP_PIXELS = 8.0
"""Detected lid gaps up to this are closed eyes."""


def target_points(landmarks98: np.ndarray, landmarks68: np.ndarray, picture_size: int) -> np.ndarray:
    """Return the 70 points (70, 2) float32 to be matched, pixels of a 512 picture, y up.

    Args:
        landmarks98, landmarks68: (98, 2), (68, 2) pixels, y **down**; of the latter the contour is used.
        picture_size: pixels per side of the picture they lie in.
    """
    points = np.concatenate([landmarks68[:CONTOUR], landmarks98[LANDMARKS_98_TO_70[CONTOUR:]]]).astype(np.float32)
    points *= PICTURE / picture_size
    return np.stack([points[:, 0], PICTURE - points[:, 1]], axis=1)


def placement_energy(points: Tensor, targets: Tensor) -> Tensor:
    """Return the energy of the first stage (scalar) of points and targets (B, 70, 2): all, eye corners, mouth, lids."""
    square = (points - targets) ** 2
    weighted = square.mean() + 2 * square[:, EYE_CORNERS].mean() + 2 * square[:, MOUTH].mean()
    return weighted + square[:, UPPER_LIDS].mean() + square[:, LOWER_LIDS].mean()


def refinement_energy(points: Tensor, targets: Tensor) -> Tensor:
    """Return the landmark part of the second stage's energy (scalar): all points, lids, lid gaps, equal gaps."""
    square = (points - targets) ** 2
    lids = square[:, UPPER_LIDS].mean() + square[:, LOWER_LIDS].mean()
    gaps, wanted = lid_gaps(points), lid_gaps(targets)
    wanted = torch.where(wanted > CLOSED_GAP_PIXELS, wanted, 0)
    right, left = gaps.split(4, dim=1)
    return 5 * lids + 2 * ((gaps - wanted) ** 2).mean() + ((right - left) ** 2).mean() + square.mean()


def lid_gaps(points: Tensor) -> Tensor:
    """Return the distances (B, 8) of upper to lower lid in pixels, four pairs of the right eye, then of the left."""
    return torch.sqrt(((points[:, UPPER_LIDS] - points[:, LOWER_LIDS]) ** 2).sum(-1) + 1e-7)


def departure_energy(fit: HeadFit, start: HeadFit) -> Tensor:
    """Return the cost (scalar) of leaving the start: absolute changes of the coefficients, and the eyes' turn."""
    identity = (fit.shape - start.shape).abs().sum(1).mean()
    expression = (fit.expression - start.expression).abs().sum(1).mean()
    return 0.5 * expression + 4 * identity + 0.1 * fit.eye_rad.abs().sum(1).mean()
