"""Painted portraits of the ellipsoid head: ray tracing an egg with a face on it, for demonstrations without data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from portrait4d.geometry.cameras import split_camera
from portrait4d.geometry.flame import WORLD_PER_METRE
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.rendering.rays import camera_rays
from portrait4d.synthetic_heads.ellipsoid_head import EYE_CENTRES, MOUTH_HEIGHT, RADII

_NECK_TO_CENTRE = np.array([0.0, 0.03, 0.015])
"""Centre of the egg in metres as seen from the neck joint, which is the world's origin."""


@dataclass(frozen=True)
class Look:
    """Colours of a painted head, RGB in [0, 1]."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    clothes: tuple[float, float, float]
    backdrop: tuple[float, float, float]


def sample_look(generator: np.random.Generator) -> Look:
    """Draw the colours of one identity."""
    skin = np.array([0.92, 0.72, 0.6]) * generator.uniform(0.45, 1.0)
    hair = np.array([0.5, 0.33, 0.2]) * generator.uniform(0.15, 1.5)
    palette = generator.uniform(0.15, 0.75, size=(3, 3))
    return Look(*(tuple(np.clip(c, 0, 1).tolist()) for c in (skin, hair, *palette)))


def paint_portrait(look: Look, camera: Tensor, pose: Tensor, expression: Tensor, resolution: int) -> Tensor:
    """Paint one head.

    Args:
        look: colours.
        camera: (25,) camera vector.
        pose: (6,) neck | jaw axis-angle, radians; the head turns about the neck joint.
        expression: (100,): number 0 smiles, number 1 opens the mouth.
        resolution: picture side in pixels.

    Returns:
        (3, resolution, resolution) in [-1, 1].
    """
    oversampled = 2 * resolution
    rays = camera_rays(camera[None], oversampled)
    directions = rays.directions[0].double().numpy()
    origin = split_camera(camera).cam2world[:3, 3].double().numpy() / WORLD_PER_METRE
    turn = axis_angle_to_matrix(pose[:3].double()).numpy()
    rows = (np.arange(oversampled * oversampled) // oversampled / oversampled)[:, None]
    colour = np.array(look.backdrop) * (1.1 - 0.5 * rows)
    colour = _paint_shoulders(colour, look, origin, directions)
    colour = _paint_egg(colour, look, origin, directions, turn, (expression.double().numpy(), float(pose[3])))
    picture = torch.from_numpy(np.clip(colour, 0, 1) * 2 - 1).float().view(oversampled, oversampled, 3)
    return torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1)[None], 2)[0]


def _hit(
    origin: np.ndarray, directions: np.ndarray, centre: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intersect rays with an ellipsoid: (mask, unit-sphere coordinates of the nearer hit)."""
    o, d = (origin - centre) / radii, directions / radii
    a, b, c = (d * d).sum(1), (d * o).sum(1), (o * o).sum() - 1
    root = b * b - a * c
    mask = root > 0
    distance = (-b - np.sqrt(np.where(mask, root, 0))) / a
    return mask, o + distance[:, None] * d


def _shade(base: np.ndarray, normal: np.ndarray) -> np.ndarray:
    light = np.array([0.4, 0.5, 0.77])
    lambert = np.clip(normal @ light, 0, 1)[:, None]
    return base * (0.35 + 0.75 * lambert) + 0.12 * lambert**24


def _paint_shoulders(colour: np.ndarray, look: Look, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    for centre, radii, paint in (
        (np.array([0, -0.12, -0.01]), np.array([0.042, 0.1, 0.045]), look.skin),
        (np.array([0, -0.24, -0.02]), np.array([0.2, 0.125, 0.1]), look.clothes),
    ):
        mask, unit = _hit(origin, directions, centre, radii)
        normal = unit / radii
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        colour = np.where(mask[:, None], _shade(np.array(paint), normal) * 0.8, colour)
    return colour


def _paint_egg(
    colour: np.ndarray,
    look: Look,
    origin: np.ndarray,
    directions: np.ndarray,
    turn: np.ndarray,
    motion: tuple[np.ndarray, float],
) -> np.ndarray:
    mask, unit = _hit(origin @ turn, directions @ turn, _NECK_TO_CENTRE, RADII)
    x, y, z = (unit * RADII).T
    normal = unit / RADII
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True) @ turn.T
    base = np.broadcast_to(np.array(look.skin), colour.shape).copy()
    base[(y > 0.055 + 0.25 * np.abs(x)) | (z < 0.01 + 0.15 * np.clip(-y, 0, 1))] = look.hair
    front = z > 0.02
    base[front & (np.abs(y - 0.045) < 0.003) & (np.abs(np.abs(x) - 0.03) < 0.014)] = look.hair
    base[front & (np.hypot(x / 0.011, (y + 0.014) / 0.007) < 1)] *= 0.86
    for centre in EYE_CENTRES:
        across, up = x - centre[0], y - centre[1]
        white = front & (np.hypot(across / 0.0125, up / 0.0065) < 1)
        base[white] = 0.95
        base[white & (np.hypot(across, up) < 0.0058)] = look.iris
        base[white & (np.hypot(across, up) < 0.0025)] = 0.05
    expression, jaw = motion
    bend = y - MOUTH_HEIGHT - 3.0 * expression[0] * x**2
    height = 0.004 + 0.004 * np.clip(expression[1], 0, 3) + 0.05 * np.clip(jaw, 0, 0.4)
    lips = front & (np.hypot(x / 0.024, bend / (height + 0.003)) < 1)
    base[lips] = np.array(look.skin) * [0.85, 0.5, 0.5]
    base[lips & (np.hypot(x / 0.02, bend / height) < 0.7)] = (0.25, 0.08, 0.08)
    return np.where(mask[:, None], _shade(base, normal), colour)
