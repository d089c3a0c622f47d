"""Buns and pony tails: strands that hang on one root at the back of the head (millimetres)."""

import numpy as np

from portrait4d.synthetic_heads.hair_roots import root_pool
from portrait4d.synthetic_heads.head_sculpt import smoothstep
from portrait4d.synthetic_heads.strands import Strands


def tie_bun(count: int, points: int, rng: np.random.Generator) -> Strands:
    """Wind strands on a ball behind the crown."""
    centre, radius = np.array([0.0, 70.0, -98.0]), 29.0
    pole = rng.normal(size=(count, 3)) * [0.5, 0.5, 0.5] + [0.0, 0.75, -0.65]
    pole /= np.linalg.norm(pole, axis=1, keepdims=True)
    first = np.cross(pole, rng.normal(size=(count, 3)))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(pole, first)
    lean = rng.uniform(-0.75, 0.75, count)[:, None, None]
    turn = rng.uniform(0, 6.28, count)[:, None] + np.linspace(0, 2.6, points)
    ring = np.cos(turn)[..., None] * first[:, None] + np.sin(turn)[..., None] * second[:, None]
    unit = ring * np.sqrt(1 - lean**2) + lean * pole[:, None]
    line = centre + radius * rng.uniform(0.86, 1.04, count)[:, None, None] * unit * [1.08, 0.92, 1.0]
    return _strands(line, unit, 2.6, rng)


def tie_tail(count: int, points: int, rng: np.random.Generator) -> Strands:
    """Let strands fall in a tail from a band behind the crown."""
    t = np.linspace(0, 1, points)
    angle, share = rng.uniform(0, 6.28, count)[:, None], np.sqrt(rng.uniform(0.05, 1, count))[:, None]
    girth = 22 * smoothstep(t, -0.25, 0.3) * (1 - 0.55 * t**2)
    x = girth * share * np.cos(angle)
    depth = girth * share * np.sin(angle)
    length = rng.uniform(150, 205, count)[:, None]
    arc = 26 * np.sin(np.pi * np.minimum(t * 1.6, 1)) + 10 * t
    line = np.stack(
        [x + 9 * np.sin(2.4 * t + 1), 36 + 14 * t * (1 - t) - length * t**1.35 + 0 * x, -106 - arc - depth], -1
    )
    unit = np.stack([np.cos(angle) + 0 * t, 0.25 + 0 * t + 0 * angle, -np.sin(angle) - 0.3 + 0 * t], axis=-1)
    return _strands(line, unit / np.linalg.norm(unit, axis=-1, keepdims=True), 2.6, rng)


def _strands(line: np.ndarray, normal: np.ndarray, width: float, rng: np.random.Generator) -> Strands:
    count, points = line.shape[:2]
    pool = root_pool()
    back = int(np.argmin(((pool.points - [0.0, 50.0, -95.0]) ** 2).sum(1)))
    tangent = np.gradient(line, axis=1)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    across = np.cross(normal, tangent)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    taper = np.sqrt(np.clip(1.03 - np.linspace(0, 1, points) ** 3, 0, 1))
    shade = np.stack([rng.uniform(0, 1, count), rng.uniform(0.35, 1, count), np.full(count, 80.0)], axis=1)
    return Strands(
        face=np.full(count, pool.face[back]),
        weights=np.repeat(pool.weights[back : back + 1], count, axis=0),
        root=np.repeat(pool.points[back : back + 1], count, axis=0),
        offset=line - pool.points[back],
        across=across * (width * taper)[None, :, None],
        normal=normal,
        tangent=tangent,
        shade=shade,
    )
