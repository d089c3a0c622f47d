"""The simplest open head: an egg with two eyeballs behind FLAME's interface, made from formulas alone.

It has 300 + 100 blend-shape slots (the first few move something, the rest are zero), FLAME's five joints, 68 + 2
landmarks and region lists. Everything is rounded to a micrometre, so that every machine builds the same bits.
"""

import numpy as np

from portrait4d.geometry.flame_assets import HeadAssets
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM
from portrait4d.geometry.head_regions import compute_vertex_neighbours

NAME = "ellipsoid"
VERSION = 1
RADII = np.array([0.075, 0.105, 0.09])
"""Half axes of the head in metres; its centre is the origin."""
EYE_RADIUS = 0.013
EYE_CENTRES = np.array([[0.03, 0.022, 0.072], [-0.03, 0.022, 0.072]])
"""Centres of the subject's left and right eyeball, metres."""
MOUTH_HEIGHT = -0.042

_RINGS, _SEGMENTS = 24, 32
_EYE_RINGS, _EYE_SEGMENTS = 8, 12
_NECK = np.array([0.0, -0.03, -0.015])
_JAW = np.array([0.0, -0.02, 0.0])


def build_open_head(name: str, version: int) -> HeadAssets:
    """Build an open head by name and version, as checkpoints name it.

    Raises:
        ValueError: if there is no such head.
    """
    if (name, version) != (NAME, VERSION):
        raise ValueError(f"open head: expected {NAME} version {VERSION}, got {name} version {version}")
    return build_ellipsoid_head()


def build_ellipsoid_head() -> HeadAssets:
    """Build the head (about 900 vertices) in metres."""
    head, head_faces = _sphere(_RINGS, _SEGMENTS)
    eye, eye_faces = _sphere(_EYE_RINGS, _EYE_SEGMENTS)
    head = head * RADII
    eyes = [eye * EYE_RADIUS + centre for centre in EYE_CENTRES]
    vertices = np.concatenate([head, *eyes])
    faces = np.concatenate([head_faces, eye_faces + len(head), eye_faces + len(head) + len(eye)])
    is_head = np.arange(len(vertices)) < len(head)
    weights = _skinning_weights(vertices, is_head, len(eye))
    landmark_faces, landmark_barycentrics = _landmarks(vertices, head_faces, len(eye_faces))
    every = np.arange(len(vertices))
    return HeadAssets(
        name=NAME,
        template=_metres(vertices),
        blend_directions=_metres(_blend_directions(vertices, is_head)),
        shape_count=SHAPE_DIM,
        pose_directions=np.zeros((len(vertices), 3, 36), np.float32),
        joint_regressor=_joint_regressor(vertices, is_head, len(eye)),
        parents=np.array([-1, 0, 1, 1, 1]),
        skinning_weights=_metres(weights),
        faces=faces,
        landmark_faces=landmark_faces,
        landmark_barycentrics=landmark_barycentrics,
        canonical_shape=np.zeros(SHAPE_DIM, np.float32),
        canonical_expression=np.zeros(EXPRESSION_DIM, np.float32),
        canonical_pose=np.array([0, 0, 0, 0.3, 0, 0], np.float32),
        coarse_indices=np.repeat(every[:, None], 3, axis=1),
        coarse_barycentrics=np.tile(np.array([1, 0, 0], np.float32), (len(vertices), 1)),
        coarse_faces=faces,
        regions=_regions(vertices, is_head),
        vertex_neighbours=compute_vertex_neighbours(faces, len(vertices)),
    )


def _metres(values: np.ndarray) -> np.ndarray:
    return (np.round(values, 6) + 0.0).astype(np.float32)


def _sphere(rings: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a unit UV sphere, poles on +-y: vertices (2 + (rings - 1) segments, 3), counter-clockwise faces."""
    polar = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(segments) / segments
    ring = np.stack([np.sin(around), np.zeros(segments), np.cos(around)], axis=1)
    body = [np.sin(p) * ring + [0, np.cos(p), 0] for p in polar]
    vertices = np.concatenate([[[0, 1, 0]], *body, [[0, -1, 0]]])
    faces = []
    last = len(vertices) - 1
    for s in range(segments):
        after = (s + 1) % segments
        faces.append((0, 1 + s, 1 + after))
        for r in range(rings - 2):
            a, b = 1 + r * segments + s, 1 + r * segments + after
            c, d = a + segments, b + segments
            faces += [(a, c, b), (b, c, d)]
        faces.append((last, last - segments + after, last - segments + s))
    return vertices, np.array(faces)


def _smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _skinning_weights(vertices: np.ndarray, is_head: np.ndarray, eye_count: int) -> np.ndarray:
    """Rigid with the neck above the collar, the chin partly with the jaw, the eyeballs with their own joints."""
    _, y, z = vertices.T
    neck = _smoothstep(y, -0.1, -0.075)
    jaw = neck * 0.9 * np.exp(-(((y + 0.06) / 0.025) ** 2)) * _smoothstep(z, 0.0, 0.05)
    weights = np.stack([1 - neck, neck - jaw, jaw, np.zeros_like(y), np.zeros_like(y)], axis=1)
    weights[~is_head] = 0
    weights[-2 * eye_count : -eye_count, 3] = 1
    weights[-eye_count:, 4] = 1
    return weights


def _joint_regressor(vertices: np.ndarray, is_head: np.ndarray, eye_count: int) -> np.ndarray:
    """Root, neck and jaw as affine combinations of six extreme head vertices; eye joints as means of the eyeballs."""
    regressor = np.zeros((5, len(vertices)), np.float32)
    head = np.nonzero(is_head)[0]
    extremes = [head[np.argmin(sign * vertices[head, axis])] for axis in range(3) for sign in (1, -1)]
    corners = np.concatenate([vertices[extremes].T, np.ones((1, 6))])
    for joint, position in enumerate(([0, -0.1, 0], _NECK, _JAW)):
        regressor[joint, extremes] = _metres(np.linalg.pinv(corners) @ [*position, 1])
    regressor[3, -2 * eye_count : -eye_count] = 1 / eye_count
    regressor[4, -eye_count:] = 1 / eye_count
    return regressor


def _blend_directions(vertices: np.ndarray, is_head: np.ndarray) -> np.ndarray:
    """Identity: width, height, depth, chin, brow. Expression: smile, mouth open, brows up, pucker."""
    x, y, z = vertices.T
    front = _smoothstep(z, 0.02, 0.07)
    chin = np.exp(-(((y + 0.07) / 0.03) ** 2))
    brow = np.exp(-(((y - 0.045) / 0.015) ** 2)) * front * is_head
    mouth = np.exp(-(((y - MOUTH_HEIGHT) / 0.015) ** 2) - (x / 0.03) ** 2) * front
    directions = np.zeros((len(vertices), 3, SHAPE_DIM + EXPRESSION_DIM))
    directions[:, 0, 0] = 0.05 * x
    directions[:, 1, 1] = 0.05 * y
    directions[:, 2, 2] = 0.04 * z
    directions[:, 0, 3] = 0.08 * x * chin
    directions[:, 2, 4] = 0.003 * brow
    smile, opened, brows, pucker = range(SHAPE_DIM, SHAPE_DIM + 4)
    directions[:, 1, smile] = 3.0 * mouth * x**2
    directions[:, 1, opened] = -0.003 * mouth * (y < MOUTH_HEIGHT)
    directions[:, 1, brows] = 0.003 * brow
    directions[:, 0, pucker] = -0.15 * x * mouth
    return directions


def _landmark_layout() -> np.ndarray:
    """Return (68, 2) face positions x, y in metres: contour, brows, nose, eyes, mouth, in the 68-point order."""

    def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: list[float]) -> list[tuple[float, float]]:
        return [(cx + rx * np.cos(np.radians(d)), cy + ry * np.sin(np.radians(d))) for d in degrees]

    left, height, _ = EYE_CENTRES[0]
    points = ellipse(0, 0.01, 0.066, 0.092, list(np.linspace(180, 360, 17)))
    points += [(x, 0.045) for x in np.linspace(-0.045, -0.015, 5)] + [(x, 0.045) for x in np.linspace(0.015, 0.045, 5)]
    points += [(0, y) for y in np.linspace(0.02, -0.008, 4)] + [(x, -0.015) for x in np.linspace(-0.012, 0.012, 5)]
    ring = [180, 120, 60, 0, -60, -120]
    points += ellipse(-left, height, 0.012, 0.006, ring) + ellipse(left, height, 0.012, 0.006, ring)
    points += ellipse(0, MOUTH_HEIGHT, 0.025, 0.01, list(np.linspace(180, -150, 12)))
    points += ellipse(0, MOUTH_HEIGHT, 0.018, 0.004, list(np.linspace(180, -135, 8)))
    return np.array(points)


def _landmarks(vertices: np.ndarray, head_faces: np.ndarray, eye_face_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Project the layout along -z on the head's front; the eye centres are the front poles of the eyeballs."""
    layout = _landmark_layout()
    depth = RADII[2] * np.sqrt(np.clip(1 - (layout[:, 0] / RADII[0]) ** 2 - (layout[:, 1] / RADII[1]) ** 2, 0, None))
    targets = np.concatenate([layout, depth[:, None]], axis=1)
    centroids = vertices[head_faces].mean(axis=1)
    indices, weights = [], []
    for target in targets:
        face = int(np.argmin(((centroids - target) ** 2).sum(axis=1)))
        corners = vertices[head_faces[face]]
        solution, *_ = np.linalg.lstsq(np.vstack([corners.T * 100, np.ones(3)]), [*(target * 100), 1], rcond=None)
        solution = np.clip(solution, 0, None)
        indices.append(face)
        weights.append(solution / solution.sum())
    front = 1 + 2 * (_EYE_RINGS // 2 - 1)  # the face whose first corner is the eyeball's front point
    for eye in range(2):
        indices.append(len(head_faces) + eye * eye_face_count + front)
        weights.append(np.array([1.0, 0.0, 0.0]))
    return np.array(indices), _metres(np.array(weights))


def _regions(vertices: np.ndarray, is_head: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = vertices.T
    front = is_head & (z > 0.02)
    lips = front & (np.hypot(x / 0.03, (y - MOUTH_HEIGHT) / 0.014) < 1)
    lids = np.zeros_like(is_head)
    for centre in EYE_CENTRES:
        lids |= front & (np.linalg.norm(vertices - centre, axis=1) < 0.028)
    small = front & (np.hypot(x / 0.055, y / 0.07) < 1)
    masks = {
        "face": front | ~is_head,
        "eyes": ~is_head,
        "face_without_eyes": front,
        "lips": lips,
        "outer_mouth": is_head & ~(lips & (np.abs(y - MOUTH_HEIGHT) < 0.005)),
        "small_face": small | ~is_head,
        "eyelids": lids,
        "eyeballs": ~is_head,
        "head": is_head,
    }
    return {name: np.nonzero(mask)[0] for name, mask in masks.items()}
